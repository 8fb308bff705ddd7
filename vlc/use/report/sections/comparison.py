"""Two runs on the same examples: paired tests, and examples that one of them alone has right."""

from typing import Any

from vlc.evaluation.examples import Example
from vlc.evaluation.intervals import compared
from vlc.use.report.cards import card
from vlc.use.report.run import Run, head_name
from vlc.use.report.section import Section

_SHOWN = 4  # examples of each kind of each head
_MOST_HEADS = 4  # heads whose examples are shown
_NOTE = (
    "Both runs answered these examples. The difference is the second one minus the first one. p of the paired bootstrap is "
    "two-sided, from 1,000 resamples; McNemar's test is exact, and for answers that are right or wrong."
)


def section(run: Run) -> Section | None:
    assert run.beside is not None
    pairs = paired(run.examples, run.beside.examples)
    if not pairs:
        return None
    rows = [
        {
            "head": head,
            "split": split,
            "first": _mean(own, 0),
            "second": _mean(own, 1),
            "tests": compared(*_scores(own)),
        }
        for (head, split), own in pairs.items()
    ]
    shown = [_shown(run, head, split, own) for (head, split), own in list(pairs.items())[:_MOST_HEADS]]
    values = {"names": [one.label for one in run.both], "rows": rows, "shown": shown}
    return Section("Comparison", "comparison", values, _NOTE)


Pairs = list[tuple[Example, Example]]


def paired(first: list[Example], second: list[Example]) -> dict[tuple[str, str], Pairs]:
    """The examples that both have, with a score, by head and split."""
    others = {one.place: one for one in second if one.score is not None}
    found: dict[tuple[str, str], Pairs] = {}
    for one in first:
        if one.score is not None and one.place in others:
            found.setdefault((head_name(one.task, one.place.head), one.split), []).append((one, others[one.place]))
    return found


def _scores(pairs: Pairs) -> tuple[list[float], list[float]]:
    return [one.score or 0.0 for one, _ in pairs], [other.score or 0.0 for _, other in pairs]


def _mean(pairs: Pairs, place: int) -> float:
    return sum(_scores(pairs)[place]) / len(pairs)


def _shown(run: Run, head: str, split: str, pairs: Pairs) -> dict[str, Any]:
    """Examples that one run alone has right, the most confident mistakes first."""
    groups = []
    for title, right, wrong in ((f"{run.label} alone is right", 0, 1), (f"{_other(run).label} alone is right", 1, 0)):
        own = [pair for pair in pairs if (pair[right].score or 0) > (pair[wrong].score or 0)]
        own.sort(key=lambda pair: -(pair[wrong].confidence or 0))
        cards = [card(run, pair[0], others=[pair[1].answer]) for pair in own[:_SHOWN]]
        groups.append({"title": title, "count": len(own), "cards": cards})
    return {"title": f"{head}, {split}", "groups": groups}


def _other(run: Run) -> Run:
    assert run.beside is not None
    return run.beside
