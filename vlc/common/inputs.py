"""What goes into the network: texts and images as tensors. The loader makes them and the network reads them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


def mapped(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Return the value with `change` applied to every object of a kind in it: in mappings, NamedTuples and `Tensors`."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, Mapping):
        return {key: mapped(item, kind, change) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(item, kind, change) for item in value))
    if isinstance(value, Tensors):
        return replace(value, **{f.name: mapped(getattr(value, f.name), kind, change) for f in fields(value)})
    return value


def sum_if_known(numbers: Iterable[int | None]) -> int | None:
    """Return the sum; None if one of the numbers is None."""
    numbers = list(numbers)
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


@dataclass(frozen=True)
class Tensors:
    """A dataclass of tensors that move together; Lightning calls `to`, the data loader `pin_memory`."""

    def to(self, device: torch.device, non_blocking: bool = False):
        return mapped(self, Tensor, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self):
        return mapped(self, Tensor, lambda tensor: tensor.pin_memory())


@dataclass(frozen=True)
class Text(Tensors):
    """B texts as token ids.

    ids: (B, L) int64.
    mask: (B, L) int64, 1 = real token, 0 = padding.
    num_real: the number of real tokens; None where only a device knows it.
    segments: (B, L) int64, the segment of each token, 0 or 1, where a text has two; None: all tokens are of segment 0.
    tags: (B, L) int64, k = the token names the k-th box of the example, 0 = none; None: no token names any.
    positions: (B, L) int64, the position of each token, where the text continues another one; None: they count from 0.
    causal: whether a token sees no token of the text that stands behind it, and no other input of the pass sees the text.
    languages: (B, 2) int64, the numbers of the languages of segments 0 and 1 among the model's languages, -1 = none of
        them; None: nobody says what language it is.
    branches: (B, L) int64, the number of the branch of each token, from 1, where texts stand side by side that do not see
        each other (`vlc.model.patterns.branched`); None: there is one text.
    """

    ids: Tensor
    mask: Tensor
    num_real: int | None = None
    segments: Tensor | None = None
    tags: Tensor | None = None
    languages: Tensor | None = None
    positions: Tensor | None = None
    causal: bool = False
    branches: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, rows: Tensor | slice, num_real: int | None = None) -> "Text":
        """Return the texts at these rows; num_real: the number of their real tokens, where it is known."""
        further: dict[str, Any] = {}
        for name in ("segments", "tags", "languages", "positions", "branches"):
            part = getattr(self, name)
            further[name] = None if part is None else part[rows]
        return replace(self, ids=self.ids[rows], mask=self.mask[rows], num_real=num_real, **further)

    @property
    def starts_group(self) -> Tensor | None:
        """(B, L) int64, as `vlc.model.patterns.grouped` takes it; None: all inputs see the whole text."""
        return torch.ones_like(self.ids) if self.causal else None


@dataclass(frozen=True)
class ImageSizes(Tensors):
    """The sizes of padded images without their padding, which lies below and on the right.

    height_width: (..., 2) int64, in pixels.
    largest: the number of pixels of the largest image in the batch, known without a device synchronisation.
    """

    height_width: Tensor
    largest: int

    def __getitem__(self, index: Any) -> "ImageSizes":
        return ImageSizes(self.height_width[index], self.largest)


@dataclass(frozen=True)
class Images(Tensors):
    """K images for each of B examples.

    pixels: (B, K, 3, H, W), uint8 from the loader, normalised float32 in the model.
    sizes: (B, K), where images of several shapes are padded to the largest height and width; None: there is no padding.
    """

    pixels: Tensor
    sizes: ImageSizes | None = None

    def at(self, number: int) -> tuple[Tensor, ImageSizes | None]:
        """Return the images of this number of all examples: pixels (B, 3, H, W), and sizes (B,)."""
        return self.pixels[:, number], None if self.sizes is None else self.sizes[:, number]
