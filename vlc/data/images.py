"""Decoding of stored images.

JPEGs, which is what large data sets are made of, are decoded with libjpeg-turbo (simplejpeg) straight into the array that
the resize reads, and scaled down while they are decoded where that does not show. Everything else is Pillow's. Without
simplejpeg Pillow decodes JPEGs too: the same pixels, more slowly.
"""

import io
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from vlc.errors import UserError

try:
    import simplejpeg
except ImportError:  # no wheel for this machine
    simplejpeg = None

# What Pillow raises on damaged files, apart from its own UnidentifiedImageError (an OSError).
_DECODE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)

_ORIENTATION = 0x0112  # EXIF tag
_TURNS: dict[
    int, Callable[[np.ndarray], np.ndarray]
] = {  # stored pixels (H, W, 3) -> upright ones, by EXIF orientation
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height

# Smallest size of a scaled decoding, in multiples of the size it is resized to: the result is then 0.7 grey levels away
# from that of a full decoding, on noise with the spectrum of photographs. At 1.5 it would be 1.2, at 1 it would be 2.2.
_RESERVE = 2


class UndecodableImage(UserError):
    """Bytes that are no image, or a damaged one."""


@dataclass(frozen=True, eq=False)
class Jpeg:
    """A JPEG of which the header was read; its pixels are decoded once it is known how many are needed.

    data: the encoded bytes, uint8. size: (width, height) when upright. orientation: EXIF's, 1 to 8.
    """

    data: np.ndarray
    size: tuple[int, int]
    orientation: int = 1

    def pixels(self, factor: int = 1, *, fast: bool = False) -> np.ndarray:
        """RGB (H, W, 3) uint8, upright; width and height divided by 1, 2, 4 or 8 and rounded up.

        fast: colours of subsampled JPEGs are repeated and not interpolated. Raises UndecodableImage with the reason.
        """
        width, height = self.size[::-1] if self.orientation in _SIDEWAYS else self.size
        try:
            # An odd but readable file is an error to simplejpeg and none to Pillow, who therefore decides.
            stored = _turbo(self.data, width, height, factor, fast) if simplejpeg else None
            if stored is None:
                image = Image.open(io.BytesIO(self.data))
                image.draft("RGB", (max(1, width // factor), max(1, height // factor)))
                stored = np.array(image.convert("RGB"))
        except _DECODE_ERRORS as error:
            raise UndecodableImage(f"{type(error).__name__}: {error}") from error
        return _upright(stored, self.orientation)

    def crop(self, box: tuple[int, int, int, int], size: int) -> np.ndarray:
        """The box (left, top, right, bottom) as RGB (H, W, 3) uint8, at a scale that is enough to resize it to `size`.

        Where that scale is 1 / 2, 4 or 8, the edges of the box move to the nearest multiples of 2, 4 or 8 pixels.
        """
        left, top, right, bottom = box
        shorter = min(right - left, bottom - top)
        factor = next((factor for factor in (8, 4, 2) if shorter >= _RESERVE * factor * size), 1)
        left, top = round(left / factor), round(top / factor)
        right, bottom = (
            min(round(edge / factor), side // factor) for edge, side in zip(box[2:], self.size, strict=True)
        )
        # Shrinking averages repeated colours: 0.4 grey levels from interpolated ones, and decoding a sixth faster.
        return self.pixels(factor, fast=shorter >= size)[top:bottom, left:right]


Picture: TypeAlias = Image.Image | Jpeg  # upright RGB; both have `size`


def open_image(data: pa.Buffer) -> Picture:
    """Encoded bytes -> upright RGB image: a Jpeg if it is a plain one, and everything else decoded by Pillow.

    EXIF orientation is applied; alpha is dropped, so that transparent pixels show the colour stored beneath; of an
    animation the first frame is taken; of 16 bits the upper 8 remain. Raises UndecodableImage with the reason.
    """
    encoded = np.frombuffer(data, np.uint8)
    if simplejpeg and (jpeg := _plain_jpeg(encoded)):
        return jpeg
    try:
        # Arrow's own reader would save a copy, but some of Pillow's plug-ins call what it cannot do.
        image = Image.open(io.BytesIO(data))
        orientation = _orientation(image)
        if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
            size = image.size[::-1] if orientation in _SIDEWAYS else image.size
            return Jpeg(encoded, size, orientation)
        if image.mode.startswith("I"):  # Pillow would cut levels above 255 off
            levels = np.asarray(image)
            image = Image.fromarray((levels >> 8 if levels.max() > 255 else levels).astype(np.uint8))
        image = image.convert("RGB")
        return image if orientation == 1 else Image.fromarray(_upright(np.asarray(image), orientation))
    except UnidentifiedImageError as error:  # its own text tells a memory address
        raise UndecodableImage("UnidentifiedImageError: no image of a known kind") from error
    except _DECODE_ERRORS as error:
        raise UndecodableImage(f"{type(error).__name__}: {error}") from error


def to_pil(image: Picture) -> Image.Image:
    """The whole image, decoded. Raises UndecodableImage."""
    return Image.fromarray(image.pixels()) if isinstance(image, Jpeg) else image


def _plain_jpeg(data: np.ndarray) -> Jpeg | None:
    """A Jpeg, if its header says that nothing special is the matter. Ten times as fast as Pillow's reading of headers."""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if (
        _has_exif(data.data)
        or colors not in ("YCbCr", "GRAY", "RGB")
        or width * height > (Image.MAX_IMAGE_PIXELS or math.inf)
    ):
        return None
    return Jpeg(data, (width, height))


def _has_exif(data: memoryview) -> bool:
    """Whether one of the application segments that follow the start of a JPEG is EXIF's."""
    at = 2
    while data[at] == 0xFF and (0xE0 <= data[at + 1] <= 0xEF or data[at + 1] == 0xFE):  # APP0 to APP15, comment
        if data[at + 4 : at + 8] == b"Exif":
            return True
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _turbo(data: np.ndarray, width: int, height: int, factor: int, fast: bool) -> np.ndarray | None:
    """Pixels by libjpeg-turbo; None where it has something to complain about."""
    smallest = {"min_width": -(-width // factor), "min_height": -(-height // factor)}
    try:
        return simplejpeg.decode_jpeg(data, fastupsample=fast, **smallest)
    except ValueError:
        return None


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except _DECODE_ERRORS:  # damaged EXIF says nothing of the image itself
        return 1
    return orientation if orientation in _TURNS else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    return np.ascontiguousarray(_TURNS[orientation](pixels)) if orientation in _TURNS else pixels
