"""A moving average of the weights: it is evaluated and saved beside them (Polyak and Juditsky 1992; timm's ModelEmaV3)."""

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer
from timm.utils import ModelEmaV3
from torch import nn

from vlc.checkpoint.adapters import merged
from vlc.checkpoint.weight_files import read_weights
from vlc.common.errors import UserError
from vlc.data.batch import Batch
from vlc.evaluation.metrics import Ratio, check_finite
from vlc.training.module import VLCModule
from vlc.training.progress import at_step_end


class MovingAverage(Callback):
    """Keeps a moving average of the weights, evaluates it beside them, and stores it in checkpoints under "ema".

    path: the checkpoint whose average is evaluated; None: the average starts from the weights of the run.
    option: how the user asks for an average, for errors.
    """

    def __init__(self, decay: float, path: str | None = None, option: str = "optimizer.ema"):
        self.decay, self.path, self.option = decay, path, option

    def setup(self, trainer: Trainer, module: Any, stage: str) -> None:
        self.average = ModelEmaV3(_parts(module), self.decay).requires_grad_(False)
        self.ratios = {name: Ratio() for name in module.ratios}
        if self.path is not None:
            stored = merged(read_weights(Path(self.path), part="ema")).state
            if not stored:
                raise UserError(
                    f"{self.path} holds no moving average: leave {self.option} out, or pass a checkpoint of a run that had "
                    "one"
                )
            self.average.module.load_state_dict(stored)

    def on_fit_start(self, trainer: Trainer, module: Any) -> None:
        for part in (self.average, *self.ratios.values()):
            part.to(module.device)

    def on_test_start(self, trainer: Trainer, module: Any) -> None:
        self.on_fit_start(trainer, module)

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs, batch: Batch, batch_idx: int) -> None:
        if at_step_end(trainer):
            self.average.update(_parts(module))

    def on_validation_batch_end(
        self, trainer: Trainer, module: Any, outputs, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch.again:
            return
        parts = self.average.module
        with trainer.precision_plugin.val_step_context():
            outcomes = module.outcomes(batch, (parts["encoder"], parts["objectives"]))
        task = module.tasks[batch.task]
        for head in task.heads:
            for metric, ratio in outcomes[head.name].metrics.items():
                self.ratios[task.metric(head, batch.split, metric)].update(*ratio)

    def on_test_batch_end(self, *arguments: Any) -> None:
        self.on_validation_batch_end(*arguments)

    def on_save_checkpoint(self, trainer: Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["ema"] = self.average.module.state_dict()

    def on_load_checkpoint(self, trainer: Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        averaged = checkpoint.get("ema") or checkpoint["state_dict"]  # an average that begins with a resumed run
        self.average.module.load_state_dict(averaged)


class LoggedAverage(MovingAverage):
    """A moving average whose metrics are logged under "ema/" and the name of the metric of the weights."""

    def on_validation_epoch_end(self, trainer: Trainer, module: Any) -> None:
        values = {f"ema/{name}": ratio.compute() for name, ratio in self.ratios.items()}
        for ratio in self.ratios.values():
            ratio.reset()
        if trainer.sanity_checking:
            return
        counted = {name: value.float() for name, value in values.items() if value is not None}
        check_finite(counted)
        module.log_dict(counted)

    def on_test_epoch_end(self, trainer: Trainer, module: Any) -> None:
        self.on_validation_epoch_end(trainer, module)


def _parts(module: VLCModule) -> nn.ModuleDict:
    """The parts of the module whose weights are averaged."""
    return nn.ModuleDict({"encoder": module.encoder, "objectives": module.objectives})
