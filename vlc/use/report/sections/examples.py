"""The answers that the model was most sure of, right ones and wrong ones, with heat maps."""

from typing import Any

from vlc.use.report.cards import card, maps_note
from vlc.use.report.run import Run, head_name
from vlc.use.report.section import Section

_MOST, _LEAST = 24, 3  # cards of right, or of wrong answers, over all heads; of each head


def section(run: Run) -> Section | None:
    heads = {place: examples for place, examples in run.by_head().items() if not examples[0].boxes}
    heads = heads or run.by_head()
    if not heads:
        return None
    count = max(_LEAST, _MOST // len(heads) // 2)
    shown = [_shown(run, *place, count) for place in heads]
    cards = [one for head in shown for group in head["groups"] for one in group["cards"]]
    return Section("Confident answers", "examples", {"heads": shown}, maps_note(run, cards))


def _shown(run: Run, task: str, head: str, split: str, count: int) -> dict[str, Any]:
    examples = sorted(run.by_head()[task, head, split], key=lambda one: (-(one.confidence or 0.0), one.number))
    right = [one for one in examples if one.score is not None and one.score >= 0.5]
    wrong = [one for one in examples if one.score is not None and one.score < 0.5]
    groups = {"Right, the most confident first": right, "Wrong, the most confident first": wrong}
    return {
        "title": f"{head_name(task, head)}, {split}",
        "groups": [
            {"title": title, "count": len(own), "cards": [card(run, one, mapped=True) for one in own[:count]]}
            for title, own in groups.items()
        ],
    }
