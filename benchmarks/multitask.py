"""Several tasks in one run: what it costs beside runs of each task alone.

`python -m benchmarks.multitask [overhead] [processes] [memory]` prints a table for each part; with --json it writes them.

overhead: seconds of training steps, the loader included, of one run of all tasks and of a run of each task alone. Both
    see the same batches. The runs take turns, and start-up does not count.
processes: a step of one task in two processes with DDP: alone, with DDP's search for parameters without gradients, and with
    this search in the model of all tasks.
memory: the peak of each run in a process of its own.
"""

import argparse
import io
import json
import logging
import multiprocessing
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.report import machine, show, write
from benchmarks.worker import Memory
from tests import tiny
from vlc.configuration.config import resolve
from vlc.configuration.settings import Settings
from vlc.data.batch import Batch
from vlc.tasks import TASKS
from vlc.training.module import VLCModule
from vlc.training.optim import build_optimizer
from vlc.training.run import build_data, build_module, build_trainer
from vlc.training.saving import Saving
from vlc.training.trainer import suit_cpu

MIXED = ("vqa_emoji", "gqa_emoji", "nlvr2_emoji", "snli_ve_emoji", "refer_emoji", "pointing_emoji")
MODELS = {"tiny": "mae_vit_tiny_patch16", "base": "mae_vit_base_patch16"}
BATCH = {"tiny": 16, "base": 4}


def main() -> None:
    arguments = _parse()
    _say_little()
    tables = {}
    with tempfile.TemporaryDirectory() as folder:
        _write_data(Path(folder), arguments)
        for part in arguments.parts:
            tables[part] = PARTS[part](Path(folder), arguments)
            show(tables[part], f"{part} ({machine()})")
    write(arguments, tables=tables)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.multitask", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=list(PARTS), help="overhead, processes, memory (default: all)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["tiny"], help="tiny, base (default: tiny)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1], help="loader processes (default: 0 and 1)")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each task that are timed (default: 5)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    return parser.parse_args()


def _say_little() -> None:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def _write_data(folder: Path, arguments: argparse.Namespace) -> None:
    """Rows of each task for one run without a second epoch: the samples of a row of pairs are two, as of other rows."""
    num_rows = max(BATCH.values()) * (arguments.rounds + 1)
    for name in MIXED:
        for dataset in TASKS[name].datasets:
            tiny.write_dataset(folder, dataset, num_rows)


def _settings(folder: Path, model: str, tasks: Sequence[str], rounds: int, **values: Any) -> Settings:
    """A run of so many rounds of the tasks."""
    changes = {
        "tasks": list(tasks),
        "vit": MODELS[model],
        "data_root": str(folder),
        "log_dir": str(folder / "logs"),
        "num_gpus": 0,
        "precision": 32,
        "max_steps": rounds * len(tasks),
        "multitask.mixing": "round_robin",
        "multitask.rounds_per_epoch": rounds,
    }
    prefixes = [f"{name}." for name in tasks] if len(tasks) > 1 else [""]  # a lone task has the flat keys
    own = {f"{prefix}{key}": BATCH[model] for prefix in prefixes for key in ("batch_size", "per_gpu_batchsize")}
    return Settings.from_config(resolve("task_12in1_emoji", **(changes | own | values)))


class _Trained(NamedTuple):
    """A run: the end of each training step, the samples of the steps by task, and millions of weights."""

    ends: list[float]
    samples: dict[str, list[list[int]]]
    weights: float


def _trained(settings: Settings) -> _Trained:
    """A run as run.py makes it, but without validations and checkpoints."""
    torch.manual_seed(0)
    data = build_data(settings)
    module = build_module(settings, data)
    found = _Trained([], {}, sum(value.numel() for value in module.parameters()) / 1e6)

    def on_train_batch_end(outputs, batch: Batch, batch_idx: int) -> None:
        found.ends.append(time.perf_counter())
        found.samples.setdefault(batch.task, []).append(batch.index.tolist())

    module.on_train_batch_end = on_train_batch_end  # type: ignore[method-assign]  # of this run alone
    trainer = build_trainer(settings, num_evaluated=0)
    trainer.limit_val_batches = 0
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning has them
    left_out = (*trainer.checkpoint_callbacks, *(one for one in callbacks if isinstance(one, Saving)))
    callbacks[:] = [one for one in callbacks if one not in left_out]
    suit_cpu(module, settings.model.size.width, trainer.precision)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        trainer.fit(module, datamodule=data)
    return found


# -- overhead


def overhead(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Two rows for each model and number of loader processes: the runs of single tasks, and the run of all."""
    rows = []
    for model in arguments.models:
        for workers in arguments.workers:
            pairs = [_pair(folder, model, workers, arguments.rounds) for _ in range(arguments.repeats)]
            shares = [100 * (together / alone - 1) for alone, together in pairs]
            for side, seconds in zip(("each task alone", "all tasks"), zip(*pairs, strict=True), strict=True):
                row: dict[str, Any] = {"model": model, "workers": workers, "side": side} | _spread(seconds)
                row["steps_per_s"] = len(MIXED) * arguments.rounds / row["median_s"]
                both = side == "all tasks"
                row["overhead_%"] = round(statistics.median(shares), 1) if both else None
                row["from_to_%"] = f"{min(shares):.1f} to {max(shares):.1f}" if both else None
                rows.append(row)
    return rows


def _pair(folder: Path, model: str, workers: int, rounds: int) -> tuple[float, float]:
    """Seconds of the steps of all tasks, in runs of their own and in one run; the first step of each task is left out."""
    alone = [_trained(_settings(folder, model, [name], rounds + 1, num_workers=workers)) for name in MIXED]
    together = _trained(_settings(folder, model, MIXED, rounds + 1, num_workers=workers))
    assert together.samples == {name: samples for one in alone for name, samples in one.samples.items()}
    return sum(one.ends[-1] - one.ends[0] for one in alone), together.ends[-1] - together.ends[len(MIXED) - 1]


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    return {"median_s": statistics.median(seconds), "spread_s": max(seconds) - min(seconds)}


# -- processes


class _Loss(nn.Module):
    """The loss of a batch as a forward pass, which is what DDP wraps."""

    def __init__(self, module: VLCModule):
        super().__init__()
        self.module = module

    def forward(self, batch: Batch) -> Tensor:
        return self.module.total_loss(self.module.outcomes(batch), batch.task)


def processes(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of a step in two processes of a thread each, with and without the search."""
    rows = []
    for model in arguments.models:
        out = folder / f"{model}.json"
        torch.multiprocessing.spawn(_process, (folder, model, arguments.repeats, out), nprocs=2)
        measured = json.loads(out.read_text())
        whole = next(iter(measured.values()))
        for side, seconds in measured.items():
            share = statistics.median(own / other - 1 for own, other in zip(seconds, whole, strict=True))
            rows.append({"model": model, "side": side} | _spread(seconds) | {"more_%": round(100 * share, 1)})
    return rows


def _process(rank: int, folder: Path, model: str, repeats: int, out: Path) -> None:
    _say_little()
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{out}.store", rank=rank, world_size=2)
    first, all_tasks = MIXED[:1], MIXED
    sides = {
        "one task": _stepping(folder, model, first, search=False),
        "one task, search": _stepping(folder, model, first, search=True),
        "all tasks, search": _stepping(folder, model, all_tasks, search=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-2, repeats * 3):  # DDP arranges its buckets after the first step
        for name, step in sides.items():
            distributed.barrier()
            started = time.perf_counter()
            step()
            distributed.barrier()
            if number >= 0:
                seconds[name].append(time.perf_counter() - started)
    if rank == 0:
        out.write_text(json.dumps(seconds))
    distributed.destroy_process_group()


def _stepping(folder: Path, model: str, tasks: Sequence[str], *, search: bool) -> Callable[[], None]:
    """A training step of the first task with DDP."""
    torch.manual_seed(0)
    settings = _settings(folder, model, tasks, 1)
    data = build_data(settings)
    module = build_module(settings, data)
    samples = data.tasks[tasks[0]].train
    assert samples is not None
    batch = module.normalised(samples[[(0, number) for number in range(BATCH[model])]])  # type: ignore[misc]  # keys
    optimizer = build_optimizer(module.parameter_groups(), settings.optim, fused=True)
    wrapped = DistributedDataParallel(_Loss(module.train()), find_unused_parameters=search)

    def step() -> None:
        wrapped(batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


# -- memory


def memory(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each task alone and one for all: weights, and the peak of a run of two rounds."""
    rows = []
    for model in arguments.models:
        own = [_measured(folder, model, [name]) for name in MIXED]
        together = _measured(folder, model, MIXED)
        largest = max(row["peak_mb"] for row in own)
        rows += [row | {"of_largest": row["peak_mb"] / largest} for row in (*own, together)]
    return rows


def _measured(folder: Path, model: str, tasks: Sequence[str]) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        millions, peak = pool.apply(_peak, (folder, model, tasks))
    name = tasks[0] if len(tasks) == 1 else "all tasks"
    return {"model": model, "tasks": name, "million_weights": millions, "peak_mb": round(peak)}


def _peak(folder: Path, model: str, tasks: Sequence[str]) -> tuple[float, float]:
    """Millions of weights, and megabytes."""
    _say_little()
    found = Memory()
    found.restart()
    return _trained(_settings(folder, model, tasks, 2)).weights, found.peak()


PARTS = {"overhead": overhead, "processes": processes, "memory": memory}

if __name__ == "__main__":
    main()
