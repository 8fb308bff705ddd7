"""How large the pictures are that the images of a batch were made from."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vlc.data.images import open_image
from vlc.data.parts.part import Part
from vlc.data.sample import Sample, SampleSet


@dataclass(frozen=True)
class ImageSizes(Part):
    """A tensor (B, K, 2) int64: height and width of each stored picture, upright, before it was cropped or resized."""

    name: ClassVar[str] = "image_sizes"

    def of(self, sample: Sample, samples: SampleSet) -> list[tuple[int, int]]:
        pictures = (open_image(sample.source.image(sample.where, name)) for name in sample.source.spec.images)
        return [picture.size[::-1] for picture in pictures]

    def collate(self, cells: list[list[tuple[int, int]]], samples: SampleSet) -> Tensor:
        return torch.tensor(cells)
