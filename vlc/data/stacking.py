"""Images of several shapes as one tensor, padded with black below and on the right."""

from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vlc.common.inputs import Images, ImageSizes, mapped


def stack_images(rows: list[list[Tensor]]) -> Images | None:
    """B rows of K uint8 images (3, h, w) -> `Images` (B, K, 3, H, W), with sizes only where shapes differ.

    Rows of texts alone, which have no images, give None. The memory has the order of the first image: its colours together,
    as in all images of `vlc.data.transforms`, or plane by plane.
    """
    if not rows[0]:
        return None
    shapes = {image.shape[1:] for row in rows for image in row}
    if len(shapes) == 1:
        return Images(_stacked(list(chain.from_iterable(rows))).unflatten(0, (len(rows), -1)))
    height, width = (max(sides) for sides in zip(*shapes, strict=True))
    sides = torch.tensor([[image.shape[1:] for image in row] for row in rows])
    pixels = torch.zeros(*sides.shape[:2], height, width, 3, dtype=torch.uint8).movedim(-1, 2)
    for place, image in zip(pixels.flatten(0, 1), chain.from_iterable(rows), strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return Images(pixels, ImageSizes(sides, max(rows * columns for rows, columns in shapes)))


def _stacked(images: list[Tensor]) -> Tensor:
    if images[0].is_contiguous():
        return torch.stack(images)
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def padded_alike(value: Any) -> Any:
    """The value with all `Images` in it padded to one shape, so that they can take each other's places."""
    found: list[Images] = []
    mapped(value, Images, found.append)
    shapes = {images.pixels.shape[-2:] for images in found}
    if len(shapes) < 2 and all(images.sizes is None for images in found):
        return value
    height, width = (max(sides) for sides in zip(*shapes, strict=True))
    largest = max(_largest(images) for images in found)

    def padded(images: Images) -> Images:
        rows, columns = images.pixels.shape[-2:]
        sides = torch.tensor([rows, columns]).expand(*images.pixels.shape[:2], 2)
        sides = sides.contiguous() if images.sizes is None else images.sizes.height_width
        return Images(F.pad(images.pixels, (0, width - columns, 0, height - rows)), ImageSizes(sides, largest))

    return mapped(value, Images, padded)


def _largest(images: Images) -> int:
    rows, columns = images.pixels.shape[-2:]
    return rows * columns if images.sizes is None else images.sizes.largest
