"""`python run.py report`: finds the runs in a folder, and writes a page about them."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from vlc.common.errors import UserError
from vlc.common.terminal import cell, printable
from vlc.configuration.use_settings import UseSettings
from vlc.configuration.values import check_known
from vlc.evaluation.predictions import require_writable
from vlc.use.explain import DEFAULT, METHODS
from vlc.use.report.page import Page, Part, write_page
from vlc.use.report.run import Run, is_run, runs_in

_MOST = 12  # runs of one page


def report(config: Mapping[str, Any], given: Collection[str]) -> Path:
    """Write the page about run=FOLDER, beside compare=FOLDER where it is given, and return its path.

    A folder with several runs, such as the one of a demonstration, gives a page with a part for each.
    Raises UserError where a folder has no run inside, or where one run is to be chosen among several.
    """
    use = UseSettings.from_config(config)
    if not use.run:
        raise UserError("run=FOLDER is missing: name the log folder of a run, such as result/NAME/version_0")
    folders = _folders("run", use.run)
    out = Path(use.out or Path(use.run) / "report.html")
    require_writable("out", out)
    check_known([use.method or DEFAULT], METHODS, "method")
    if use.compare:
        if len(folders) > 1:
            raise UserError(f"run={use.run} has {len(folders)} runs inside, and compare takes one: name {folders[0]}")
        others = _folders("compare", use.compare)
        if len(others) > 1:
            raise UserError(f"compare={use.compare} has {len(others)} runs inside: name one of them, as {others[0]}")
        folders = [folders[0], others[0]]
    overrides = {key: config[key] for key in given if key in _OVERRIDES}
    if "load_path" in overrides and len(folders) > 1 and not use.compare:
        raise UserError(
            f"load_path={overrides['load_path']} is of one run, and run={use.run} has {len(folders)} inside"
        )
    runs = [Run(folder, config, dict(overrides), use.num_examples, use.method or DEFAULT) for folder in folders]
    if use.compare:
        runs[1].overrides.pop("load_path", None)  # which is of the first one
        runs[0].beside = runs[1]
        runs[0].label, runs[1].label = "A", "B"
        parts = [Part("", runs[0])]
        title = f"{runs[0].name} and {runs[1].name}"
    else:
        parts = [Part(run.name if len(runs) > 1 else "", run) for run in runs]
        title = runs[0].name if len(runs) == 1 else Path(use.run).absolute().name
    page = Page(title, _command(use), parts)
    left_out = write_page(page, out)
    console = Console()
    for line in left_out:
        console.print(cell(f"Left out: {line}"), soft_wrap=True)
    console.print(cell(f"Report: {out}"), soft_wrap=True)
    return out


# What may be given in place of what a run was started with: where things lie now, and the machine.
_OVERRIDES = (
    "load_path",
    "data_root",
    "data_cache",
    "tokenizer",
    "splits",
    "num_gpus",
    "precision",
    "per_gpu_batchsize",
)


def _folders(key: str, given: str) -> list[Path]:
    """The folders of the runs in a folder. Raises UserError where there is none, or too many for a page."""
    folder = Path(given)
    if not folder.is_dir():
        raise UserError(f"{key}={given} is no folder: name the log folder of a run, such as result/NAME/version_0")
    found = [folder] if is_run(folder) else runs_in(folder)
    if not found:
        raise UserError(
            f"{key}={given} has no run inside: the log folder of a run has events.out.tfevents.*, checkpoints or "
            "metrics.json, and is called version_0 or the like"
        )
    if len(found) > _MOST:
        names = ", ".join(str(path.relative_to(folder)) for path in found[:3])
        raise UserError(f"{key}={given} has {len(found)} runs inside, too many for a page: name one, such as {names}")
    return found


def _command(use: UseSettings) -> str:
    """The command that makes the page again."""
    words = [
        f"run={use.run}",
        *([f"compare={use.compare}"] if use.compare else []),
        *([f"out={use.out}"] if use.out else []),
    ]
    return printable(f"python run.py report with {' '.join(words)}")
