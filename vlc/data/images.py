"""Decoding of stored images."""

import struct

import pyarrow as pa
from PIL import Image

from vlc.errors import UserError

# What Pillow raises on damaged files, apart from its own UnidentifiedImageError (an OSError).
_DECODE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)


class UndecodableImage(UserError):
    """Bytes that are no image, or a damaged one."""


def decode(data: pa.Buffer) -> Image.Image:
    """Encoded bytes -> RGB image. Raises UndecodableImage with the reason."""
    try:
        return Image.open(pa.BufferReader(data)).convert("RGB")
    except _DECODE_ERRORS as error:
        raise UndecodableImage(f"{type(error).__name__}: {error}") from error
