"""Decoding of stored images."""

import struct

import numpy as np
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
        image = Image.open(pa.BufferReader(data))
        if image.mode.startswith("I;16"):  # Pillow would cut levels above 255 off
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image.convert("RGB")
    except _DECODE_ERRORS as error:
        raise UndecodableImage(f"{type(error).__name__}: {error}") from error
