"""Scores by what describes the examples: types of questions and answers, languages, in each split."""

from collections.abc import Iterator
from typing import NamedTuple

from vlc.evaluation.examples import Example
from vlc.evaluation.intervals import Interval, bootstrap
from vlc.use.report.run import Run, head_name
from vlc.use.report.section import Section

_MOST = 24  # values of a field; one with more names examples, and does not describe them
_LEAST = 5  # examples of a value


class Group(NamedTuple):
    head: str
    split: str
    field: str
    value: str
    score: Interval

    @property
    def place(self) -> str:
        return f"{self.head}, {self.split}"


def section(run: Run) -> Section | None:
    tables = [{"name": one.label, "rows": list(groups(one))} for one in run.both]
    return (
        Section("By type, language and split", "groups", {"tables": tables}) if any(t["rows"] for t in tables) else None
    )


def groups(run: Run) -> Iterator[Group]:
    """The scores of the examples with each value of each field that describes them; values of fewer than 5 are left out."""
    for (task, head, split), examples in run.by_head().items():
        for field in dict.fromkeys(name for one in examples for name in one.about):
            by_value: dict[str, list[Example]] = {}
            for one in examples:
                if field in one.about:
                    by_value.setdefault(one.about[field], []).append(one)
            if 1 < len(by_value) <= _MOST:
                for value, own in sorted(by_value.items()):
                    if len(own) >= _LEAST:
                        yield Group(
                            head_name(task, head), split, field, value, bootstrap([one.score or 0.0 for one in own])
                        )
