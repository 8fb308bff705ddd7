"""Decoding."""

import io
import struct
import subprocess
import zlib

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageFile, ImageOps, features

from benchmarks.pictures import photograph
from tests import tiny
from vlc.common.errors import UserError
from vlc.data import images
from vlc.data.images import Jpeg, UndecodableImage, open_image, to_pil
from vlc.data.transforms import TRANSFORMS, crop_box, resized_crop, transform
from write_arrow.sources import emoji

KINDS = ["JPEG", "PNG", "WEBP", "TIFF", *(["AVIF"] if features.check("avif") else [])]


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
        pixels = transform(name, 32)(open_image(_encoded(mode, size)), np.random.default_rng(0)).pixels
        assert pixels.shape == (3, 32, 32)
        assert pixels.dtype == torch.uint8


def test_what_lies_beneath_transparent_pixels_is_shown():
    picture = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert to_pil(open_image(_bytes(picture, "PNG"))).getpixel((0, 0)) == (10, 20, 30)


def _tiff(
    levels: np.ndarray, bits: int, *, sample_format: int = 1, photometric: int = 1, orientation: int = 1
) -> bytes:
    """A grey TIFF put together by hand: Pillow does not write all that it reads."""
    pixels = levels.tobytes()
    tags = {
        256: levels.shape[1],
        257: levels.shape[0],
        258: bits,
        259: 1,
        262: photometric,
        273: None,
        274: orientation,
    }
    tags |= {277: 1, 278: levels.shape[0], 279: len(pixels), 339: sample_format}
    if bits == 12:
        tags[256] = levels.shape[1] * 2 // 3  # bytes are packed by the caller
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(
        struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags.items()
    )
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + pixels


_RAMP = np.arange(256, dtype=np.int64).reshape(16, 16)  # the grey levels that should come out


@pytest.mark.parametrize(
    ("levels", "bits", "options"),
    [
        (_RAMP.astype("<u2"), 16, {}),  # 8 bits in a container of 16
        ((_RAMP * 257).astype("<u2"), 16, {}),
        (((255 - _RAMP) * 257).astype("<u2"), 16, {"photometric": 0}),
        ((_RAMP * 128).astype("<i2"), 16, {"sample_format": 2}),
        (_RAMP.astype("<u4"), 32, {}),
        ((_RAMP * 257).astype("<i4"), 32, {"sample_format": 2}),
        ((_RAMP << 23).astype("<i4"), 32, {"sample_format": 2}),
        ((_RAMP << 24).astype("<u4"), 32, {}),
        ((_RAMP << 10).astype("<u4"), 32, {}),
        ((_RAMP / 255).astype("<f4"), 32, {"sample_format": 3}),
        (_RAMP.astype("<f4"), 32, {"sample_format": 3}),
        ((_RAMP * 257).astype("<f4"), 32, {"sample_format": 3}),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, np.ndarray) else None,
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_deep_levels_are_scaled(levels, bits, options, orientation):
    """By hand: the ramp comes out, half as light where 15 of 16 bits can be used (a signed one)."""
    pixels = np.asarray(to_pil(open_image(pa.py_buffer(_tiff(levels, bits, orientation=orientation, **options)))))
    expected = _RAMP // 2 if bits == 16 and options.get("sample_format") == 2 else _RAMP
    expected = np.rot90(expected, -1) if orientation == 6 else expected
    assert np.array_equal(pixels, np.repeat(expected[..., None], 3, axis=2))


def test_twelve_bits():
    """Two levels lie in three bytes: 0xABC and 0x123 as AB C1 23."""
    packed = np.array([[0xAB, 0xC1, 0x23]], np.uint8)
    assert np.asarray(to_pil(open_image(pa.py_buffer(_tiff(packed, 12)))))[0, :, 0].tolist() == [0xAB, 0x12]


def test_levels_that_mean_nothing_are_black_or_white():
    odd = np.array([[np.nan, -1, np.inf, 0.5]], "<f4")
    assert np.asarray(to_pil(open_image(pa.py_buffer(_tiff(odd, 32, sample_format=3)))))[0, :2, 0].tolist() == [0, 0]
    overshoot = np.array([[-0.1, 0, 0.5, 1, 1.1]], "<f4")
    found = np.asarray(to_pil(open_image(pa.py_buffer(_tiff(overshoot, 32, sample_format=3)))))[0, :, 0]
    assert found.tolist() == [0, 0, 128, 255, 255]
    signed = np.array([[-5, 0, 200]], "<i4")
    found = np.asarray(to_pil(open_image(pa.py_buffer(_tiff(signed, 32, sample_format=2)))))[0, :, 0]
    assert found.tolist() == [0, 0, 200]


@pytest.mark.parametrize(
    "encoded",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
        b"P6 1 1 255 abc",
        _bytes(Image.new("RGB", (8, 8)), "ICO").to_pybytes(),
        _bytes(Image.new("RGB", (8, 8)), "PDF").to_pybytes(),
        _bytes(Image.new("RGB", (8, 8)), "PCX").to_pybytes(),
    ],
    ids=["EPS", "PPM", "ICO", "PDF", "PCX"],
)
def test_kinds_that_are_not_in_the_list_are_refused_and_start_nothing(encoded, monkeypatch):
    def refused(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", refused)
    with pytest.raises(UndecodableImage, match="not a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"):
        open_image(pa.py_buffer(encoded))


def _large(kind: str) -> pa.Buffer:
    """A picture of 12 x 10 pixels that says it has 13,000 x 13,000, and holds no more than it had."""
    data = bytearray(_bytes(Image.new("RGB", (12, 10)), kind).to_pybytes())
    if kind == "PNG":
        data[16:24] = struct.pack(">II", 13_000, 13_000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 13_000, 13_000)
    elif kind == "BMP":
        data[18:26] = struct.pack("<II", 13_000, 13_000)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", 13_000, 13_000)
    else:
        for tag, side in ((256, 12), (257, 10)):
            entry = struct.pack("<HHII", tag, 4, 1, side)
            assert entry in data
            data = data.replace(entry, struct.pack("<HHII", tag, 4, 1, 13_000))
    return pa.py_buffer(bytes(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_too_many_pixels_are_refused_before_decoding(kind, decoder, monkeypatch):
    data = _large(kind)

    def decoded(image):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    with pytest.raises(UndecodableImage, match="more than 89,478,485 pixels; set VLC_MAX_PIXELS"):
        open_image(data)


@pytest.mark.parametrize(
    ("mode", "options"),
    [("RGB", {}), ("RGB", {"lossless": True}), ("RGBA", {}), ("RGB", {"save_all": True}), ("RGB", {"exif": b"Exif"})],
)
def test_a_large_webp_is_refused_before_its_decoder_takes_memory(mode, options, monkeypatch):
    """Whichever of the three headers it has: a decoder that is only made takes eight bytes a pixel."""
    data = _bytes(Image.new(mode, (40, 30), "red"), "WEBP", **options)
    monkeypatch.setenv("VLC_MAX_PIXELS", "1200")
    assert open_image(data).size == (40, 30)
    monkeypatch.setenv("VLC_MAX_PIXELS", "1199")
    monkeypatch.setattr("PIL._webp.WebPAnimDecoder", lambda *_: pytest.fail("a decoder was made"))
    with pytest.raises(UndecodableImage, match="more than 1,199 pixels"):
        open_image(data)


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_of_pixels_is_the_users(kind, decoder, monkeypatch):
    data = _bytes(Image.new("RGB", (40, 30)), kind)
    monkeypatch.setenv("VLC_MAX_PIXELS", "1199")
    with pytest.raises(UndecodableImage, match="more than 1,199 pixels"):
        open_image(data)
    monkeypatch.setenv("VLC_MAX_PIXELS", "1200")
    assert open_image(data).size == (40, 30)
    monkeypatch.setenv("VLC_MAX_PIXELS", "many")
    with pytest.raises(UserError, match="VLC_MAX_PIXELS=many should be a whole number"):
        open_image(data)


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


@pytest.mark.parametrize("kind", KINDS)
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
    with Image.open(io.BytesIO(data)) as turned:
        turned = ImageOps.exif_transpose(turned).convert("RGB")
    assert np.abs(np.asarray(to_pil(image)).astype(int) - np.asarray(turned)).max() <= (1 if kind == "JPEG" else 0)
    assert image.size == (96, 64)
    assert np.abs(np.asarray(to_pil(image)).astype(int) - np.asarray(_corners())).mean() < 3
    expected = resized_crop(_corners(), (48, 0, 96, 64), 16).pixels.int()  # green above white
    assert (resized_crop(open_image(data), (48, 0, 96, 64), 16).pixels.int() - expected).abs().float().mean() < 6


@pytest.mark.parametrize("size", [(1, 9), (9, 1)])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_side_of_one_pixel_can_be_turned(orientation, size, decoder):
    """PyTorch takes no array with a negative stride, which such a side may have."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = open_image(_bytes(Image.new("RGB", size, "red"), "JPEG", exif=exif))
    assert resized_crop(turned, None, 16).pixels.shape == (3, 16, 16)


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
    """Less than a grey level away at full scale, less than two where the image was decoded at a smaller one.

    The edges of the boxes are multiples of every scale.
    """
    data = _bytes(photograph(*shape), "JPEG", quality=90)
    pillow, jpeg = Image.open(io.BytesIO(data)).convert("RGB"), open_image(data)
    assert isinstance(jpeg, Jpeg)
    whole = (0, 0, shape[0] // 8 * 8, shape[1] // 8 * 8)  # multiples of every scale
    for box in (whole, (16, 8, whole[2] - 16, whole[3] - 24)):
        for size, most in ((32, 2), (128, 2), (224, 2), (384, 2), (min(shape) - 50, 0.8), (max(shape) + 50, 0.1)):
            difference = resized_crop(jpeg, box, size).pixels.int() - resized_crop(pillow, box, size).pixels.int()
            assert difference.abs().float().mean() < most, (box, size)


def _emoji_sheet(across: int, down: int, first: int) -> Image.Image:
    """Flat colours with hard edges: the embedded pictures side by side."""
    sprites, sheet = emoji.packaged()["image"], Image.new("RGB", (across * 64, down * 64), "white")
    for number in range(across * down):
        sprite = emoji.open_sprite(sprites[(first + number) % len(sprites)].as_py())
        sheet.paste(emoji.on_white(sprite), (number % across * 64, number // across * 64))
    return sheet


@pytest.mark.parametrize(
    ("kind", "most_at_full_scale", "most_on_average", "most"), [("photographs", 1, 3, 7), ("emoji", 3, 4, 12)]
)
def test_random_crops_stay_as_near_to_the_published_pixels_as_data_md_says(
    kind, most_at_full_scale, most_on_average, most
):
    """Edges of a crop lie between the pixels of a smaller scale, which is most of the difference."""
    rng, found = np.random.default_rng(0), {True: [], False: []}
    for number in range(18):
        if kind == "photographs":
            picture = photograph(*rng.integers(300, 1000, size=2).tolist(), seed=number)
        else:
            picture = _emoji_sheet(*rng.integers(6, 18, size=2).tolist(), first=number * 90)
        data = _bytes(picture, "JPEG", quality=90)
        pillow, jpeg = Image.open(io.BytesIO(data)).convert("RGB"), open_image(data)
        for size in (48, 96, 160):
            box = crop_box(*picture.size, rng, (0.8, 1.0))
            difference = resized_crop(jpeg, box, size).pixels.int() - resized_crop(pillow, box, size).pixels.int()
            smaller = min(box[2] - box[0], box[3] - box[1]) >= 4 * size
            found[smaller].append(difference.abs().float().mean().item())
    assert len(found[True]) > 20
    assert max(found[False]) < most_at_full_scale
    assert np.mean(found[True]) < most_on_average
    assert max(found[True]) < most


def test_jpegs_are_decoded_at_a_smaller_scale_where_that_is_enough(decoder):
    jpeg = open_image(_bytes(photograph(800, 600), "JPEG"))
    assert jpeg.crop((0, 0, 800, 600), 224)[0].shape == (600, 800, 3)
    assert jpeg.crop((0, 0, 800, 600), 150)[0].shape == (300, 400, 3)
    assert jpeg.crop((0, 0, 800, 600), 37)[0].shape == (75, 100, 3)


def test_mirrored_crops():
    image = open_image(_bytes(_corners(), "JPEG"))
    plain, mirrored = (resized_crop(image, None, 16, flip=flip).pixels for flip in (False, True))
    assert torch.equal(plain.flip(-1), mirrored)
