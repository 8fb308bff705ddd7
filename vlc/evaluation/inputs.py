"""Inputs: an evaluator that measures a head without the right image, and without the text.

A model that answers as well from one input alone has learnt the habits of its data, and no vision and language (Goyal et
al. 2017, "Making the V in VQA Matter").
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from vlc.data.batch import Batch
from vlc.data.keys import Key
from vlc.data.samples import Samples
from vlc.data.stacking import padded_alike
from vlc.evaluation.evaluator import Model
from vlc.hardware.distributed import gather_lists, process_number


@dataclass(frozen=True)
class Inputs:
    """An evaluator: the head's headline metric with the images of other examples, and with empty texts.

    head: the head that is measured; it has a headline.
    batch_size: how many examples are computed at once.
    every: see `Evaluator`.
    """

    head: str
    batch_size: int
    every: int = 0
    headlines: ClassVar[tuple[str, ...]] = ()

    def __call__(self, model: Model, samples: Samples, out: Path | None) -> dict[str, float]:
        silent = samples.without_texts()
        changed: dict[str, Callable[[list[int]], Batch]] = {
            "with_wrong_images": lambda numbers: with_wrong_images(samples, numbers),
            "without_text": lambda numbers: batch_of(silent, numbers),
        }
        if not samples.reads_images:
            del changed["with_wrong_images"]
        headline = f"{model.objectives[self.head].headline}"
        measured = {name: self._mean(model, headline, len(samples), make) for name, make in changed.items()}
        return {f"{headline}_{name}": value for name, value in measured.items() if value is not None}

    @torch.inference_mode()
    def _mean(self, model: Model, metric: str, size: int, make: Callable[[list[int]], Batch]) -> float | None:
        """The mean of a metric over the changed batches of all processes; None where there are no labels to measure by."""
        rank, world_size = process_number()
        mine = range(rank, size, world_size)
        ratios: list[tuple[float, int]] = []
        for start in range(0, len(mine), self.batch_size):
            batch = model.normalised(make(list(mine[start : start + self.batch_size])).to(model.device))
            metrics = model.outcomes(batch)[self.head].metrics
            if metric in metrics:
                total, count = metrics[metric]
                ratios.append((float(total), count))
        ratios = gather_lists(ratios)
        count = sum(count for _, count in ratios)
        return sum(total for total, _ in ratios) / count if count else None


def batch_of(samples: Samples, numbers: Iterable[int]) -> Batch:
    return samples[[Key(0, number) for number in numbers]]


def with_wrong_images(samples: Samples, numbers: list[int]) -> Batch:
    other = batch_of(samples, [_of_another_row(samples, number) for number in numbers])
    assert other.images is not None
    return padded_alike(replace(batch_of(samples, numbers), images=other.images))


def _of_another_row(samples: Samples, number: int) -> int:
    """A sample of another row, half the split away, so that neighbours do not count; itself where there is one row."""
    source, where = samples.locate(number)
    for step in range(len(samples)):
        other = (number + len(samples) // 2 + step) % len(samples)
        other_source, other_where = samples.locate(other)
        if other_source is not source or other_where[:2] != where[:2]:
            return other
    return number
