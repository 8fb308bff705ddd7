"""`python run.py sweep`: the runs, the table of their means and spreads, and the files results.json and results.md."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rich.console import Console

from vlc.common.errors import UserError
from vlc.common.files import to_json
from vlc.common.terminal import cell, printable
from vlc.configuration.command_settings import SweepSettings
from vlc.evaluation.predictions import write_text
from vlc.training.validations import SELECTING
from vlc.workflows.sweep.axes import SEED, Axes, Range, Search, Values, label
from vlc.workflows.sweep.runs import Asked, SweepRun, carry_out
from vlc.workflows.sweep.table import Setting, as_markdown, as_table, best_of, content

_OF_THE_SWEEP = ("resume_from", "test_only", "fast_dev_run")  # keys that a sweep sets, or that leave nothing to compare


def sweep(config: Mapping[str, Any], named: Sequence[str], updates: Mapping[str, Any]) -> list[Setting]:
    """Train with every setting and seed, test the best checkpoints, and compare; what has been done is not done again.

    config: the complete configuration, with the dictionary `sweep`.
    named, updates: the named configurations and keys of the command line.

    Raises UserError for values that cannot be used, and where all runs fail.
    """
    settings = SweepSettings.from_config(config["sweep"])
    axes = Axes.of(settings)
    given = {key: value for key, value in updates.items() if key != "sweep"}
    asked = Asked(named, given, _typed())
    _check(asked, axes)
    folder = Path(config["log_dir"]) / f"{config['exp_name']}_sweep"
    found = [*_settings(axes, settings, asked, folder)]
    runs = [one for setting in found for one in setting.runs]
    failed = [one for one in runs if one.error]
    if len(failed) == len(runs):
        raise UserError(f"All {len(runs)} runs of the sweep have failed, the first one so: {failed[0].error}")
    write_text(folder / "results.json", to_json(content(found, settings.metrics)))
    write_text(folder / "results.md", as_markdown(found, settings.metrics))
    console = Console()
    console.print(as_table(found, settings.metrics), soft_wrap=True)
    for one in failed:
        console.print(cell(f"failed: {one.name}: {printable(one.error)}", "red"), soft_wrap=True)
    chosen = best_of(found)
    said = (
        f"best by the mean of {SELECTING}: {chosen.name}" if chosen else "no setting has all its runs: none is the best"
    )
    console.print(cell(said), cell(f"results: {folder}"), sep="\n", soft_wrap=True)
    return found


def _typed() -> list[str]:
    """What the command line gives to all runs."""
    words = sys.argv[sys.argv.index("with") + 1 :] if "with" in sys.argv else []
    return [word for word in words if not word.startswith(("sweep.", "sweep="))]


def _check(asked: Asked, axes: Axes) -> None:
    """Raise UserError for what no run can be made of, before the first one begins."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("A sweep starts its own processes: leave the launcher out, and pass sweep.processes=N")
    for key in _OF_THE_SWEEP:
        if asked.updates.get(key):
            raise UserError(f"{key}={asked.updates[key]!r} cannot be combined with a sweep: leave it out")
    values: dict[str, Sequence[Any]] = {
        key: (axis.low, axis.high) if isinstance(axis, Range) else axis for key, axis in axes.values.items()
    }
    if axes.seeds:
        values[SEED] = axes.seeds
    for key in values:
        if key in asked.updates:
            raise UserError(f"{key} and sweep.values.{key} are both given: leave one of them out")
    first = {key: axis[0] for key, axis in values.items()}
    for key, axis in values.items():
        for value in axis:
            asked.settings({**first, key: value})


def _settings(axes: Axes, settings: SweepSettings, asked: Asked, folder: Path) -> Iterator[Setting]:
    """Do the runs of the grid or of the search; yields each setting once."""

    def made(values: Values) -> Setting:
        own = [SweepRun(asked, values, seed, folder / label(values), settings.test) for seed in axes.seeds or (None,)]
        return Setting(values, own)

    def ended(one: SweepRun) -> None:
        if not one.error:
            _check_metrics(one, settings.metrics)

    if settings.search == "grid":
        found = [made(values) for values in axes.grid()]
        carry_out([one for setting in found for one in setting.runs], settings.processes, ended)
        yield from found
        return
    search = Search(axes, settings)
    known: dict[str, Setting] = {}
    while (left := settings.trials - search.told) > 0:
        asked_for = [search.ask() for _ in range(min(left, max(1, settings.processes)))]
        fresh = {label(values): made(values) for _, values in asked_for if label(values) not in known}
        known |= fresh
        carry_out([one for setting in fresh.values() for one in setting.runs], settings.processes, ended)
        for trial, values in asked_for:
            search.tell(trial, known[label(values)].score)
    yield from known.values()


def _check_metrics(one: SweepRun, patterns: Sequence[str]) -> None:
    measured = {**one.validation, **one.test}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in measured):
            raise UserError(
                f"sweep.metrics: {pattern!r} is no metric of {one.name}. It has {', '.join(sorted(measured))}; finished "
                "runs are not done again"
            )
