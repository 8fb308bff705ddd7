"""How large the pictures are that the images of a batch were made from."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from vlc.data.images import open_image
from vlc.data.parts.part import Part

if TYPE_CHECKING:
    from vlc.data.samples import Sample, Samples


@dataclass(frozen=True)
class ImageSizes(Part):
    """A tensor (B, K, 2) int64: height and width of each stored picture, upright, before it was cropped or resized."""

    name: ClassVar[str] = "image_sizes"

    def of(self, sample: "Sample", samples: "Samples") -> list[tuple[int, int]]:
        pictures = (open_image(sample.source.image(sample.where, name)) for name in sample.source.spec.images)
        return [picture.size[::-1] for picture in pictures]

    def collate(self, cells: list[list[tuple[int, int]]], samples: "Samples") -> Tensor:
        return torch.tensor(cells)
