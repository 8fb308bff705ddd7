"""Evaluators measure whole splits, beside the metrics that add up over batches. The module runs them and knows none."""

from pathlib import Path
from typing import Protocol

import torch

from vlc.common.modules import Modules
from vlc.data.batch import Batch
from vlc.data.samples import Samples
from vlc.model.encoder import Encoder
from vlc.objectives.base import Objective, Outcome


class Model(Protocol):
    """The model as an evaluator sees it: the encoder, the heads by name, and their device."""

    encoder: Encoder
    objectives: Modules[Objective]

    @property
    def device(self) -> torch.device: ...

    def normalised(self, batch: Batch) -> Batch:
        """Return a batch of `Samples` as the encoder takes it."""

    def outcomes(self, batch: Batch) -> dict[str, Outcome]:
        """Return the outcome of each head of the batch's task for a normalised batch."""


class Evaluator(Protocol):
    """Measures a split in tests, and at every n-th validation.

    head: the head that the values belong to.
    every: n; 0: it runs in tests only.
    headlines: the values that select checkpoints in place of the heads' own metrics, if every validation has them.
    """

    @property
    def head(self) -> str: ...

    @property
    def every(self) -> int: ...

    @property
    def headlines(self) -> tuple[str, ...]: ...

    def __call__(self, model: Model, samples: Samples, out: Path | None) -> dict[str, float]:
        """Return values by name, on every process. out: path, without suffix, of the files to write; None: no files."""


def is_due(evaluator: Evaluator, validation: int) -> bool:
    """Whether an evaluator runs at a validation, counted from 1."""
    return evaluator.every > 0 and validation % evaluator.every == 0


def selects(evaluator: Evaluator) -> bool:
    """Whether an evaluator selects checkpoints: only if every validation has its values."""
    return evaluator.every == 1 and bool(evaluator.headlines)
