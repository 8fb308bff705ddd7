"""Means and spreads of the runs of each setting, as a table, as Markdown and as JSON."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from rich.table import Table

from vlc.common.terminal import cell
from vlc.training.validations import SELECTING
from vlc.workflows.sweep.axes import Values
from vlc.workflows.sweep.runs import SweepRun


@dataclass(frozen=True)
class Spread:
    """What n runs have measured; deviation: the standard deviation of a sample (n - 1); None: there is one run."""

    mean: float
    deviation: float | None
    min: float
    max: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        several = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), several, min(values), max(values), len(values))


@dataclass(frozen=True)
class Setting:
    """A combination of values, with a run for each seed."""

    values: Values
    runs: Sequence[SweepRun]

    @property
    def name(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.values.items()) or "as given"

    @property
    def finished(self) -> list[SweepRun]:
        return [one for one in self.runs if not one.error]

    @property
    def score(self) -> float | None:
        """The mean of val/the_metric; None: a run has failed, and the mean of fewer would compare with others unfairly."""
        if len(self.finished) < len(self.runs):
            return None
        return statistics.fmean(one.validation[SELECTING] for one in self.runs)

    def spreads(self, part: str) -> dict[str, Spread]:
        """The spread of each metric of the finished runs' part, validation or test."""
        measured: dict[str, list[float]] = {}
        for one in self.finished:
            for name, value in getattr(one, part).items():
                measured.setdefault(name, []).append(value)
        return {name: Spread.of(values) for name, values in measured.items()}


def best_of(settings: Sequence[Setting]) -> Setting | None:
    """Return the setting with the highest mean of val/the_metric, of those without failed runs."""
    scored = [one for one in settings if one.score is not None]
    return max(scored, key=lambda one: one.score or 0.0) if scored else None


def content(settings: Sequence[Setting], patterns: Sequence[str]) -> dict[str, Any]:
    """Return what results.json holds: all metrics of all runs."""
    chosen = best_of(settings)
    return {
        "chosen_by": f"mean of {SELECTING}",
        "best": chosen and chosen.values,
        "shown": _columns(settings, patterns),
        "settings": [
            {
                "values": one.values,
                "validation": {name: asdict(spread) for name, spread in one.spreads("validation").items()},
                "test": {name: asdict(spread) for name, spread in one.spreads("test").items()},
                "runs": [run.content() for run in one.runs],
            }
            for one in settings
        ],
    }


def _columns(settings: Sequence[Setting], patterns: Sequence[str]) -> dict[str, list[str]]:
    """The metrics that are shown, of validations and of tests."""
    finished = [run for one in settings for run in one.finished]
    headlines = {name for run in finished for name in run.headlines}
    shown: dict[str, list[str]] = {}
    for part, always in (("validation", {SELECTING}), ("test", headlines)):
        found = dict.fromkeys(name for run in finished for name in getattr(run, part))
        names = sorted(found, key=lambda name: name != SELECTING)  # which comes first
        shown[part] = [name for name in names if name in always or any(fnmatchcase(name, one) for one in patterns)]
    return shown


def _cells(settings: Sequence[Setting], patterns: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The titles of the columns, and for each metric a row of each setting, in the order of val/the_metric."""
    keys = list(dict.fromkeys(key for one in settings for key in one.values))
    ordered = sorted(settings, key=lambda one: (one.score is None, -(one.score or 0.0)))
    rows = []
    for part, names in _columns(settings, patterns).items():
        for name in names:
            for one in ordered:
                spread = one.spreads(part).get(name)
                values = [str(one.values[key]) for key in keys]
                rows.append([name, *values, f"{len(one.finished)} of {len(one.runs)}", *_numbers(spread)])
    return ["metric", *keys, "runs", "mean", "deviation", "min", "max"], rows


def _numbers(spread: Spread | None) -> list[str]:
    found = (None,) * 4 if spread is None else (spread.mean, spread.deviation, spread.min, spread.max)
    return ["-" if number is None else f"{number:.4f}" for number in found]


def as_table(settings: Sequence[Setting], patterns: Sequence[str]) -> Table:
    """Return the table for a terminal."""
    titles, rows = _cells(settings, patterns)
    grid = Table(box=None)
    for title in titles:
        grid.add_column(cell(title), overflow="fold")
    for number, row in enumerate(rows, start=1):
        grid.add_row(*map(cell, row), end_section=number % len(settings) == 0)
    return grid


def as_markdown(settings: Sequence[Setting], patterns: Sequence[str]) -> str:
    """Return the page results.md."""
    titles, rows = _cells(settings, patterns)
    chosen = best_of(settings)
    said = (
        f"The best setting by the mean of {SELECTING} is {chosen.name}." if chosen else "No setting has all its runs."
    )
    lines = [
        f"| {' | '.join(one.replace('|', '/') for one in row)} |" for row in (titles, ["---"] * len(titles), *rows)
    ]
    failed = [f"- {run.name}: {run.error}" for one in settings for run in one.runs if run.error]
    notes = "Each row is over the seeds; the deviation is that of a sample (n - 1). Tests chose nothing."
    page = [f"{said} {notes}", "\n".join(lines)]
    return "\n\n".join([*page, *(["Failed runs:\n\n" + "\n".join(failed)] if failed else [])]) + "\n"
