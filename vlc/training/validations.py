"""The metrics of each validation, in a line of validations.jsonl of the run's folder."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer

from vlc.common.errors import UserError

FILE = "validations.jsonl"
SELECTING = "val/the_metric"


@dataclass(frozen=True)
class Validation:
    """What a validation has measured.

    epoch: counted from 0.
    step: how many optimiser steps were behind it.
    metrics: all metrics by name: task/split/metric, or head/split/metric of a task without a name.
    """

    epoch: int
    step: int
    metrics: dict[str, float]

    @property
    def checkpoint(self) -> str:
        """The name of the file that is kept where no other validation of the run was better."""
        return f"epoch={self.epoch}-step={self.step}.ckpt"


class Validations(Callback):
    """Writes the file."""

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        folder = trainer.log_dir  # asks the other processes
        trial = trainer.sanity_checking or trainer.fast_dev_run  # type: ignore[attr-defined]  # Lightning sets it
        if trial or not trainer.is_global_zero or not folder:
            return
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics = {name: value for name, value in found.items() if "train" not in name.split("/")}
        with (Path(folder) / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(Validation(trainer.current_epoch, trainer.global_step, metrics))) + "\n")


def read_validations(folder: Path) -> list[Validation]:
    """Return the validations of a run's folder. Raises UserError where the file is damaged."""
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        return [Validation(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path} does not hold the metrics of validations ({error}): remove it, or train again"
        ) from error
