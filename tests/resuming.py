"""Runs that are stopped at given places and resumed, in this process: what they end with is compared with unbroken ones."""

import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pytorch_lightning import LightningModule

import main_finetune
from tests import tiny
from tests.labelled_folders import words
from vlc.training.module import VLCModule
from vlc.training.run import run
from vlc.training.saving import Interrupted


class Killed(Exception):
    """Stands for a kill: nothing is saved on the way out."""


class Stop(NamedTuple):
    """Where a run is stopped: in the number-th call of a step, counted from where it was started or resumed."""

    step: str  # training_step, validation_step
    number: int
    kind: str  # name of a signal, or kill


class Program(NamedTuple):
    """A program: where its steps are, and how it is run. start(folder, checkpoint or None) -> folder of last.ckpt."""

    module: type[LightningModule]
    start: Callable[[Path, Path | None], Path]


def pretraining(arrows: Path, vit: str, **options: Any) -> Program:
    """run.py's, over 24 samples: 6 batches of 4 an epoch unless options say otherwise."""
    recipe = {"datasets": ["vqa"], "num_workers": 0, "drop_rate": 0.2, "vit": vit, "data_root": str(arrows)} | options

    def start(folder: Path, checkpoint: Path | None) -> Path:
        more = {"log_dir": str(folder), "resume_from": None if checkpoint is None else str(checkpoint)}
        run(tiny.settings("task_finetune_vqa_mae_randaug", **recipe, **more))
        return folder

    return Program(VLCModule, start)


def finetuning(images: Path, **options: Any) -> Program:
    """main_finetune.py's, over 48 images: 6 batches of 8 an epoch unless options say otherwise."""

    def start(folder: Path, checkpoint: Path | None) -> Path:
        more = {} if checkpoint is None else {"resume": checkpoint}
        main_finetune.main(words(images, folder, **{"drop_path": 0.2, "mixup": 0.8, **options}, **more))
        return folder

    return Program(VLCModule, start)


@contextmanager
def stopped(module: type[LightningModule], stop: Stop, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within the block, runs of a module are stopped at a place."""
    step, calls = getattr(module, stop.step), 0

    def stopping(self, *arguments: Any) -> Any:
        nonlocal calls
        if not self.trainer.sanity_checking:
            calls += 1
            if calls == stop.number:
                if stop.kind == "kill":
                    raise Killed
                signal.raise_signal(getattr(signal, stop.kind))
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, stop.step, stopping)
        yield


def last_checkpoint(folder: Path) -> Path | None:
    """The newest last.ckpt below a folder."""
    return max(folder.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime_ns, default=None)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(last_checkpoint(folder), weights_only=True)["state_dict"]


def run_with_stops(program: Program, folder: Path, stops: list[Stop], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run to the end, stopped and resumed at each of the places; returns how often it was stopped.

    Each run has a folder of its own, to which the last checkpoint of the one before is moved first: as if it had been
    started with the same command. A stop behind the end of a run does not happen.
    """
    happened, checkpoint = 0, None
    for number, stop in enumerate([*stops, None]):
        here = folder / str(number)
        if checkpoint is not None:
            here.mkdir(parents=True)
            checkpoint = Path(shutil.copy(checkpoint, here / "last.ckpt"))
        if stop is None:
            program.start(here, checkpoint)
            return happened
        try:
            with stopped(program.module, stop, monkeypatch):
                program.start(here, checkpoint)
        except (Killed, Interrupted):
            happened += 1
            checkpoint = last_checkpoint(here) or checkpoint
        else:
            return happened
    raise AssertionError("the last run has no stop")


def assert_same(program: Program, folder: Path, stops: list[Stop], monkeypatch: pytest.MonkeyPatch) -> int:
    """Assert that a stopped run ends with the weights of an unbroken one, which is run once; returns the stops."""
    unbroken = folder / "unbroken"
    if not unbroken.exists():
        program.start(unbroken, None)
    expected = weights(unbroken)
    here = folder / re.sub(r"\W+", "-", str([tuple(stop) for stop in stops]))
    happened = run_with_stops(program, here, stops, monkeypatch)
    newest = max(here.iterdir(), key=lambda path: int(path.name))
    found = weights(newest)
    assert found.keys() == expected.keys()
    different = [name for name, value in expected.items() if not torch.equal(found[name], value)]
    assert not different, f"{len(different)} of {len(expected)} differ after {stops}"
    shutil.rmtree(here)
    return happened
