"""What watches over a run: interrupts, non-finite losses, corrupt images, speed."""

import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from vlc.data.batch import Batch, CorruptImage
from vlc.errors import NonFiniteLoss, UserError
from vlc.terminal import printable


def _at_step_end(trainer: Trainer) -> bool:
    """Whether the batch just trained on completed an optimiser step (no gradients are being accumulated)."""
    return not trainer.fit_loop.epoch_loop._should_accumulate()


class Interruption(Callback):
    """Ctrl-C finishes the optimiser step, saves last.ckpt and stops; outside of training it saves and stops at once.

    A second Ctrl-C does not wait.
    """

    def __init__(self, resume: str = "resume_from="):
        self.resume = resume  # how the command is told to continue
        self._asked = False
        self._previous: Any = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._asked = False
        self._previous = signal.signal(signal.SIGINT, lambda number, frame: self._interrupted(trainer))

    def _interrupted(self, trainer: Trainer) -> None:
        if self._asked or not trainer.training:
            raise KeyboardInterrupt
        self._asked = True
        rank_zero_info("\nInterrupted: finishing this step and saving (Ctrl-C again to stop at once)")

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs, batch, batch_idx: int) -> None:
        if _at_step_end(trainer) and trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            raise KeyboardInterrupt

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        whole_step = self._asked or not trainer.training
        if isinstance(exception, KeyboardInterrupt) and whole_step and trainer.global_step and not trainer.fast_dev_run:
            path = last_checkpoint(trainer)
            trainer.save_checkpoint(path)
            rank_zero_info(f"Saved {path} at step {trainer.global_step}; continue with {self.resume}{path}")

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None


def last_checkpoint(trainer: Trainer) -> Path:
    """Where last.ckpt of this run lies."""
    folder = next(c.dirpath for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint))
    return Path(folder or Path(trainer.log_dir) / "checkpoints") / "last.ckpt"


class FinalValidation(Callback):
    """Validates, and so saves, after the last step of max_steps too: it seldom falls on a regular validation."""

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs, batch, batch_idx: int) -> None:
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True


class NonFiniteLossGuard(Callback):
    """Stops a run whose loss became NaN or infinite, before another checkpoint is written, and tells the step.

    The first bad step is kept on the device, and looked at every `every` batches and before each validation, so that
    the host does not wait for the device in every step.
    """

    def __init__(self, every: int = 10, advice: str = "a lower learning_rate, gradient_clip=1.0, or precision=32"):
        self.every, self.advice = every, advice
        self._first_bad: torch.Tensor | None = None

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs, batch, batch_idx: int) -> None:
        loss = outputs["loss"].detach()
        if self._first_bad is None:
            self._first_bad = torch.full((), -1, device=loss.device)
        bad = ~loss.isfinite() & (self._first_bad < 0)
        self._first_bad = torch.where(bad, trainer.global_step, self._first_bad)
        if (batch_idx + 1) % self.every == 0:
            self._check(trainer)

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if self._first_bad is not None and self._first_bad >= 0:
            best = trainer.checkpoint_callback and trainer.checkpoint_callback.best_model_path
            raise NonFiniteLoss(
                f"The loss became NaN or infinite at optimiser step {int(self._first_bad)}. The last good checkpoint is "
                f"{best or 'the one the run started from: none was written yet'}. Try "
                f"{self.advice}"
            )


class CorruptImages(Callback):
    """Logs every training image that could not be decoded, and fails the run above a share of them."""

    def __init__(self, max_ratio: float):
        self.max_ratio = max_ratio
        self.corrupt: set[CorruptImage] = set()
        self.num_seen = 0

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self.num_seen += len(batch) + len(batch.corrupt)
        for image in batch.corrupt:
            if image not in self.corrupt:  # an image comes again, with another text or in another epoch
                place = f"row {image.row} of {image.table}"
                rank_zero_warn(printable(f"Left out an image that cannot be decoded: {place}: {image.reason}"))
                self.corrupt.add(image)
        # A share says nothing about a handful of images: allow the first one.
        if len(self.corrupt) > max(1, self.max_ratio * self.num_seen):
            raise UserError(
                f"{len(self.corrupt)} of {self.num_seen} training images cannot be decoded, more than the share "
                f"max_corrupt_ratio={self.max_ratio} allows; the last one in row {batch.corrupt[-1].row} of "
                f"{batch.corrupt[-1].table}"
            )


class CastWeightsOnce(Callback):
    """Keeps what autocast made of the weights for a whole evaluation; by itself it casts them anew for every batch."""

    def __init__(self):
        self._context = ExitStack()

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._context.enter_context(trainer.precision_plugin.forward_context())

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._context.close()

    on_test_start, on_test_end = on_validation_start, on_validation_end

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._context.close()


class Throughput(Callback):
    """Logs samples/s over all devices, every `every` batches."""

    def __init__(self, every: int = 10):
        self.every = every
        self._since = time.perf_counter()
        self._samples = 0

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._restart()

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._restart()

    def _restart(self) -> None:
        self._since, self._samples = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs, batch: Batch, batch_idx: int
    ) -> None:
        self._samples += len(batch)
        if (batch_idx + 1) % self.every == 0:
            rate = self._samples * trainer.world_size / (time.perf_counter() - self._since)
            module.log("train/samples_per_second", rate, prog_bar=True)
            self._restart()
