"""Geometry: boxes, and the map from a stored picture to the image that a pipeline shows.

A box is (left, top, right, bottom) in pixels, from edge to edge: pixel i lies between i and i + 1, and a box is as wide as
right - left.
"""

from dataclasses import dataclass

import numpy as np

_SIDES = (0.2, 0.35, 0.5, 0.7, 1.0)  # of the boxes of a grid, as shares of the shorter side of the image
_RATIOS = (0.5, 1.0, 2.0)  # width to height
_STEP = 0.5  # between neighbours, as a share of their sides


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the points of a stored picture lie in the image that a pipeline made of it.

    matrix: (2, 3) float64; the point (x, y) of the picture, upright, lies at matrix @ (x, y, 1).
    size: width and height in pixels of what is shown of the picture, without padding, which lies below and on the right.
    """

    matrix: np.ndarray
    size: tuple[int, int]

    @classmethod
    def of_crop(cls, crop: tuple[float, float, float, float], size: tuple[int, int]) -> "Placement":
        """A crop (left, top, right, bottom) of a picture that is resized to width and height."""
        left, top, right, bottom = crop
        x, y = size[0] / (right - left), size[1] / (bottom - top)
        return cls(np.array([[x, 0, -x * left], [0, y, -y * top]]), size)

    @property
    def mirrored(self) -> bool:
        """Whether left and right have changed places."""
        return bool(np.linalg.det(self.matrix[:, :2]) < 0)

    def after(self, matrix: np.ndarray) -> "Placement":
        """This placement of a picture to whose points a (2, 3) map was applied before."""
        return Placement(self.matrix @ np.vstack([matrix, [0, 0, 1]]), self.size)

    def mirror(self) -> "Placement":
        """The same image, with left and right exchanged."""
        flip = np.array([[-1, 0, self.size[0]], [0, 1, 0]])
        return Placement(flip @ np.vstack([self.matrix, [0, 0, 1]]), self.size)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) of the picture -> (N, 4) float64 of the image: what encloses their corners, cut to what is shown.

        A box that has left the image has no area.
        """
        limits = np.array([*self.size, *self.size], dtype=np.float64)
        return _enclosing(self.matrix, boxes).clip(0, limits)

    def stored(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) of the image -> (N, 4) float64 of the picture: what encloses their corners."""
        return _enclosing(self.inverse(), boxes)

    def inverse(self) -> np.ndarray:
        """The (2, 3) float64 map from points of the image to points of the stored picture."""
        turned = np.linalg.inv(self.matrix[:, :2])
        return np.concatenate([turned, -turned @ self.matrix[:, 2:]], axis=1)


def _enclosing(matrix: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) around the mapped corners of boxes (N, 4)."""
    x, y = boxes[:, (0, 2, 0, 2)], boxes[:, (1, 1, 3, 3)]
    moved = matrix @ np.stack([x, y, np.ones_like(x)], axis=1)  # (N, 2, 4)
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
