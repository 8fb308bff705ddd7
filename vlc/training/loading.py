"""How many loader processes a run has where `num_workers=auto` lets it measure."""

import math
import os
import statistics
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, NamedTuple

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_info
from torch.utils.data import DataLoader

from vlc.data.batch import Batch

AUTO = "auto"
_MIN_SAMPLES, _MIN_STEPS = 48, 3  # of a measurement, unless it takes longer than _SECONDS
_SECONDS = 3
_NEGLIGIBLE = 0.03  # share of a step: a process costs its start and memory, and could gain no more than this
_RESERVE = 1.25  # times as many processes as keep up: batches differ

Loader = Callable[[int], DataLoader]  # by the number of processes
Step = Callable[[Batch], object]  # what follows on a batch; it returns when the device has finished
Agreed = Callable[[Any], Any]


class Choice(NamedTuple):
    """A number of loader processes, and why: a sentence."""

    num_workers: int
    reason: str


def choose(loader: Loader, step: Step, num_cores: int, *, shares_cores: bool, agreed: Agreed) -> Choice:
    """The number of processes with which loading keeps up with the steps.

    num_cores: how many this process may use. One of them stays with it where there are several.
    shares_cores: the steps run on the same cores. Whether processes beside them save time is then tried.
    agreed: returns what rank 0 found. Steps may wait for each other, so all ranks have to take as many.
    """
    times = list(_alone(loader(0), step, agreed))
    if len(times) < 2:
        return Choice(0, "there are too few batches to measure")
    loading, computing = agreed(tuple(statistics.median(column) for column in zip(*times[1:], strict=True)))
    reason = f"a batch takes {_said(loading)} to load and {_said(computing)} to compute"
    if loading < _NEGLIGIBLE * computing:
        return Choice(0, reason)
    number = min(math.ceil(_RESERVE * loading / computing), max(1, num_cores - 1))
    if not shares_cores:
        return Choice(number, reason)
    together = agreed(_together(loader, step, number, agreed))
    if together is None:
        return Choice(0, f"{reason}, and there are too few batches to try processes")
    reason += f", together {_said(loading + computing)} in one process, and {_said(together)} with {number} beside it"
    return Choice(number if together < loading + computing else 0, reason)


def choose_for(trainer: Trainer, loader: Loader, *, training: bool) -> int:
    """The number of loader processes for a trainer's module on its device, which is printed with the reason.

    Nothing changes by the measured steps: every training step seeds its own draws, and gradients are dropped.

    training: measure steps of training, and not those of a test.
    """
    with torch.inference_mode(False), torch.set_grad_enabled(training):
        cores = num_cores() // trainer.num_devices  # each device has a process on this machine
        on_cpu = trainer.strategy.root_device.type == "cpu"
        step, agreed = _step(trainer, training=training), trainer.strategy.broadcast
        choice = choose(loader, step, agreed(cores), shares_cores=on_cpu, agreed=agreed)
    rank_zero_info(f"num_workers=auto: {choice.num_workers}, as {choice.reason}")
    return choice.num_workers


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _step(trainer: Trainer, *, training: bool) -> Step:
    module: Any = trainer.lightning_module
    device = trainer.strategy.root_device

    def step(batch: Batch) -> None:
        batch = trainer.strategy.batch_to_device(batch)
        with trainer.precision_plugin.forward_context():
            result = module.trial(batch) if training else module.outcomes(batch)
        if training:
            result.backward()
            module.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step


def _alone(batches: DataLoader, step: Step, agreed: Agreed) -> Iterator[tuple[float, float]]:
    """Seconds of loading and of the step, batch by batch. The first ones open files and compile."""
    began, num_samples, loaded = perf_counter(), 0, iter(batches)
    for number in range(len(batches)):
        before = perf_counter()
        if (batch := next(loaded, None)) is None:
            return
        ready = perf_counter()
        step(batch)
        now = perf_counter()
        yield ready - before, now - ready
        num_samples += len(batch) if number else 0
        enough = number >= _MIN_STEPS and num_samples >= _MIN_SAMPLES
        if agreed(number > 0 and (enough or now - began > _SECONDS)):
            return


def _together(loader: Loader, step: Step, num_workers: int, agreed: Agreed) -> float | None:
    """Seconds of a batch with processes that load it, when the first ones are used up; None if there are too few."""
    began, taken, stock = perf_counter(), 0, 2 * num_workers + 1  # batches that are loaded while the processes start
    seconds = 0.0
    for number, batch in enumerate(loader(num_workers)):
        step(batch)
        if number < stock:
            began = perf_counter()
            continue
        taken, seconds = taken + 1, perf_counter() - began
        if agreed(seconds > _SECONDS or (taken >= stock and seconds > _SECONDS / 3)):
            break
    return seconds / taken if taken else None


def _said(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
