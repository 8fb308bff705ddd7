"""Random numbers that decide which patches of an image an encoder pass drops."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vlc.data.parts.part import Part
from vlc.data.sample import Sample, SampleSet


@dataclass(frozen=True)
class PatchNoise(Part):
    """A tensor (B, P) float32 in [0, 1) for the encoder passes that share this number: they drop the same patches."""

    number: int = 0

    @property
    def name(self) -> str:
        return f"patch_noise_{self.number}"

    def of(self, sample: Sample, samples: SampleSet) -> np.ndarray:
        return sample.rng.random(samples.preparation.num_patches, dtype=np.float32)

    def collate(self, cells: list[np.ndarray], samples: SampleSet) -> Tensor:
        return torch.from_numpy(np.stack(cells))
