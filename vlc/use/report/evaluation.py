"""What a model makes of a part of its test splits, with and without its inputs, batch by batch."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch

from vlc.common.terminal import progress
from vlc.data.batch import Batch
from vlc.data.samples import Samples
from vlc.evaluation.examples import Example, examples_of
from vlc.evaluation.inputs import batch_of, with_wrong_images
from vlc.training.datamodule import DataModule
from vlc.training.module import VLCModule

Ratios = list[tuple[float, int]]  # of each batch: what it adds to the sum and to the count


class Metric(NamedTuple):
    task: str
    head: str
    split: str
    name: str


@dataclass(frozen=True)
class Evaluated:
    """A part of the test splits, evaluated.

    examples: of the heads that judge single answers.
    ratios: what each batch adds to the metrics of all heads.
    chances: sum and count of the headline that choices at random would have, by task, head and split.
    changed: the scores of the heads with examples, with inputs that are changed, by the change, task, head and split.
    sizes: how many samples were evaluated, and of how many, by task and split.
    """

    examples: list[Example] = field(default_factory=list)
    ratios: dict[Metric, Ratios] = field(default_factory=dict)
    chances: dict[tuple[str, str, str], tuple[float, int]] = field(default_factory=dict)
    changed: dict[str, dict[tuple[str, str, str], list[float]]] = field(default_factory=dict)
    sizes: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)


@torch.inference_mode()
def evaluate(module: VLCModule, data: DataModule, num_examples: int) -> Evaluated:
    """Evaluate up to num_examples samples of each test split, spread evenly over it, in full precision."""
    found = Evaluated()
    parts = [(samples, chosen(len(samples), num_examples)) for samples in data.evaluation.values()]
    with progress("evaluating", sum(len(numbers) for _, numbers in parts)) as advance:
        for samples, numbers in parts:
            found.sizes[samples.task, samples.called] = len(numbers), len(samples)
            size = data.tasks[samples.task].task.per_gpu_batchsize
            for start in range(0, len(numbers), size):
                _add(found, module, samples, numbers[start : start + size])
                advance(len(numbers[start : start + size]))
    return found


def chosen(size: int, count: int) -> list[int]:
    """The numbers of `count` of `size` samples, or of all, evenly spread."""
    return np.unique(np.linspace(0, size - 1, min(size, count)).round().astype(int)).tolist()


def _add(found: Evaluated, module: VLCModule, samples: Samples, numbers: list[int]) -> None:
    """Add the samples of a batch."""
    batch = module.normalised(batch_of(samples, numbers).to(module.device))
    judged = []
    for head, outcome in module.outcomes(batch).items():
        own = examples_of(samples.task, head, module.objectives[head], outcome, batch, samples)
        found.examples.extend(own)
        if own:
            judged.append(head)
        for name, (total, count) in outcome.metrics.items():
            found.ratios.setdefault(Metric(samples.task, head, samples.called, name), []).append((float(total), count))
        if outcome.chance is not None:
            place = samples.task, head, samples.called
            total, count = found.chances.get(place, (0.0, 0))
            found.chances[place] = total + float(outcome.chance[0]), count + outcome.chance[1]
    for change, make in (CHANGES if judged else {}).items():
        if (changed := make(samples, numbers)) is None:
            continue
        changed = _blank(module.normalised(changed.to(module.device)), change)
        outcomes = module.outcomes(changed)
        for head in judged:
            truths = module.objectives[head].truths(outcomes[head], changed)
            scores = found.changed.setdefault(change, {}).setdefault((samples.task, head, samples.called), [])
            scores += [one.score for one in truths if one.score is not None]


_NO_IMAGE, _WRONG_IMAGE, _NO_TEXT = "no image (the mean colour)", "image of another example", "no text"


def _with_images(make: Callable[[Samples, list[int]], Batch]) -> Callable[[Samples, list[int]], Batch | None]:
    """Make a batch where images are read, otherwise none."""
    return lambda samples, numbers: make(samples, numbers) if samples.reads_images else None


def _silent(samples: Samples, numbers: list[int]) -> Batch | None:
    return None if samples.preparation.text_encoder is None else batch_of(samples.without_texts(), numbers)


# What is made of the samples of these numbers, by the change; None where the change changes nothing.
CHANGES: dict[str, Callable[[Samples, list[int]], Batch | None]] = {
    _NO_IMAGE: _with_images(batch_of),
    _WRONG_IMAGE: _with_images(with_wrong_images),
    _NO_TEXT: _silent,
}


def _blank(batch: Batch, change: str) -> Batch:
    """The batch, with all images in the mean colour where there should be none."""
    if change != _NO_IMAGE or batch.images is None:
        return batch
    return replace(batch, images=replace(batch.images, pixels=torch.zeros_like(batch.images.pixels)))
