"""Decoding."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests import tiny
from vlc.data.images import UndecodableImage, decode


def _encoded(mode: str) -> bytes:
    """A flat picture of 6x4 pixels, as light as 200 of 255 (white in black and white)."""
    buffer = io.BytesIO()
    if mode == "I;16":
        Image.fromarray(np.full((4, 6), 200 * 257, np.uint16)).save(buffer, "PNG")
    elif mode == "1":
        Image.new("1", (6, 4), 1).save(buffer, "PNG")
    else:
        picture = Image.new("RGB", (6, 4), (200, 200, 200))
        picture = picture.quantize(4) if mode == "P" else picture.convert(mode)
        picture.save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_kind_of_image_becomes_rgb(mode):
    image = decode(pa.py_buffer(_encoded(mode)))
    assert image.mode == "RGB"
    assert image.size == (6, 4)
    expected = 255 if mode == "1" else 200
    assert np.abs(np.asarray(image).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("data", [b"", b"no image", tiny.image_bytes()[:300], tiny.image_bytes(kind="PNG")[:200]])
def test_damaged_images_are_refused_with_the_reason(data):
    with pytest.raises(UndecodableImage, match=r"\w+: .+"):
        decode(pa.py_buffer(data))
