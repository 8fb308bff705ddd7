"""Decoding."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests import tiny
from vlc.data.images import UndecodableImage, decode


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_kind_of_image_becomes_rgb(mode):
    pixels = Image.fromarray(np.full((4, 6, 3), 200, np.uint8))
    buffer = io.BytesIO()
    picture = Image.fromarray(np.full((4, 6), 51400, np.uint16)) if mode == "I;16" else pixels.convert(mode)
    picture.save(buffer, "JPEG" if mode == "CMYK" else "PNG", **({"quality": 100} if mode == "CMYK" else {}))
    image = decode(pa.py_buffer(buffer.getvalue()))
    assert image.mode == "RGB"
    assert image.size == (6, 4)
    expected = 255 if mode == "1" else 200
    assert np.abs(np.asarray(image).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("data", [b"", b"no image", tiny.image_bytes()[:300], tiny.image_bytes(kind="PNG")[:200]])
def test_damaged_images_are_refused_with_the_reason(data):
    with pytest.raises(UndecodableImage, match=r"\w+: .+"):
        decode(pa.py_buffer(data))
