"""The position in training: one pair of epoch and batch that order, augmentation, dropout and checkpoints share.

Lightning has several counters that advance at different times. How it restores them depends on where a checkpoint was
taken, and on whether steps or epochs limit the run. Here the position is after the last optimiser step, whose weights a
checkpoint holds. Batches of a step that was not completed are read again.
"""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loops.progress import _ProcessedTracker

from vlc.data.sampler import Position


def at_step_end(trainer: Trainer) -> bool:
    """Whether the batch just trained on completed an optimiser step (no gradients are being accumulated)."""
    return not trainer.fit_loop.epoch_loop._should_accumulate()


class Progress(Callback):
    """Keeps the position in checkpoints, and resumes training there. It comes first among the callbacks.

    start: where a run begins that resumes no checkpoint.
    """

    def __init__(self, start: Position = Position(0, 0)):  # noqa: B008  it is immutable
        self.facts: dict[str, Any] = {}  # `DataModule.facts`, for the checkpoints
        self.position = start
        self.validated = False  # whether the validation that is due at the position has been
        self._total_batches = 0  # over all epochs
        self._resumed = False

    # -- counting

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it
        self.facts, data.start = data.facts(trainer.world_size), self.position
        epochs = trainer.fit_loop.epoch_progress.current
        assert isinstance(epochs, _ProcessedTracker)
        epochs.processed = epochs.completed = self.position.epoch

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs, batch, batch_idx: int) -> None:
        if at_step_end(trainer):
            self.position = Position(self.position.epoch, batch_idx + 1)
            self._total_batches = trainer.fit_loop.total_batch_idx + 1
            self.validated = False

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.sanity_checking and trainer.fit_loop.batch_idx + 1 == self.position.num_batches:
            self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self.position.num_batches >= trainer.num_training_batches:  # fewer where max_steps ends the run
            self.position = Position(self.position.epoch + 1, 0)

    # -- checkpoints

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.position.epoch,
            "num_batches": self.position.num_batches,
            "total_batches": self._total_batches,
            "validated": self.validated,
            "facts": self.facts,
        }

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        loops = checkpoint["loops"]["fit_loop"]
        state = checkpoint["callbacks"].get(self.state_key) or _older_state(loops)
        self.position = Position(state["epoch"], state["num_batches"])
        self.validated, self._total_batches = state["validated"], state["total_batches"]
        self._resumed = True
        loops.update(self._loops())
        trainer.datamodule.start = self.position  # type: ignore[attr-defined]  # as above

    def _loops(self) -> dict[str, Any]:
        """Lightning's counters for the position: in the midst of an epoch, or before its first batch."""
        epoch, num_batches = self.position
        done = _counts(epoch)
        begun = done | {"ready": epoch + 1} | ({"started": epoch + 1} if num_batches else {})
        pending = bool(num_batches) and not self.validated
        return {
            "state_dict": {},
            "epoch_progress": {"total": begun, "current": dict(begun)},
            "epoch_loop.batch_progress": {
                "total": _counts(self._total_batches),
                "current": _counts(num_batches),
                "is_last_batch": False,
            },
            # An evaluation that was begun is run (again) before training goes on, if one is due at all.
            "epoch_loop.val_loop.batch_progress": {
                "total": _counts(0) | ({"ready": 1, "started": 1} if pending else {}),
                "current": _counts(0),
                "is_last_batch": False,
            },
        }

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if self._resumed:
            # Loggers call this number the step. Where Lightning considers a validation first, it adds one.
            loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
            assert fetcher is not None
            loop._batches_that_stepped = trainer.global_step - loop._should_check_val_fx(fetcher)
            self._resumed = False


def _counts(number: int) -> dict[str, int]:
    return dict.fromkeys(("ready", "started", "processed", "completed"), number)


def _older_state(loops: dict[str, Any]) -> dict[str, Any]:
    """The state for a checkpoint that does not hold it, from Lightning's counters."""
    epochs, batches = loops["epoch_progress"]["current"], loops["epoch_loop.batch_progress"]
    inside = epochs["started"] > epochs["processed"]
    # An epoch that max_steps ended counts as processed, though batches of it are left.
    cut_short = not inside and not batches["is_last_batch"]
    return {
        "epoch": epochs["processed"] - cut_short,
        "num_batches": batches["current"]["processed"] if inside or cut_short else 0,
        "total_batches": batches["total"]["processed"],
        "validated": False,
        "facts": {},
    }
