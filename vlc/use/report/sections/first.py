"""The first answers of each type: no selection."""

from typing import Any

from vlc.evaluation.examples import Example
from vlc.use.report.cards import card
from vlc.use.report.run import Run, head_name
from vlc.use.report.section import Section

OF_TYPE, _MOST = 3, 30  # cards of a type; of all heads
_NOTE = "The first examples of each type in the split, not a selection. Bars: the five best answers."


def section(run: Run) -> Section | None:
    by_head = run.by_head()
    splits: dict[tuple[str, str], tuple[str, str, str]] = {}
    for task, head, split in by_head:
        splits.setdefault((task, head), (task, head, split))  # of each head the first split
    heads = [_shown(run, place, by_head[place], max(3, _MOST // len(splits))) for place in splits.values()]
    return Section("First answers", "first", {"heads": heads}, _NOTE) if heads else None


def _shown(run: Run, place: tuple[str, str, str], examples: list[Example], most: int) -> dict[str, Any]:
    types: dict[str, list[Example]] = {}
    for one in examples:
        types.setdefault(run.kind(one), []).append(one)
    each = max(1, min(OF_TYPE, most // len(types)))
    chosen = [one for _, own in sorted(types.items()) for one in own[:each]][:most]
    return {"title": f"{head_name(*place[:2])}, {place[2]}", "cards": [card(run, one) for one in chosen]}
