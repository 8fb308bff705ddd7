"""Callbacks that watch a run: for losses and states that are not finite, corrupt images, and speed."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn

from vlc.common.errors import NonFiniteLoss, UserError
from vlc.common.terminal import printable
from vlc.data.batch import Batch, CorruptImage
from vlc.hardware.threads import free_cores
from vlc.training.saving import last_checkpoint


class FinalValidation(Callback):
    """Validates, and so saves, after the last step of max_steps, which seldom falls on a regular validation."""

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs, batch, batch_idx: int) -> None:
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True


class NonFiniteLossGuard(Callback):
    """Stops a run whose loss became NaN or infinite, and names the step. It lets no checkpoint of such a state be written.

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

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Sums find as much as looking at each number, because no finite numbers add up to more than float32 holds. They are
        # 25 times as fast.
        sums = [tensor.sum(dtype=torch.float32) for tensor in _floats(checkpoint)]
        if sums and not torch.stack([value.to(sums[0].device) for value in sums]).isfinite().all():
            raise NonFiniteLoss(self._message(trainer, "The weights", f"by optimiser step {trainer.global_step}"))

    def _check(self, trainer: Trainer) -> None:
        if self._first_bad is not None and self._first_bad >= 0:
            raise NonFiniteLoss(self._message(trainer, "The loss", f"at optimiser step {int(self._first_bad)}"))

    def _message(self, trainer: Trainer, what: str, when: str) -> str:
        last = last_checkpoint(trainer) if trainer.checkpoint_callbacks else None
        good = last if last and last.is_file() else "the one the run started from: none was written yet"
        return f"{what} became NaN or infinite {when}. The last good checkpoint is {good}. Try {self.advice}"


def _floats(checkpoint: dict[str, Any]) -> Iterator[torch.Tensor]:
    """The weights and the optimiser's state. Only rank 0 has those of a sharded model."""
    states = (state for optimizer in checkpoint["optimizer_states"] for state in optimizer.get("state", {}).values())
    for values in (checkpoint["state_dict"], *states):
        yield from (value for value in values.values() if torch.is_tensor(value) and value.is_floating_point())


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
    """Keeps the weights that autocast has cast for a whole evaluation. Autocast alone casts them for every batch."""

    def __init__(self):
        self._context = ExitStack()

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._context.enter_context(trainer.precision_plugin.forward_context())

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._context.close()

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.on_validation_start(trainer, module)

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.on_validation_end(trainer, module)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._context.close()


class Threads(Callback):
    """On the CPU, uses the cores that other programs leave free."""

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Batch, batch_idx: int) -> None:
        if module.device.type == "cpu":
            free_cores.follow()

    def on_validation_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.on_train_batch_start(trainer, module, batch, batch_idx)

    def on_test_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.on_train_batch_start(trainer, module, batch, batch_idx)


class Throughput(Callback):
    """Logs samples/s over all devices, and the share of time that rank 0 waits for batches, every `every` batches."""

    def __init__(self, every: int = 10):
        self.every = every
        self._restart()

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._restart()

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._restart()

    def _restart(self) -> None:
        self._since = self._ready = time.perf_counter()
        self._samples, self._waited = 0, 0.0

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self._waited += time.perf_counter() - self._ready

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs, batch: Batch, batch_idx: int
    ) -> None:
        self._samples += len(batch)
        if (batch_idx + 1) % self.every == 0:
            seconds = time.perf_counter() - self._since
            module.log("train/samples_per_second", self._samples * trainer.world_size / seconds, prog_bar=True)
            module.log("train/loader_share", self._waited / seconds)
            self._restart()
        self._ready = time.perf_counter()
