"""Decoding."""

import io

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from benchmarks.pictures import photograph
from tests import tiny
from vlc.data import images
from vlc.data.images import Jpeg, UndecodableImage, open_image, to_pil
from vlc.data.transforms import TRANSFORMS, resized_crop, transform


@pytest.fixture(params=["simplejpeg", "Pillow"])
def decoder(request, monkeypatch):
    if request.param == "Pillow":
        monkeypatch.setattr(images, "simplejpeg", None)
    elif images.simplejpeg is None:
        pytest.skip("simplejpeg is not installed")


def _bytes(image: Image.Image, kind: str, **options) -> pa.Buffer:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return pa.py_buffer(buffer.getvalue())


def _encoded(mode: str, size: tuple[int, int] = (6, 4)) -> pa.Buffer:
    """A flat picture, as light as 200 of 255 (white in black and white)."""
    if mode == "I;16":
        return _bytes(Image.fromarray(np.full(size[::-1], 200 * 257, np.uint16)), "PNG")
    if mode == "1":
        return _bytes(Image.new("1", size, 1), "PNG")
    picture = Image.new("RGB", size, (200, 200, 200))
    if mode.startswith("JPEG"):
        return _bytes(picture.convert(mode.split()[1]), "JPEG", progressive="progressive" in mode)
    if mode == "animated":
        return _bytes(picture, "GIF", save_all=True, append_images=[Image.new("RGB", size)])
    return _bytes(picture.quantize(4) if mode == "P" else picture.convert(mode), "PNG")


MODES = ["L", "LA", "RGB", "RGBA", "P", "1", "I;16", "animated", "JPEG RGB", "JPEG L", "JPEG CMYK"]


@pytest.mark.parametrize("mode", [*MODES, "JPEG RGB progressive"])
def test_every_kind_of_image_becomes_rgb(mode, decoder):
    image = to_pil(open_image(_encoded(mode)))
    assert image.mode == "RGB"
    assert image.size == (6, 4)
    expected = 255 if mode == "1" else 200
    assert np.abs(np.asarray(image).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1)])
def test_tiny_images_pass_through_every_pipeline(mode, size):
    for name in TRANSFORMS:
        pixels = transform(name, 32)(open_image(_encoded(mode, size)), np.random.default_rng(0))
        assert pixels.shape == (3, 32, 32)
        assert pixels.dtype == torch.uint8


def test_what_lies_beneath_transparent_pixels_is_shown():
    picture = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert to_pil(open_image(_bytes(picture, "PNG"))).getpixel((0, 0)) == (10, 20, 30)


@pytest.mark.parametrize("data", [b"", b"no image", tiny.image_bytes()[:300], tiny.image_bytes(kind="PNG")[:200]])
def test_damaged_images_are_refused_with_the_reason(data, decoder):
    with pytest.raises(UndecodableImage, match=r"\w+: .+"):
        to_pil(open_image(pa.py_buffer(data)))


def test_a_readable_file_that_the_fast_decoder_complains_about_is_left_to_pillow():
    data = tiny.image_bytes()
    odd = data[:-2] + b"\x00" * 5 + data[-2:]  # padding before the end marker
    assert np.array_equal(open_image(pa.py_buffer(odd)).pixels(), open_image(pa.py_buffer(data)).pixels())


def _corners(size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Red top left, green top right, blue bottom left, white bottom right."""
    width, height = size[0] // 2, size[1] // 2
    image = Image.new("RGB", size, "white")
    image.paste((255, 0, 0), (0, 0, width, height))
    image.paste((0, 255, 0), (width, 0, size[0], height))
    image.paste((0, 0, 255), (0, height, width, size[1]))
    return image


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation, decoder):
    """An image stored in each of the eight ways comes out upright."""
    stored_as = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = _corners().transpose(stored_as[orientation]) if orientation > 1 else _corners()
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _bytes(stored, kind, exif=exif)
    image = open_image(data)
    assert image.size == (96, 64)
    assert np.abs(np.asarray(to_pil(image)).astype(int) - np.asarray(_corners())).mean() < 3
    expected = resized_crop(_corners(), (48, 0, 96, 64), 16).int()  # green above white
    assert (resized_crop(open_image(data), (48, 0, 96, 64), 16).int() - expected).abs().float().mean() < 6


def test_orientation_is_found_behind_other_segments():
    """A colour profile of 60 kB before EXIF; the file is put together by hand, as Pillow writes EXIF first."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = _bytes(_corners(), "JPEG", exif=exif).to_pybytes()
    profile = b"\xff\xe2" + (60_000).to_bytes(2, "big") + bytes(59_998)
    assert open_image(pa.py_buffer(data[:2] + profile + data[2:])).size == (64, 96)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_spoil_an_image():
    data = _bytes(_corners(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x01\x12")
    assert open_image(data).size == (96, 64)


@pytest.mark.parametrize("shape", [(640, 480), (1024, 768), (801, 1203), (1600, 1200)])
def test_jpegs_are_resized_as_pillow_does(shape, decoder):
    """Less than a grey level away at full scale, less than two where the image was decoded at a smaller one."""
    data = _bytes(photograph(*shape), "JPEG", quality=90)
    pillow, jpeg = Image.open(io.BytesIO(data)).convert("RGB"), open_image(data)
    assert isinstance(jpeg, Jpeg)
    whole = (0, 0, shape[0] // 8 * 8, shape[1] // 8 * 8)  # multiples of every scale
    for box in (whole, (16, 8, whole[2] - 16, whole[3] - 24)):
        for size, most in ((32, 2), (128, 2), (224, 2), (384, 2), (min(shape) - 50, 0.8), (max(shape) + 50, 0.1)):
            difference = resized_crop(jpeg, box, size).int() - resized_crop(pillow, box, size).int()
            assert difference.abs().float().mean() < most, (box, size)


def test_jpegs_are_decoded_at_a_smaller_scale_where_that_is_enough(decoder):
    jpeg = open_image(_bytes(photograph(800, 600), "JPEG"))
    assert jpeg.crop((0, 0, 800, 600), 224).shape == (600, 800, 3)
    assert jpeg.crop((0, 0, 800, 600), 150).shape == (300, 400, 3)
    assert jpeg.crop((0, 0, 800, 600), 37).shape == (75, 100, 3)


def test_mirrored_crops():
    image = open_image(_bytes(_corners(), "JPEG"))
    plain, mirrored = (resized_crop(image, None, 16, flip=flip) for flip in (False, True))
    assert torch.equal(plain.flip(-1), mirrored)
