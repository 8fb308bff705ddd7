"""Supervision and ids: a field of the catalogue's row, as its kind of values collates it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vlc.data.parts.part import PRESENCES, Part
from vlc.data.sample import Sample, SampleSet


@dataclass(frozen=True)
class Field(Part):
    """The values of one field: a tensor, or a list of ids or names; see `vlc.data.kinds.Kind.collate`."""

    name: str
    presence: str = "labelled"

    def __post_init__(self):
        if self.presence not in PRESENCES:
            raise ValueError(f"presence {self.presence!r} is none of {', '.join(PRESENCES)}")

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({self.name})

    def of(self, sample: Sample, samples: SampleSet) -> Any:
        return sample.source.field(sample.where, self.name)

    def collate(self, cells: list[Any], samples: SampleSet) -> Any:
        values = samples.kinds[self.name].collate(cells)
        return torch.from_numpy(values) if isinstance(values, np.ndarray) else values
