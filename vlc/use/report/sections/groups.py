"""Scores by what describes the examples: types of questions and answers, languages, in each split."""

from collections.abc import Iterator
from typing import NamedTuple

from vlc.evaluation.examples import Example
from vlc.evaluation.intervals import Interval, bootstrap
from vlc.use.report.run import Run, head_name
from vlc.use.report.section import Section

_LEAST = 5  # examples of a value


class Group(NamedTuple):
    head: str
    split: str
    field: str
    value: str
    score: Interval


def section(run: Run) -> Section | None:
    tables = [{"name": one.label, "places": _by_place(one)} for one in run.both]
    if not any(table["places"] for table in tables):
        return None
    return Section("By type, language and split", "groups", {"tables": tables})


def _by_place(run: Run) -> dict[str, list[Group]]:
    """The rows of each head and split."""
    found: dict[str, list[Group]] = {}
    for one in groups(run):
        found.setdefault(f"{one.head}, {one.split}", []).append(one)
    return found


def groups(run: Run) -> Iterator[Group]:
    """The scores of the examples with each value of each field that describes them; values of fewer than 5 are left out."""
    for (task, head, split), examples in run.by_head().items():
        for field in run.fields(task, head, split):
            by_value: dict[str, list[Example]] = {}
            for one in examples:
                if field in one.about:
                    by_value.setdefault(one.about[field], []).append(one)
            if len(by_value) > 1:
                for value, own in sorted(by_value.items()):
                    if len(own) >= _LEAST:
                        yield Group(
                            head_name(task, head), split, field, value, bootstrap([one.score or 0.0 for one in own])
                        )
