"""Which answers are given for which: the most frequent true answers, and what the model says."""

from collections import Counter
from typing import Any

from vlc.evaluation.examples import Example
from vlc.use.report.run import Run, head_name
from vlc.use.report.section import Section

_MOST = 10  # answers
_OTHER = "other answers"
_NOTE = (
    "Numbers of examples. Rows are what is right, the most frequent answers first, and columns what the model answers."
)


def section(run: Run) -> Section | None:
    tables = []
    for (task, head, split), examples in run.by_head().items():
        if (table := confusion(examples)) is not None:
            tables.append({"title": f"{head_name(task, head)}, {split}", **table})
    return Section("Confusion", "confusion", {"tables": tables}, _NOTE) if tables else None


def confusion(examples: list[Example]) -> dict[str, Any] | None:
    """The table of the most frequent right answers; None where answers hardly come again, or are boxes."""
    truths = Counter(one.truth for one in examples if one.truth)
    if not truths or len(truths) > len(examples) / 2 or any(one.boxes for one in examples):
        return None
    names = [name for name, _ in truths.most_common(_MOST)]
    given = Counter(
        (one.truth, one.answer if one.answer in names else _OTHER) for one in examples if one.truth in names
    )
    columns = [*names, *([_OTHER] if any(answer == _OTHER for _, answer in given) else [])]
    rows = [(name, truths[name], [(given[name, column], column == name) for column in columns]) for name in names]
    return {"columns": columns, "rows": rows, "kinds": len(truths)}
