"""What crosses from data to model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from vlc.common.inputs import Images, ImageSizes, Tensors, Text


@dataclass(frozen=True)
class CorruptImage:
    """An image that could not be decoded, and gave way to another sample in a training batch."""

    table: str
    row: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Batch(Tensors):
    """One batch of B examples.

    index (B,) int64: the samples' numbers in their split.
    split: the name of the split.
    task: the name of the task that the batch belongs to, "" where it has none.
    images: K images for each example; None where the data set has none.
    text (B, L): None where texts are not read.
    parts: what objectives asked for beside texts and images, by the names of the parts (`vlc.data.parts`).
    corrupt: images that gave way to other samples; in training only.
    again: an evaluated batch that counts elsewhere (see `EvalSampler`).
    """

    index: Tensor
    split: str
    task: str = ""
    images: Images | None = None
    text: Text | None = None
    parts: Mapping[str, Any] = field(default_factory=dict)
    corrupt: tuple[CorruptImage, ...] = ()
    again: bool = False

    def __len__(self) -> int:
        return len(self.index)

    def images_at(self, number: int) -> tuple[Tensor, ImageSizes | None]:
        """`Images.at` of a batch that has images."""
        assert self.images is not None
        return self.images.at(number)

    def with_parts(self, **parts: Any) -> "Batch":
        """The batch with these parts added. They replace parts of the same name."""
        return replace(self, parts={**self.parts, **parts})
