"""An explanation: how much each word and each patch of an image matters for an answer."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from vlc.data.geometry import Placement

# Red, green and blue of a heat map, from no relevance to the highest one.
_COLOURS = np.array([[40, 60, 190], [30, 160, 200], [90, 200, 90], [250, 200, 40], [220, 40, 30]], dtype=np.float32)
_STRONGEST = 0.7  # share of the colour in the picture, where relevance is highest


@dataclass(frozen=True)
class ImageMap:
    """What matters in one image.

    values: (rows, columns) float32, how much each patch matters for the answer.
    per_word: (T, rows, columns) float32, how much each patch matters for each word; None: the method does not say.
    placement: where the points of the picture lie in the image that the model sees.
    """

    values: np.ndarray
    per_word: np.ndarray | None
    placement: Placement


@dataclass(frozen=True)
class Sequence:
    """The attention of one encoder pass.

    names: of its S tokens.
    segments: the segment of each token, such as text or image.
    texts, images: the segments that are texts, and images.
    attention: (layers, heads, S, S) float16, by query and key, without padding.
    """

    names: list[str]
    segments: list[str]
    texts: list[str]
    images: list[str]
    attention: np.ndarray


@dataclass(frozen=True)
class Explanation:
    """Why a head gives an answer.

    method: a name of `METHODS`.
    head: its name.
    answer: the answer that is explained.
    value: of the answer, before a softmax or sigmoid (`vlc.use.explain.chosen.Chosen`).
    tokens: the T tokens of the text, without special ones.
    words: (T,) float32, how much each token matters for the answer.
    maps: of each image.
    patch_size: in pixels of the image that the model sees.
    sequences: of each encoder pass.
    score: of the answer, as the head states it, in `unit`.
    box: that the answer is (left, top, right, bottom), in pixels of the picture; None: it is none.
    """

    method: str
    head: str
    answer: str
    value: float
    tokens: list[str]
    words: np.ndarray
    maps: tuple[ImageMap, ...]
    patch_size: int
    sequences: tuple[Sequence, ...]
    score: float
    unit: str
    box: tuple[float, ...] | None

    @property
    def image(self) -> np.ndarray:
        """(rows, columns) float32, how much each patch of the first image matters for the answer."""
        return self.maps[0].values

    @property
    def per_word(self) -> np.ndarray | None:
        """(T, rows, columns) float32, how much each patch of the first image matters for each token."""
        return self.maps[0].per_word

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of the first image."""
        rows, columns = self.image.shape
        return rows, columns

    def overlay(self, picture: Image.Image, values: np.ndarray | None = None, number: int = 0) -> Image.Image:
        """Return the upright picture with a heat map over it; what counts against the answer is left uncoloured.

        values: (rows, columns); None: how much each patch matters for the answer.
        number: which of the images the picture is.
        """
        values = self.maps[number].values if values is None else values
        heat = values.clip(0).astype(np.float32)
        heat -= heat.min()  # attention is nowhere zero
        heat /= max(float(heat.max()), 1e-12)
        patches = self.maps[number].placement.matrix / self.patch_size  # from points of the picture to the grid
        size = picture.size
        spread = Image.fromarray(heat).transform(
            size, Image.Transform.AFFINE, patches.ravel().tolist(), Image.Resampling.BILINEAR
        )
        strength = np.asarray(spread)[..., None].clip(0, 1)
        places = np.linspace(0, 1, len(_COLOURS))
        colours = np.stack([np.interp(strength[..., 0], places, channel) for channel in _COLOURS.T], axis=-1)
        share = _STRONGEST * strength**0.7
        mixed = np.asarray(picture.convert("RGB")) * (1 - share) + colours * share
        return Image.fromarray(mixed.round().astype(np.uint8))
