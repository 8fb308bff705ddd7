"""Geometry: boxes, and the map from a stored picture to the image that a pipeline shows.

A box is (left, top, right, bottom) in pixels, from edge to edge: pixel i lies between i and i + 1, and a box is as wide as
right - left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:  # the workers of converters need not load it
    from torch import Tensor

_SIDES = (0.2, 0.35, 0.5, 0.7, 1.0)  # of the boxes of a grid, as shares of the shorter side of the image
_RATIOS = (0.5, 1.0, 2.0)  # width to height
_STEP = 0.5  # between neighbours, as a share of their sides


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the points of a stored picture lie in the image that a pipeline made of it.

    matrix: (2, 3) float64; the point (x, y) of the picture, upright, lies at matrix @ (x, y, 1).
    size: width and height in pixels of what is shown of the picture, without padding, which lies below and on the right.
    earlier: its placements after the steps before the last one. Pixels that a step moves out of the image are lost.
    """

    matrix: np.ndarray
    size: tuple[int, int]
    earlier: tuple[Placement, ...] = ()

    @classmethod
    def whole(cls, size: tuple[int, int]) -> Placement:
        """A picture of this width and height as it is stored."""
        return cls(np.array([[1.0, 0, 0], [0, 1, 0]]), size)

    @classmethod
    def of_crop(cls, crop: tuple[float, float, float, float], size: tuple[int, int]) -> Placement:
        """A crop (left, top, right, bottom) of a picture that is resized to width and height."""
        left, top, right, bottom = crop
        x, y = size[0] / (right - left), size[1] / (bottom - top)
        return cls(np.array([[x, 0, -x * left], [0, y, -y * top]]), size)

    @property
    def mirrored(self) -> bool:
        """Whether left and right have changed places."""
        (a, b, _), (c, d, _) = self.matrix.tolist()
        return a * d < b * c

    def then(self, matrix: np.ndarray, size: tuple[int, int]) -> Placement:
        """The picture in another image, of this width and height, to which a (2, 3) map moves the points of this one."""
        return Placement(_composed(matrix, self.matrix), size, (*self.earlier, self))

    def mirror(self) -> Placement:
        """The same image, with left and right exchanged."""
        flip = np.array([[-1.0, 0, self.size[0]], [0, 1, 0]])
        return replace(self, matrix=_composed(flip, self.matrix))

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) of the picture -> (N, 4) float64 of the image: what encloses their corners, cut to what is shown.

        A box that has left the image has no area.
        """
        kept = np.asarray(boxes, dtype=np.float64)
        for placement in self.earlier:
            frame = np.array([[0.0, 0, *placement.size]])
            left, top, right, bottom = _enclosing(placement.inverse(), frame)[0]
            kept = kept.clip((left, top, left, top), (right, bottom, right, bottom))
        found = _enclosing(self.matrix, kept).clip(0, (*self.size, *self.size))
        lost = (kept[:, 0] >= kept[:, 2]) | (kept[:, 1] >= kept[:, 3])
        return np.where(lost[:, None], found[:, (0, 1, 0, 1)], found)

    def stored(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) of the image -> (N, 4) float64 of the picture: what encloses their corners."""
        return _enclosing(self.inverse(), boxes)

    def inverse(self) -> np.ndarray:
        """The (2, 3) float64 map from points of the image to points of the stored picture."""
        turned = np.linalg.inv(self.matrix[:, :2])
        return np.concatenate([turned, -turned @ self.matrix[:, 2:]], axis=1)


class Shown(NamedTuple):
    """The image that a pipeline made of a picture.

    pixels: (3, H, W) uint8, or float32 where the pipeline has normalised them.
    placement: where the points of the picture lie in it; None: the pipeline does not know.
    """

    pixels: Tensor
    placement: Placement | None

    @property
    def mirrored(self) -> bool:
        """Whether left and right have changed places."""
        return self.placement is not None and self.placement.mirrored


def _composed(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The (2, 3) map that applies one after the other."""
    composed = second[:, :2] @ first
    composed[:, 2] += second[:, 2]
    return composed


def _enclosing(matrix: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The boxes (N, 4) that enclose the corners of others, moved by a (2, 3) map."""
    x, y = boxes[:, (0, 2, 0, 2)], boxes[:, (1, 1, 3, 3)]
    corners = np.stack([x, y, np.ones_like(x)], axis=1)  # (N, 3, 4)
    moved = matrix @ corners
    return np.concatenate([moved.min(axis=2), moved.max(axis=2)], axis=1)


def grid_boxes(width: float, height: float) -> np.ndarray:
    """Boxes of several sizes and shapes all over an image of this size, for want of a detector: (N, 4) float64.

    Neighbours of one size stand half a side apart, and none leaves the image. They take the place of the anchors of a
    detector (Ren et al. 2015, Faster R-CNN).
    """
    found = []
    for side in _SIDES:
        for ratio in _RATIOS:
            w = min(side * min(width, height) * ratio**0.5, width)
            h = min(side * min(width, height) / ratio**0.5, height)
            columns, rows = (round((whole - own) / (own * _STEP)) + 1 for whole, own in ((width, w), (height, h)))
            x, y = np.meshgrid(np.linspace(0, width - w, columns), np.linspace(0, height - h, rows))
            found.append(np.stack([x, y, x + w, y + h], axis=-1).reshape(-1, 4))
    return np.concatenate(found)
