"""Geometry: boxes, and the map from a stored picture to the image that a pipeline shows.

A box is (left, top, right, bottom) in pixels, from edge to edge: pixel i lies between i and i + 1, and a box is as wide as
right - left.
"""

from dataclasses import dataclass

import numpy as np


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
        x, y = boxes[:, (0, 2, 0, 2)], boxes[:, (1, 1, 3, 3)]
        corners = np.stack([x, y, np.ones_like(x)], axis=1)  # (N, 3, 4)
        moved = self.matrix @ corners
        limits = np.array([*self.size, *self.size], dtype=np.float64)
        return np.concatenate([moved.min(axis=2), moved.max(axis=2)], axis=1).clip(0, limits)

    def inverse(self) -> np.ndarray:
        """The (2, 3) float64 map from points of the image to points of the stored picture."""
        turned = np.linalg.inv(self.matrix[:, :2])
        return np.concatenate([turned, -turned @ self.matrix[:, 2:]], axis=1)
