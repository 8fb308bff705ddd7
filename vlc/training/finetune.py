"""The callbacks and the resuming of runs of main_finetune.py, as in MAE's program: schedule, moving average, log.txt."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from timm.scheduler import CosineLRScheduler

from vlc.common.errors import UserError
from vlc.configuration.groups import OptimSettings, RunSettings
from vlc.configuration.settings import Settings
from vlc.data.batch import Batch
from vlc.data.sampler import Position
from vlc.evaluation.metrics import Ratio, check_finite
from vlc.hardware.distributed import LAUNCHED
from vlc.training import resume
from vlc.training.moving_average import MovingAverage
from vlc.training.progress import Progress
from vlc.training.saving import Saving
from vlc.training.trainer import LOG_EVERY, common_callbacks, guards

CHECK = "--model, --nb_classes, and --global_pool against --cls_token"  # the flags by which a checkpoint may not fit


def callbacks(settings: Settings) -> list[Callback]:
    """The callbacks of a run of main_finetune.py."""
    optim, run = settings.optim, settings.run
    ema, tested = optim.optimizer.ema, run.load_path if run.test_only else None
    average = [] if ema is None else [MovingAverage(ema, tested, option="--ema")]
    made = [
        Progress(Position(optim.start_epoch, 0)),  # a resumed run starts where its checkpoint says
        *guards(settings.data.max_corrupt_ratio, advice="a lower --blr, --clip_grad 1.0, or --amp off"),
        *common_callbacks(),
        HalfCosine(optim),
        *average,
        EpochLog(run.output_dir, *average),
    ]
    if run.output_dir and not run.test_only:
        options: dict[str, Any] = {"dirpath": run.output_dir, "save_on_train_epoch_end": True}
        options["enable_version_counter"] = False
        made += [
            Saving("--resume ", run.checkpoint_every),
            ModelCheckpoint(filename="best", monitor="test_acc1", mode="max", **options),
            ModelCheckpoint(filename="last", **options),
        ]
    return made


class HalfCosine(Callback):
    """Sets the learning rate before each optimiser step."""

    def __init__(self, optim: OptimSettings):
        self.optim = optim

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        (optimizer,) = trainer.optimizers
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = self.optim.learning_rate  # of this run, where it is resumed too
        self.batches = int(trainer.num_training_batches)  # of an epoch
        steps = self.batches // trainer.accumulate_grad_batches
        self.schedule = half_cosine(optimizer, self.optim, steps)

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Batch, batch_idx: int) -> None:
        batches = trainer.current_epoch * self.batches + batch_idx
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self.schedule.step_update(batches // trainer.accumulate_grad_batches)


def half_cosine(optimizer: torch.optim.Optimizer, optim: OptimSettings, steps_per_epoch: int) -> CosineLRScheduler:
    """MAE's schedule by optimiser step: linear from 0 over warmup_epochs, then half a cosine down to end_lr."""
    warmup = (optim.warmup_epochs or 0) * steps_per_epoch
    return CosineLRScheduler(
        optimizer,
        t_initial=max(optim.max_epoch * steps_per_epoch - warmup, 1),
        lr_min=optim.end_lr,
        warmup_t=warmup,
        warmup_prefix=True,
        t_in_epochs=False,
    )


class EpochLog(Callback):
    """Writes a line of log.txt for each epoch, with the names of MAE's, and logs its values for TensorBoard.

    In an epoch that was resumed, the training values are of the batches since then.

    folder: the folder of log.txt; empty: no file is written.
    metrics: the metrics of the last evaluation, by name.
    """

    def __init__(self, folder: str, average: MovingAverage | None = None):
        self.folder, self.average = folder, average
        self.train = {name: Ratio() for name in ("loss", "lr")}
        self.metrics: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        for ratio in self.train.values():
            ratio.to(module.device)

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs, batch: Batch, batch_idx: int) -> None:
        values = {
            "loss": outputs["loss"].detach() * trainer.accumulate_grad_batches,
            "lr": torch.tensor(max(group["lr"] for group in trainer.optimizers[0].param_groups), dtype=torch.float64),
        }
        for name, value in values.items():
            self.train[name].update(value, 1)
            module.log(name, value, prog_bar=True, logger=False)
        if (batch_idx + 1) % LOG_EVERY == 0 and module.logger is not None:
            epoch_1000x = int((trainer.current_epoch + batch_idx / trainer.num_training_batches) * 1000)
            module.logger.log_metrics({name: float(value) for name, value in values.items()}, step=epoch_1000x)

    def on_validation_epoch_end(self, trainer: Trainer, module: Any) -> None:
        ratios = {f"test_{module.measured[name].metric}": ratio for name, ratio in module.ratios.items()}
        averaged = self.average.ratios if self.average else {}
        ratios |= {f"test_ema_{module.measured[name].metric}": ratio for name, ratio in averaged.items()}
        self.metrics = {name: _value(ratio) for name, ratio in ratios.items()}
        for ratio in averaged.values():
            ratio.reset()
        check_finite(self.metrics)
        module.log_dict(self.metrics, logger=False)
        for prefix in ("", "ema_") if averaged else ("",):
            acc1, acc5, loss = (self.metrics[f"test_{prefix}{name}"] for name in ("acc1", "acc5", "loss"))
            name = "EMA " if prefix else ""
            rank_zero_info(f"\n* {name}Acc@1 {acc1:.3f} Acc@5 {acc5:.3f} loss {loss:.3f}")

    def on_test_epoch_end(self, trainer: Trainer, module: Any) -> None:
        self.on_validation_epoch_end(trainer, module)

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        train = {f"train_{name}": _value(ratio) for name, ratio in self.train.items() if ratio.update_called}
        for ratio in self.train.values():
            ratio.reset()
        sizes = [parameter.numel() for parameter in module.parameters() if parameter.requires_grad]
        line = {**train, **self.metrics, "epoch": trainer.current_epoch, "n_parameters": sum(sizes)}
        if module.logger is not None:
            perf = {f"perf/{name}": value for name, value in self.metrics.items()}
            module.logger.log_metrics(perf, step=trainer.current_epoch)
        if self.folder and trainer.is_global_zero:
            with open(Path(self.folder) / "log.txt", "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def metrics(trainer: Trainer) -> dict[str, float]:
    """The metrics of a run's last evaluation, by name. They are empty, and a line says so, where nothing was trained."""
    (log,) = (one for one in trainer.callbacks if isinstance(one, EpochLog))  # type: ignore[attr-defined]  # Lightning sets it
    if not log.metrics:
        rank_zero_info(f"{trainer.ckpt_path} has all of --epochs {trainer.max_epochs} behind it: nothing was trained")
    return log.metrics


def _value(ratio: Ratio) -> float:
    """The ratio over all processes; NaN where nothing was counted."""
    value = ratio.compute()
    return math.nan if value is None else float(value)


# -- resuming

# Flags that do not change what is trained.
_WITHOUT_EFFECT = frozenset(
    "data_path eval_split finetune output_dir log_dir resume checkpoint_every eval dist_eval device compile num_workers "
    "pin_mem world_size local_rank dist_on_itp dist_url start_epoch resplit".split()
)


def resume_from(run: RunSettings, facts: Mapping[str, Any]) -> str | None:
    """The checkpoint to resume: the one that this launch wrote before its workers were restarted, or --resume."""
    last = Path(run.output_dir or ".") / "last.ckpt"
    launched = float(os.environ.get(LAUNCHED, "inf"))
    if run.output_dir and last.is_file() and last.stat().st_mtime > launched:
        rank_zero_info(f"Restarted: continuing from {last}")
        return str(last)
    path = run.resume_from
    if path == resume.AUTO:
        path = str(last) if run.output_dir and last.is_file() else None
        rank_zero_info(f"--resume auto: {f'continuing {path}' if path else f'there is no {last} to continue'}")
    if not path:
        return None
    option = f"--resume {path}"
    saved = resume.read(option, path, "start from them with --finetune, or evaluate them with --eval")
    before = saved["vlc"].get("arguments")
    if before is None:
        raise UserError(f"{option} is of a run of run.py: start from it with --finetune")
    before = {"lora_rank": 0, **before}  # which older runs do not have
    for name in ("model", "input_size", "nb_classes", "global_pool", "lora_rank"):
        was, now = (str(flags[name]).removeprefix("mae_") for flags in (before, run.flags))
        if was != now:
            raise UserError(
                f"{option} is of a run with {name} {was}, not {now}: give the same options, or start from it with "
                "--finetune"
            )
    resume.check_facts(option, resume.facts(saved), facts)
    if changed := resume.differences(before, run.flags, {*_WITHOUT_EFFECT, "model"}):
        rank_zero_warn(f"{option} was saved with other options: {', '.join(changed)}")
    return path
