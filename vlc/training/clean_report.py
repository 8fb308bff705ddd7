"""The report of what `clean.exclude` has removed from training, and of what is left, which is nothing."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from rich.console import Console
from rich.table import Column, Table

from vlc.common.files import write_atomically
from vlc.common.terminal import cell
from vlc.data.clean import CleanList, Removal

FILE_NAME = "clean_report.json"


class CleanReport(Callback):
    """Prints the report when training starts, and writes it beside the logs, where there are any."""

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it
        if data.clean is not None:
            folder = None if trainer.fast_dev_run else trainer.log_dir  # type: ignore[attr-defined]  # as above
            report(data.clean, data.removals, folder)


@rank_zero_only
def report(clean: CleanList, removals: Sequence[Removal], folder: str | None) -> None:
    """Print a line for each split of each task, and write them into clean_report.json of a folder."""
    numbers = ("rows", "removed", "left", "samples", "removed", "share")
    grid = Table("task", "data set", "split", *(Column(name, justify="right") for name in numbers), box=None)
    for one in removals:
        left = "images of its own" if one.left is None else f"{one.left:,}"
        share = f"{one.samples_left_out / one.samples:.1%}" if one.samples else ""
        counts = (f"{one.rows:,}", f"{one.rows_left_out:,}", left, f"{one.samples:,}", f"{one.samples_left_out:,}")
        grid.add_row(cell(one.task), cell(one.dataset), cell(one.split), *counts, share)
    title = f"clean.exclude={clean.exclude}: training leaves out the images of {len(clean.keys):,} keys in {clean.path}"
    Console().print(cell(title), grid, sep="\n", soft_wrap=True)
    if folder is not None:
        content = {
            "list": str(clean.path),
            "exclude": clean.exclude,
            "digest": clean.digest,
            "splits": [asdict(one) for one in removals],
        }
        with write_atomically(Path(folder) / FILE_NAME) as partial:
            partial.write_text(json.dumps(content, indent=1, ensure_ascii=False))
