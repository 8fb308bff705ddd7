"""The batch, which the loaders hand to the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from vlc.common.inputs import Images, ImageSizes, Tensors, Text
from vlc.data.mixing import Turn


@dataclass(frozen=True)
class CorruptImage:
    """An image that could not be decoded. Another sample took its place in a training batch."""

    table: str
    row: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Batch(Tensors):
    """One batch of B examples.

    index (B,) int64: the samples' numbers in their split.
    split: the name of the split.
    task: the name of the task that the batch belongs to, "" where it has none.
    turn: its place among the training batches of several tasks.
    images: K images for each example; None where the data set has none.
    text (B, L): None where texts are not read.
    parts: the parts that objectives asked for beside texts and images, by name (`vlc.data.parts`).
    corrupt: images that other samples replaced; in training only.
    again: whether this evaluated batch counts elsewhere (see `EvalSampler`).
    """

    index: Tensor
    split: str
    task: str = ""
    turn: Turn = field(default_factory=Turn)
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
