"""What goes into the network: texts and images as tensors. Loader and network both speak of them, and import them here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


def mapped(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """The value with `change` applied to everything of a kind in it, inside mappings and `Tensors` too."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, Mapping):
        return {key: mapped(item, kind, change) for key, item in value.items()}
    if isinstance(value, Tensors):
        return replace(value, **{f.name: mapped(getattr(value, f.name), kind, change) for f in fields(value)})
    return value


@dataclass(frozen=True)
class Tensors:
    """A dataclass of tensors that moves as one; Lightning calls `to`, the data loader `pin_memory`."""

    def to(self, device: torch.device, non_blocking: bool = False):
        return mapped(self, Tensor, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self):
        return mapped(self, Tensor, lambda tensor: tensor.pin_memory())


@dataclass(frozen=True)
class Text(Tensors):
    """B texts as token ids.

    ids (B, L) int64.
    mask (B, L) int64: 1 = real token, 0 = padding.
    num_real: how many tokens are real; None where only a device knows.
    segments (B, L) int64: the segment of each token, 0 or 1, where a text has two; None: all are of segment 0.
    """

    ids: Tensor
    mask: Tensor
    num_real: int | None = None
    segments: Tensor | None = None

    def at(self, rows: Tensor, num_real: int | None = None) -> "Text":
        """The texts at these rows (N,); num_real: how many tokens of them are real, where this is known."""
        segments = None if self.segments is None else self.segments[rows]
        return Text(self.ids[rows], self.mask[rows], num_real, segments)


@dataclass(frozen=True)
class Sizes(Tensors):
    """What part of padded images shows something; the rest, below and on the right, is padding.

    pixels (..., 2) int64: height and width of each image.
    largest: the most pixels an image of the batch has, known without asking a device.
    """

    pixels: Tensor
    largest: int

    def __getitem__(self, place: Any) -> "Sizes":
        return Sizes(self.pixels[place], self.largest)


@dataclass(frozen=True)
class Images(Tensors):
    """K images for each of B examples.

    pixels (B, K, 3, H, W): uint8 from the loader, normalised float32 in the model.
    sizes (B, K): of images of several shapes, which are padded to the largest height and width; None: nothing is padding.
    """

    pixels: Tensor
    sizes: Sizes | None = None

    def at(self, number: int) -> tuple[Tensor, Sizes | None]:
        """The images of that number of all examples: pixels (B, 3, H, W), and sizes (B,)."""
        return self.pixels[:, number], None if self.sizes is None else self.sizes[:, number]
