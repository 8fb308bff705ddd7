"""The headline of each head without the image, with the image of another example, and without the text."""

from vlc.evaluation.intervals import bootstrap
from vlc.use.report.evaluation import CHANGES
from vlc.use.report.run import Run, head_name
from vlc.use.report.section import Section

_NOTE = (
    "A model that answers as well without an input has learnt the habits of its data (Goyal et al. 2017). These figures "
    "are of the samples that were evaluated here."
)


def section(run: Run) -> Section | None:
    tables = [{"name": one.label, "rows": _rows(one)} for one in run.both]
    if not any(table["rows"] for table in tables):
        return None
    return Section("Inputs left out", "sanity", {"tables": tables, "changes": list(CHANGES)}, _NOTE)


def _rows(run: Run) -> list[dict]:
    found = run.evaluated
    whole: dict[tuple[str, str, str], list[float]] = {}
    for one in found.examples:
        if one.score is not None:
            whole.setdefault((one.task, one.place.head, one.split), []).append(one.score)
    return [
        {
            "head": head_name(*place[:2]),
            "split": place[2],
            "whole": bootstrap(scores),
            "changed": [
                bootstrap(own) if (own := found.changed.get(change, {}).get(place)) else None for change in CHANGES
            ],
        }
        for place, scores in whole.items()
    ]
