"""Speed and memory of training steps, of ranking and of loading."""

import io
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from benchmarks import ours
from benchmarks.cases import CASES, inputs, needed_flops
from benchmarks.data import prepared
from benchmarks.gpu.items import Item, Setting, Unsuitable
from benchmarks.pictures import photograph
from benchmarks.report import ROOT
from benchmarks.step import Side, measured_peak
from benchmarks.worker import Memory

# The batch of each case on a card of 80 GB: examples, or the texts that an image ranks.
BATCHES = {
    "pretrain_224": 128,
    "pretrain_large_224": 64,
    "pretrain_384": 64,
    "pretrain_large_384": 32,
    "vqa_576": 32,
    "nlvr2_384": 32,
    "irtr_224": 16,
    "ranking_224": 2048,
}
CARDS = (24, 48, 80)  # gigabytes
SPARE = 0.92  # the share of a card's memory that is there for tensors
SECONDS = 6.0  # of repeats that count, for each item


@cache
def peak(tiny: bool) -> float:
    """Products of bfloat16 matrices, FLOP/s; nan where everything is tiny."""
    return float("nan") if tiny else measured_peak(torch.bfloat16)


def products(setting: Setting) -> dict[str, Any]:
    if setting.tiny:
        raise Unsuitable("everything is tiny")
    return {"tflop_per_s": peak(False) / 1e12, "float32": measured_peak(torch.float32) / 1e12}


def timed(repeat: Callable[[], None], setting: Setting) -> tuple[list[float], float]:
    """Seconds of repeats, after two that warm up, and the peak memory in MB."""
    memory = Memory()

    def wait() -> None:
        if setting.device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(1 if setting.tiny else 2):
        repeat()
    wait()
    memory.restart()
    seconds: list[float] = []
    while len(seconds) < 2 or (sum(seconds) < SECONDS and len(seconds) < 20 and not setting.tiny):
        started = time.perf_counter()
        repeat()
        wait()
        seconds.append(time.perf_counter() - started)
    return seconds, memory.peak()


def step(setting: Setting, name: str, compiles: bool = False) -> dict[str, Any]:
    """A case in bfloat16."""
    case, batch = CASES[name], 2 if setting.tiny else BATCHES[name]
    if compiles and setting.device.type != "cuda":
        raise Unsuitable("blocks are compiled for GPUs only")
    words = [*setting.words, *(["compile=True"] if compiles else [])]
    seconds, memory = timed(ours.build(case, batch, True, *words, device=setting.device), setting)
    return _figures(seconds, batch, memory, needed_flops(case, batch, inputs(case, batch)), setting)


def _figures(seconds: list[float], batch: int, memory: float, flops: float, setting: Setting) -> dict[str, Any]:
    median = statistics.median(seconds)
    figures = {"batch": batch, "median_s": median, "spread_s": max(seconds) - min(seconds)}
    share = {} if setting.tiny else {"of_peak": flops / median / peak(False)}
    return figures | {"per_s": batch / median, "peak_mb": memory} | share


def image_step(setting: Setting) -> dict[str, Any]:
    """Fine-tuning of ViT-B/16 on images of 224 pixels, as `main_finetune.py` does it."""
    from benchmarks import classification

    batch = 2 if setting.tiny else 256
    images = torch.randn(batch, 3, classification.SIZE, classification.SIZE).to(setting.device)
    labels = torch.randint(classification.CLASSES, (batch,)).to(setting.device)
    repeat = classification.our_step("bfloat16", images, labels)
    flops = batch * classification.flops_per_image(trains=True)
    seconds, memory = timed(repeat, setting)
    return _figures(seconds, batch, memory, flops, setting)


class _Photographs(IterableDataset):
    """Batches of one JPEG of 640 x 480, prepared for pre-training at 224."""

    def __init__(self, size: int) -> None:
        file = io.BytesIO()
        photograph(640, 480, seed=0).save(file, "JPEG", quality=75)
        self._batch = [file.getvalue()] * size

    def __iter__(self) -> Iterator[torch.Tensor]:
        torch.set_num_threads(1)
        prepare = prepared("mae", 224)
        while True:
            yield prepare(self._batch)


def loading(setting: Setting) -> dict[str, Any]:
    """Images a second that loader processes decode, crop and collate on all cores."""
    workers, size = (1, 4) if setting.tiny else (os.cpu_count() or 1, 64)
    loader = iter(DataLoader(_Photographs(size), None, num_workers=workers, prefetch_factor=2))
    for _ in range(2 * workers):  # what was prepared ahead
        next(loader)
    count, started = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - started < (0 if setting.tiny else SECONDS):
        next(loader)
        count += size
    return {"batch": size, "workers": workers, "per_s": count / (time.perf_counter() - started)}


@dataclass(frozen=True)
class Line:
    """Memory as a function of the batch: `fixed` + batch * `each`, in MB."""

    fixed: float
    each: float

    @classmethod
    def through(cls, *points: tuple[int, float]) -> "Line":
        """The line through two points (batch, MB)."""
        (few, less), (many, more) = points
        each = (more - less) / (many - few)
        return cls(less - few * each, each)

    def at(self, batch: int) -> float:
        return self.fixed + batch * self.each

    def largest(self, gigabytes: float) -> int:
        """The largest batch that fits a card; 0: none does."""
        return max(0, int((SPARE * 1000 * gigabytes - self.fixed) / self.each))


def memory(setting: Setting, name: str) -> dict[str, Any]:
    """The batch that fits, by the line through a quarter and half of the batch; the whole batch says how far it is off."""
    if setting.device.type != "cuda":
        raise Unsuitable("only a GPU counts its memory")
    points = []
    for batch in (BATCHES[name] // 4, BATCHES[name] // 2, BATCHES[name]):
        repeat = ours.build(CASES[name], batch, True, *setting.words, device=setting.device)
        points.append((batch, timed(repeat, replace(setting, tiny=True))[1]))
        del repeat
        torch.cuda.empty_cache()
    line, (batch, found) = Line.through(*points[:2]), points[2]
    fits = {f"fits_{size}gb": line.largest(size) for size in CARDS}
    return {"fixed_mb": line.fixed, "each_mb": line.each, "off": line.at(batch) / found - 1, **fits}


def published(setting: Setting, name: str) -> dict[str, Any]:
    """The case by the published code in float16, and how many times as fast ours is, in a process of its own each."""
    if setting.compare is None:
        raise Unsuitable("--compare VLC was not given")
    if setting.tiny:
        raise Unsuitable("the published code has no tiny model")
    words, batch = [name, str(BATCHES[name])], BATCHES[name]
    sides = {
        "ours": Side("benchmarks.ours", [*words, "bfloat16"], ROOT),
        "published": Side("benchmarks.published", [*words, "float16"], setting.compare.resolve()),
    }
    for number in range(5):
        for side in sides.values():
            answer = side.repeat()
            if number >= 2:
                side.repeats.append(answer)
    for side in sides.values():
        side.close()
    medians = {key: statistics.median(one["seconds"] for one in side.repeats) for key, side in sides.items()}
    peaks = {key: max(one["peak_mb"] for one in side.repeats) for key, side in sides.items()}
    faster = medians["published"] / medians["ours"]
    return {"batch": batch, "median_s": medians["published"], "peak_mb": peaks["published"], "ours_faster": faster}


STEPS: dict[str, Item] = {"products, bfloat16": products}
STEPS |= {name: partial(step, name=name) for name in BATCHES}
STEPS |= {"image classification": image_step}
STEPS |= {f"{name}, compile=True": partial(step, name=name, compiles=True) for name in list(BATCHES)[:4]}
LOADING: dict[str, Item] = {"loader, 224": loading}
MEMORY: dict[str, Item] = {name: partial(memory, name=name) for name in BATCHES if name != "ranking_224"}
PUBLISHED: dict[str, Item] = {name: partial(published, name=name) for name in BATCHES}
