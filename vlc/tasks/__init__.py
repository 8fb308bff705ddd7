"""TASKS: every task that is trained and tested, a row each in the file of its family. They are pure data.

This room imports no torch, and nothing of the package but `common`. A new task is a new row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vlc.tasks import (
    dialogues,
    generation,
    grounding,
    images,
    pretraining,
    questions,
    reasoning,
    retrieval,
    statements,
    words,
)
from vlc.tasks.task import Report, Task

FAMILIES = (pretraining, questions, statements, retrieval, dialogues, grounding, reasoning, generation, words, images)
TASKS: dict[str, Task] = {name: task for family in FAMILIES for name, task in family.TASKS.items()}


def family(name: str) -> str:
    """The name of the family that a task belongs to; of a user's own task its own name."""
    return next((one.__name__.rpartition(".")[2] for one in FAMILIES if name in one.TASKS), name)


@dataclass(frozen=True)
class Head:
    """What a head's name stands for: its kind of objective, the options and the report of the first task that has it."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    report: Report = field(default_factory=Report)


HEADS: dict[str, Head] = {}


def add_heads(task: Task) -> None:
    """Enter the heads of a task that no task before it has."""
    for kind in task.objectives:
        # The options of an objective without a name of its own are the run's, not those of the first task.
        own = Head(kind, task.options.get(kind, {}), task.report) if kind in task.heads else Head(kind)
        HEADS.setdefault(task.head(kind), own)


for _task in TASKS.values():
    add_heads(_task)
