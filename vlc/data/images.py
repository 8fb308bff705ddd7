"""Decoding of stored images.

JPEGs, which is what large data sets are made of, are decoded with libjpeg-turbo (simplejpeg) straight into the array that
the resize reads, and scaled down while they are decoded where that does not show. Everything else is Pillow's. Without
simplejpeg Pillow decodes JPEGs too: the same pixels, more slowly.

Images come from strangers. Only the kinds in FORMATS are decoded, whatever a file is called: some of Pillow's other
plug-ins start programs. An image of more pixels than `max_pixels` is refused before any memory is taken for them.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from vlc.common.errors import UserError

try:
    import simplejpeg
except ImportError:  # no wheel for this machine
    simplejpeg = None

if TYPE_CHECKING:  # the workers of converters need not load it
    import pyarrow as pa

# The kinds that are decoded, by Pillow's names, and the suffixes of their files in small letters, the usual one first.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
}
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
MAX_PIXELS = 89_478_485  # Pillow's own: a quarter of a gigabyte of RGB
MAX_PIXELS_VARIABLE = "VLC_MAX_PIXELS"  # in the environment

# What Pillow raises on damaged files, apart from its own UnidentifiedImageError (an OSError).
_DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)

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
# TIFF's tags and values.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _WHITE_IS_ZERO = 258, 262, 339, 0
_BRIGHTEST_FRACTION = 2  # pictures from 0 to 1 overshoot a little where they were resized
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
# Orientations whose upright picture begins on the left, or at the top, with what is stored last.
_LEFT_LAST, _TOP_LAST = (2, 3, 6, 7), (3, 4, 7, 8)

# The smallest size of a scaled decoding, in multiples of the size it is resized to. The result then differs by 0.7 grey
# levels from the result of a full decoding, on noise with the spectrum of photographs. With 1.5 it would differ by 1.2,
# with 1 by 2.2. This holds for boxes whose edges are multiples of the scale. Other boxes move a little, which costs more:
# see DATA.md.
_RESERVE = 2


class UndecodableImage(UserError):
    """Bytes that are no image, or a damaged one."""


class UnknownKind(UndecodableImage):
    """Bytes that are no image of a kind that is decoded."""


class TooManyPixels(UndecodableImage):
    """An image of more pixels than are decoded."""


@dataclass(frozen=True, eq=False)
class Jpeg:
    """A JPEG whose header was read. Its pixels are decoded once it is known how many are needed.

    data: the encoded bytes, uint8.
    size: (width, height) when upright.
    orientation: EXIF's, 1 to 8.
    """

    data: np.ndarray
    size: tuple[int, int]
    orientation: int = 1

    def pixels(self, factor: int = 1, *, fast: bool = False) -> np.ndarray:
        """RGB (H, W, 3) uint8, upright; width and height divided by 1, 2, 4 or 8 and rounded up.

        fast: colours of subsampled JPEGs are repeated and not interpolated. Raises UndecodableImage with the reason.
        """
        width, height = self.size[::-1] if self.orientation in _SIDEWAYS else self.size
        # An odd but readable file is an error to simplejpeg and none to Pillow, who therefore decides.
        stored = _turbo(self.data, width, height, factor, fast) if simplejpeg else None
        if stored is None:
            with opened(io.BytesIO(self.data.data)) as image:
                image.draft("RGB", (max(1, width // factor), max(1, height // factor)))
                stored = np.array(image.convert("RGB"))
        return _upright(stored, self.orientation)

    def crop(self, box: tuple[int, int, int, int], size: int) -> tuple[np.ndarray, tuple[float, float, float, float]]:
        """The box (left, top, right, bottom) as RGB (H, W, 3) uint8, at a scale that is enough to resize it to `size`.

        Where that scale is 1 / 2, 4 or 8, the edges of the box move to the nearest multiples of 2, 4 or 8 pixels. The edges
        that it then has in the picture are returned too.
        """
        left, top, right, bottom = box
        shorter = min(right - left, bottom - top)
        factor = next((factor for factor in (8, 4, 2) if shorter >= _RESERVE * factor * size), 1)
        left, top = round(left / factor), round(top / factor)
        right, bottom = (
            min(round(edge / factor), side // factor) for edge, side in zip(box[2:], self.size, strict=True)
        )
        # Shrinking averages repeated colours: 0.4 grey levels from interpolated ones, and decoding a sixth faster.
        pixels = self.pixels(factor, fast=shorter >= size)[top:bottom, left:right]
        # The last pixel of a scaled row or column is partly outside; in a turned picture it comes first.
        beside = -self.size[0] % factor if self.orientation in _LEFT_LAST else 0
        above = -self.size[1] % factor if self.orientation in _TOP_LAST else 0
        edges = (left * factor - beside, top * factor - above, right * factor - beside, bottom * factor - above)
        return pixels, edges


Picture: TypeAlias = Image.Image | Jpeg  # upright RGB; both have `size`


def max_pixels() -> int:
    """How many pixels (width times height) an image may have: VLC_MAX_PIXELS, by default MAX_PIXELS. Raises UserError."""
    asked = os.environ.get(MAX_PIXELS_VARIABLE)
    if asked is None:
        return MAX_PIXELS
    if not (asked.isdecimal() and int(asked)):
        raise UserError(f"{MAX_PIXELS_VARIABLE}={asked} should be a whole number of pixels, such as {MAX_PIXELS}")
    return int(asked)


def open_image(data: pa.Buffer) -> Picture:
    """Encoded bytes -> upright RGB image: a Jpeg if it is a plain one, and everything else decoded by Pillow.

    EXIF orientation is applied once, as ImageOps.exif_transpose does. Alpha is dropped, so transparent pixels show the
    colour stored beneath. Of an animation or of several pages the first is taken. `to_rgb` describes how deeper levels are
    converted. Raises UndecodableImage with the reason.
    """
    encoded = np.frombuffer(data, np.uint8)
    if simplejpeg and (jpeg := _plain_jpeg(encoded)):
        return jpeg
    # Arrow's own reader would save a copy, but some of Pillow's plug-ins call what it cannot do.
    with opened(io.BytesIO(data)) as image:
        if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
            orientation = _orientation(image)
            size = image.size[::-1] if orientation in _SIDEWAYS else image.size
            return Jpeg(encoded, size, orientation)
        picture = to_rgb(image)
        # Read after the pixels: decoding a TIFF turns it, and takes the tag away.
        orientation = _orientation(image)
        return picture if orientation == 1 else Image.fromarray(_upright(np.asarray(picture), orientation))


@contextmanager
def opened(file: BinaryIO) -> Iterator[Image.Image]:
    """An encoded image, recognised by its content; its pixels are decoded when they are asked for inside the block.

    Raises UnknownKind where it is of none of the FORMATS, TooManyPixels where it is too large, and UndecodableImage, from
    inside the block too, where it is damaged.
    """
    limit = Image.MAX_IMAGE_PIXELS = max_pixels()  # Pillow looks at this one, before it takes memory
    try:
        with warnings.catch_warnings():
            # Pillow only warns of images that are up to twice too large. Its warnings about odd metadata do not matter.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if _webp_pixels(file) > limit:
                raise Image.DecompressionBombError
            image = Image.open(file, formats=_formats())
            if image.width * image.height > limit:
                raise Image.DecompressionBombError
            yield image
    except _TOO_LARGE as error:
        raise TooManyPixels(_too_large(limit)) from error
    except UnidentifiedImageError as error:  # its own text holds a memory address
        raise UnknownKind("UnidentifiedImageError: not a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF") from error
    except _DECODE_ERRORS as error:
        if isinstance(error, UserError):
            raise
        raise UndecodableImage(f"{type(error).__name__}: {error}") from error


def _webp_pixels(file: BinaryIO) -> int:
    """The pixels that the header of a WebP declares, and 0 of other files.

    libwebp takes eight bytes for each of them when the file is opened; Pillow looks at their number afterwards, or, in
    newer versions, before that with a limit twice as high.
    """
    start = file.tell()
    header = file.read(30)
    file.seek(start)
    if len(header) < 30 or header[:4] != b"RIFF" or header[8:12] != b"WEBP":
        return 0
    kind = header[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(header[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L":
        sides = int.from_bytes(header[21:25], "little")
        width, height = 1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", header[26:30]))
    return width * height


def to_rgb(image: Image.Image) -> Image.Image:
    """The stored pixels of any mode as 8-bit RGB.

    Whole levels stay as they are where the brightest is at most 255. Otherwise those up to 65,535 are divided by 256 (of
    12 bits by 16), and higher ones by the power of two that leaves 8 bits of the brightest. Fractions count from 0, black,
    to 1, white, where the brightest is at most 2, and like whole levels otherwise. Negative levels and NaN are black.
    """
    if image.mode.startswith(("I", "F")):  # Pillow would cut levels above 255 off
        image.load()
        levels = np.asarray(image)
        tags = getattr(image, "tag_v2", {})  # only TIFFs have them
        if image.mode == "I" and tags.get(_SAMPLE_FORMAT, (2,))[0] == 1:
            levels = levels.view(np.uint32)  # Pillow has no such mode
        levels = _eight_bits(levels, tags.get(_BITS, (16,))[0])
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            levels = 255 - levels  # Pillow does so for 8 bits only
        image = Image.fromarray(levels)
    return image.convert("RGB")


def _eight_bits(levels: np.ndarray, bits: int) -> np.ndarray:
    if levels.dtype.kind == "f":
        levels = np.nan_to_num(levels, nan=0)  # infinite ones become the largest number
        brightest = levels.max()
        if brightest <= _BRIGHTEST_FRACTION:
            return np.rint(levels.clip(0, 1) * 255).astype(np.uint8)
        levels = levels.clip(0, 2.0**62).astype(np.int64)
    brightest = int(levels.max())
    if brightest <= 255:
        shift = 0
    elif brightest < 1 << 16:
        shift = bits - 8 if 8 < bits < 16 else 8
    else:
        shift = brightest.bit_length() - 8
    return (levels.clip(0) >> shift).clip(max=255).astype(np.uint8)


def to_pil(image: Picture) -> Image.Image:
    """The whole image, decoded. Raises UndecodableImage."""
    return Image.fromarray(image.pixels()) if isinstance(image, Jpeg) else image


def _plain_jpeg(data: np.ndarray) -> Jpeg | None:
    """A Jpeg, if its header says that it needs nothing special. This is ten times as fast as Pillow reads headers."""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if width * height > (limit := max_pixels()):
        raise TooManyPixels(_too_large(limit))
    if colors not in ("YCbCr", "GRAY", "RGB") or _may_be_turned(data.data):
        return None
    return Jpeg(data, (width, height))


def _too_large(limit: int) -> str:
    return f"it has more than {limit:,} pixels; set {MAX_PIXELS_VARIABLE} in the environment to allow more"


def _may_be_turned(data: memoryview) -> bool:
    """Whether one of the application segments that follow the start of a JPEG is EXIF's, or XMP's with an orientation."""
    at = 2
    while data[at] == 0xFF and (0xE0 <= data[at + 1] <= 0xEF or data[at + 1] == 0xFE):  # APP0 to APP15, comment
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        start = data[at + 4 : at + 8]
        if start == b"Exif" or (start == b"http" and b"tiff:Orientation" in bytes(data[at:end])):
            return True
        at = end
    return False


@lru_cache(maxsize=1)
def _formats() -> list[str]:
    """Those of FORMATS that this Pillow reads."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


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
    # Not np.ascontiguousarray, which leaves the negative stride of a side of one pixel: PyTorch refuses it.
    return _TURNS[orientation](pixels).copy() if orientation in _TURNS else pixels
