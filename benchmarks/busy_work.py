"""A worker of `benchmarks.busy`: it trains, ranks or serves for some seconds whenever it is asked to.

`python -m benchmarks.busy_work WORK SECONDS DATA` reads a line for each turn, and answers with the rate as a line of JSON.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import vlc  # noqa: F401  # before Lightning imports torchvision, which it lets import

from pytorch_lightning import Callback, LightningModule, Trainer  # isort: skip

from benchmarks.cases import CASES, Case
from vlc.configuration.config import resolve
from vlc.configuration.settings import Settings
from vlc.data.batch import Batch

TEXTS = 64  # that the image is ranked with
CLIENTS = 8


class Turns:
    """What the asking process wants: one line a turn."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # whatever else prints does not answer

    def ready(self) -> None:
        print(json.dumps({"ready": True}), file=self._answers)

    def begins(self) -> bool:
        """Wait for a turn; False: there is none any more."""
        asked = bool(sys.stdin.readline())
        self._started, self._count = time.perf_counter(), 0
        return asked

    def goes_on(self, count: int) -> bool:
        """Add to what was done in this turn. Where the turn is over, answer and return False."""
        self._count += count
        taken = time.perf_counter() - self._started
        if taken < self.seconds:
            return True
        print(json.dumps({"per_s": self._count / taken}), file=self._answers)
        return False


class _StepsInTurns(Callback):
    def __init__(self, turns: Turns):
        self._turns = turns

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._turns.ready()
        self._wait()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs, batch: Batch, batch_idx: int
    ) -> None:
        if not self._turns.goes_on(len(batch)):
            self._wait()

    def _wait(self) -> None:
        if not self._turns.begins():
            raise SystemExit  # a run that stops would validate and save first


def train(turns: Turns, data: str) -> None:
    """Samples of the demonstration's pre-training, as run.py trains it."""
    from vlc.training.run import build_data, build_module, build_trainer
    from vlc.training.trainer import suit_cpu

    with tempfile.TemporaryDirectory() as folder:
        values = {"data_root": data, "log_dir": folder, "num_gpus": 0, "max_steps": 10**6, "val_check_interval": 10**6}
        settings = Settings.from_config(resolve("task_pretrain_emoji", **values))
        opened = build_data(settings)
        module = build_module(settings, opened)
        trainer = build_trainer(settings, num_evaluated=0)
        trainer.callbacks.insert(0, _StepsInTurns(turns))  # type: ignore[attr-defined]  # Lightning's trainers have it
        trainer.num_sanity_val_steps = 0
        suit_cpu(module, settings.model.size.width, trainer.precision)
        trainer.fit(module, datamodule=opened)


def rank(turns: Turns, data: str) -> None:
    """Pairs of an image and a text, scored by a model of the demonstration's size."""
    from benchmarks.ours import build

    size = ("vit=mae_vit_tiny_patch16", "image_size=64")
    ranked = build(Case(CASES["ranking_224"].recipe, 64, TEXTS, evaluates=True), TEXTS, False, *size)
    turns.ready()
    while turns.begins():
        ranked()
        while turns.goes_on(TEXTS):
            ranked()


def serve(turns: Turns, data: str) -> None:
    """Requests to `run.py serve` with a small random model, by clients in this process."""
    from benchmarks.service.asking import requests
    from benchmarks.service.load import loaded
    from benchmarks.service.served import opened, random_checkpoint, server

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = random_checkpoint(Path(folder))
        asked = requests(opened(checkpoint, 32), ["snli_ve"], 48, seed=0)
        with server(checkpoint, 32, wait_ms=5.0) as running:
            turns.ready()
            while turns.begins():
                found = asyncio.run(loaded(running.host, running.port, asked, CLIENTS, turns.seconds, 0))
                turns.goes_on(len(found.latencies))


WORKS: dict[str, Callable[[Turns, str], None]] = {"training": train, "ranking": rank, "service": serve}

if __name__ == "__main__":
    WORKS[sys.argv[1]](Turns(float(sys.argv[2])), sys.argv[3])
