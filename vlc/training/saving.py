"""Writes last.ckpt between validations: in intervals, and when a signal ends the run."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import ModelParallelStrategy
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from vlc.checkpoint.checkpoint_io import CheckpointIO
from vlc.common.errors import NonFiniteLoss
from vlc.training.progress import at_step_end

INTERVAL = 30 * 60  # seconds of training after which there is a checkpoint
_SAVE = 0.5  # below the number of any signal, and more than nothing: processes agree on the most that one wants
_TWICE = 1  # seconds within which a signal that comes again is the same one: `timeout` sends each twice


class Interrupted(SystemExit):
    """A signal ended the run. Its status is 128 + the signal's number, as shells have it.

    save: whether the state is saved first.
    together: whether all processes stop here, and so can save together.
    """

    def __init__(self, number: int, *, save: bool, together: bool):
        super().__init__(128 + number)
        self.number, self.save, self.together = number, save, together


def last_checkpoint(trainer: Trainer) -> Path:
    """Where last.ckpt of this run lies."""
    folder = next(c.dirpath for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint))
    return Path(folder or f"{trainer.log_dir}/checkpoints") / "last.ckpt"


def leave_signals_to_us(trainer: Trainer) -> None:
    """Keep Lightning from its own handlers.

    They let SIGTERM end with status 0 and without a checkpoint, or not at all outside of training; with several processes
    they communicate in the midst of whatever the process does; and they requeue a SLURM job with a checkpoint of their own.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def _writer(trainer: Trainer) -> CheckpointIO:
    writer = trainer.strategy.checkpoint_io
    assert isinstance(writer, CheckpointIO)
    return writer


def _is_trial(trainer: Trainer) -> bool:
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # Lightning sets it


class Saving(Callback):
    """Saves last.ckpt every `every` optimiser steps (None = never for that), every `interval` seconds, and on signals.

    resume: the option by which a command continues a checkpoint, for messages.

    After Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 the run completes the batch, saves and stops; outside of batches it does so at
    once. A checkpoint that is being written at this moment is completed first, and is kept if it holds the state. All
    processes stop at the same batch, even if only one of them received the signal. A second Ctrl-C does not wait. After
    SIGUSR1 a SLURM job is put into the queue again.
    """

    def __init__(self, resume: str = "resume_from=", every: int | None = None, interval: float = INTERVAL):
        self.resume, self.every, self.interval = resume, every, interval
        self._previous: dict[int, Any] = {}  # handlers, by number of their signal
        self._asked: int | None = None  # the signal's number
        self._asked_at = self._saved_at = 0.0
        self._first_step = self._saved_step = 0
        self._in_training = self._in_batch = False

    # -- signals

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self._asked, self._in_training, self._in_batch = None, False, False
        if threading.current_thread() is not threading.main_thread():
            return
        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1] if stage == "fit" else [signal.SIGINT]
        for number in numbers:
            if signal.getsignal(number) != signal.SIG_IGN:  # which nohup sets
                self._previous[number] = signal.signal(
                    number, lambda given, frame: self._received(trainer, given, frame)
                )

    def _received(self, trainer: Trainer, number: int, frame: FrameType | None) -> None:
        if not self._in_training:
            raise Interrupted(number, save=False, together=False)
        if self._asked is not None:
            if number == signal.SIGINT and time.monotonic() - self._asked_at > _TWICE:
                raise Interrupted(number, save=False, together=False)
            return
        self._asked, self._asked_at = number, time.monotonic()
        if trainer.is_global_zero:  # not by way of a logger, which may be at work just now
            os.write(2, f"\n{signal.Signals(number).name}: saving, then stopping (Ctrl-C to stop at once)\n".encode())
        if _writer(trainer).is_saving:
            return  # torch would make an error of its archive of it; the next hook stops
        alone = trainer.world_size == 1
        if trainer.training:
            may_stop = alone and not self._in_batch
        else:  # the weights rest, so the first process can save them by itself where it has all of them
            may_stop = alone or (trainer.is_global_zero and not _is_sharded(trainer))
        if may_stop:
            raise Interrupted(number, save=True, together=alone)

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    # -- training

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._first_step = self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()
        self._in_training = True

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._stop_if_signalled(trainer)
        self._in_training = False

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch, batch_idx: int) -> None:
        if trainer.world_size == 1:  # several agree at the end of the batch
            self._stop_if_signalled(trainer)
        self._in_batch = True

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs, batch, batch_idx: int) -> None:
        self._in_batch = False
        asked = _SAVE if self._asked is None and self._is_due(trainer) else self._asked or 0
        if agreed := self._agreed(trainer, asked):
            if agreed != _SAVE:
                raise Interrupted(int(agreed), save=True, together=True)
            trainer.save_checkpoint(last_checkpoint(trainer), weights_only=False)
            if trainer.world_size == 1:
                self._stop_if_signalled(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
        # Gathering weights needs all processes at the same step, which is certain only here.
        if self._in_training and _is_sharded(trainer):
            self._stop_if_signalled(trainer)

    def _stop_if_signalled(self, trainer: Trainer) -> None:
        """Stop if any process received a signal. All processes call this at the same place."""
        if number := self._agreed(trainer, self._asked or 0):
            raise Interrupted(int(number), save=True, together=True)

    def _is_due(self, trainer: Trainer) -> bool:
        """Whether a checkpoint is due, as far as this process knows: clocks differ."""
        if not at_step_end(trainer) or trainer.global_step == self._saved_step or _is_trial(trainer):
            return False
        due = self.every is not None and trainer.global_step % self.every == 0
        return due or time.monotonic() - self._saved_at >= self.interval

    @staticmethod
    def _agreed(trainer: Trainer, asked: float) -> float:
        """The most that any process asks for: nothing (0), a checkpoint (_SAVE), or a stop after a signal (its number)."""
        if trainer.world_size == 1:
            return asked
        value = torch.tensor(float(asked), device=trainer.strategy.root_device)
        return float(trainer.strategy.reduce(value, reduce_op="max"))

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    # -- the end

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        try:
            if isinstance(exception, Interrupted) and exception.save and not _is_trial(trainer):
                self._save_interrupted(trainer, exception)
        finally:
            self._in_training = False
            self.teardown(trainer, module, "")  # Lightning leaves it out here

    @staticmethod
    def _is_saved(trainer: Trainer, path: Path) -> bool:
        """Whether last.ckpt holds the state already. Only the first process knows; several save in any case."""
        return trainer.world_size == 1 and _writer(trainer).saved == (str(path), trainer.global_step)

    def _save_interrupted(self, trainer: Trainer, stop: Interrupted) -> None:
        if trainer.global_step == self._first_step:
            rank_zero_info("Stopped before the first optimiser step was complete: there is nothing new to save")
        else:
            path = last_checkpoint(trainer)
            saved = self._is_saved(trainer, path)
            try:
                if stop.together and not saved:
                    trainer.save_checkpoint(path, weights_only=False)
                elif not saved:
                    state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
                    trainer.strategy.save_checkpoint(state, path)
            except NonFiniteLoss as error:
                rank_zero_warn(f"Not saved. {error}")
                return
            rank_zero_info(f"Saved {path} at step {trainer.global_step}; continue with {self.resume}{path}")
        if stop.number == signal.SIGUSR1 and trainer.is_global_zero:
            _requeue()


def _is_sharded(trainer: Trainer) -> bool:
    return isinstance(trainer.strategy, ModelParallelStrategy)


def _requeue() -> None:
    """Put this SLURM job, if it is one, into the queue again."""
    job = os.environ.get("SLURM_JOB_ID")
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if job is None:
        return
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        rank_zero_warn(f"Job {job} could not be put into the queue again: {error}")
        return
    if done.returncode:
        rank_zero_warn(f"Job {job} could not be put into the queue again: {done.stderr.strip()}")
    else:
        rank_zero_info(f"Job {job} is in the queue again")
