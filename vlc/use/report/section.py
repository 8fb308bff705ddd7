"""A section of a page: a title, a template, and what the template shows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Section:
    """name: of its template, and the anchor of the section.

    note: what a reader should know to understand it.
    values: what the template reads; texts are escaped, and Pillow images become data URLs by its filter `picture`.
    """

    title: str
    name: str
    values: Mapping[str, Any]
    note: str = ""


@dataclass(frozen=True)
class Row:
    """How a section is made.

    section: makes it of a run (`vlc.use.report.run.Run`); None where the run has nothing for it.
    lacking: what a run needs to have it, for the list of what was left out.
    compares: whether it is about two runs.
    """

    section: Callable[[Any], Section | None]
    lacking: str
    compares: bool = False
