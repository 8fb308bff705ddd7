"""Boxes stay on what they enclose, whatever a pipeline does to the picture."""

import io

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from vlc.data import images, transforms
from vlc.data.geometry import Placement
from vlc.data.images import open_image
from vlc.data.transforms import RANDAUGMENT_OPS, TRANSFORMS, randaugment_move, randaugment_op, transform

SIDE = 64  # pixels of the prepared images
TURNED = {  # what is stored of an upright picture, by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
# Upright sizes: odd, tiny, and so large that a JPEG is decoded at 1/2, 1/4 and 1/8 of its size.
SIZES = [(61, 45), (17, 30), (301, 277), (275, 803), (1051, 1093)]


def _encoded(picture: Image.Image, kind: str, orientation: int = 1) -> pa.Buffer:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    stored = picture.transpose(TURNED[orientation]) if orientation > 1 else picture
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    stored.save(buffer, kind, exif=exif, **options)
    return pa.py_buffer(buffer.getvalue())


def _box(size: tuple[int, int], rng: np.random.Generator, margin: int = 1) -> list[int]:
    """A box anywhere in a picture, an eighth to a half of its sides large, that stays away from the border."""
    edges = []
    for side in size:
        length = int(rng.integers(max(2, side // 8), side // 2))
        first = int(rng.integers(margin, side - length - margin + 1))
        edges.append((first, first + length))
    (left, right), (top, bottom) = edges
    return [left, top, right, bottom]


def _drawn(size: tuple[int, int], box: list[int]) -> Image.Image:
    """White in a dark grey picture: levels that no operation of RandAugment makes alike."""
    picture = Image.new("RGB", size, (48, 48, 48))
    picture.paste((255, 255, 255), tuple(box))
    return picture


def _edges(pixels: torch.Tensor) -> np.ndarray | None:
    """The box around what is light, between pixels where a border pixel is lighter or darker; None: nothing is."""
    light = (pixels.float().mean(dim=0).numpy() - 48) / (255 - 48)
    if light.max() < 0.5:
        return None
    rows, columns = light.max(axis=1), light.max(axis=0)
    found = []
    for profile in (columns, rows):
        inside = np.flatnonzero(profile >= 0.5)
        found.append((inside[0], inside[-1] + 1))
    return np.array([found[0][0], found[1][0], found[0][1], found[1][1]], dtype=float)


def _only_moves(monkeypatch, operations: tuple[str, ...]) -> None:
    """Let the other operations of RandAugment do nothing: they change the colours that a box is found by."""

    def operate(image, name, sign):
        return randaugment_op(image, name, sign) if name in operations else image

    def move(name, sign, size):
        return randaugment_move(name, sign, size) if name in operations else None

    monkeypatch.setattr(transforms, "randaugment_op", operate)
    monkeypatch.setattr(transforms, "randaugment_move", move)


def _differences(name: str, size: tuple[int, int], kind: str, orientation: int, seeds: range) -> float:
    """The largest distance in pixels of the found from the mapped edges, over several boxes and draws."""
    pipeline, largest = transform(name, SIDE), 0.0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        # `shift` repeats the border: what touches it grows.
        box = _box(size, rng, margin=max(size) // SIDE + 1 if name == "shift" else 1)
        pixels, placement = pipeline(open_image(_encoded(_drawn(size, box), kind, orientation)), rng)
        (mapped,) = placement.boxes(np.array([box]))
        found = _edges(pixels)
        sides = mapped[2:] - mapped[:2]
        if found is None:
            assert sides.min() < 1.5, (seed, box, mapped)
        elif sides.min() >= 1:
            largest = max(largest, np.abs(found - mapped).max())
        if sides.min() <= 0:
            assert found is None or (found[2:] - found[:2]).min() <= 2, (seed, box, found)
    return largest


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_coloured_box_is_where_its_mapped_box_is(name, size, monkeypatch):
    _only_moves(monkeypatch, ("TranslateX", "TranslateY"))
    for kind in ("PNG", "JPEG"):
        assert _differences(name, size, kind, 1, range(12 if max(size) < 500 else 3)) <= 1


def _ramps(size: tuple[int, int]) -> Image.Image:
    """The place of each pixel as its colour: red from left to right, green from top to bottom."""
    width, height = size
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[..., 0] = np.rint(np.linspace(0, 255, width))
    pixels[..., 1] = np.rint(np.linspace(0, 255, height))[:, None]
    return Image.fromarray(pixels)


@pytest.mark.parametrize("decoder", ["simplejpeg", "Pillow"])
@pytest.mark.parametrize("orientation", [1, *TURNED])
@pytest.mark.parametrize("size", [(261, 259), (131, 135), (66, 67), (33, 35)], ids=str)
def test_the_map_of_a_scaled_jpeg_is_exact(size, orientation, decoder, monkeypatch):
    """In stored pixels. The last pixel of a scaled row is partly outside the picture; in a turned picture it is the first.

    The sizes are decoded at 1/8, 1/4, 1/2 and in full.
    """
    if decoder == "Pillow":
        monkeypatch.setattr(images, "simplejpeg", None)
    picture = open_image(_encoded(_ramps(size), "JPEG", orientation))
    for name, seeds in (("mae_test", 1), ("mae", 4), ("pixelbert", 1)):
        for seed in range(seeds):
            pixels, placement = transform(name, 16 if name != "pixelbert" else 32)(picture, np.random.default_rng(seed))
            rows, columns = (np.arange(side) + 0.5 for side in pixels.shape[1:])
            points = np.stack(np.broadcast_arrays(columns, rows[:, None], 1))
            expected = np.einsum("ij,jhw->ihw", placement.inverse(), points)
            found = pixels[:2].numpy() / 255 * (np.array(size)[:, None, None] - 1) + 0.5
            inner = (found - expected)[:, 3:-3, 3:-3]  # filters stop at the border
            assert np.abs(inner.mean(axis=(1, 2))).max() < 0.3, (name, seed)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", RANDAUGMENT_OPS)
def test_the_maps_of_randaugment_are_exact(name, sign):
    """Each operation that moves pixels takes them from where its map says, and no other operation moves any."""
    size = (171, 130)
    moved = np.asarray(randaugment_op(_ramps(size), name, sign)).astype(float)
    move = randaugment_move(name, sign, size)
    if move is None:
        assert name not in ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
        return
    y, x = np.mgrid[: size[1], : size[0]] + 0.5
    expected = np.einsum("ij,jhw->ihw", Placement(move, size).inverse(), np.stack([x, y, np.ones_like(x)]))
    found = moved[..., :2].transpose(2, 0, 1) / 255 * (np.array(size)[:, None, None] - 1) + 0.5
    shown = moved[..., 2] == 128
    assert 0.4 < shown.mean() < 1
    difference = (found - expected)[:, shown]
    assert np.abs(difference).max() < 1
    assert np.abs(difference.mean(axis=1)).max() < 0.05


@pytest.mark.parametrize("name", ["mae_randaug", "pixelbert_randaug"])
def test_a_box_that_is_turned_lies_in_the_box_around_its_corners(name, monkeypatch):
    _only_moves(monkeypatch, transforms.MOVING_OPS)
    pipeline, equal = transform(name, SIDE), 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        box = _box((201, 166), rng)
        pixels, placement = pipeline(_drawn((201, 166), box), rng)
        (mapped,) = placement.boxes(np.array([box]))
        if (found := _edges(pixels)) is not None:
            assert (found[:2] > mapped[:2] - 1).all(), seed
            assert (found[2:] < mapped[2:] + 1).all(), seed
            equal += np.abs(found - mapped).max() <= 1.5
        else:
            assert (mapped[2:] - mapped[:2]).min() < 4, seed
    assert equal > 130


def test_boxes_of_the_golden_file(golden):
    stored = np.load(golden / "tasks/regions/boxes.npz")
    boxes, size = stored["boxes"], tuple(stored["size_wh"].astype(int).tolist())
    limits = np.array([*size, *size])
    whole = Placement.whole(size)
    np.testing.assert_allclose(whole.boxes(boxes), stored["clipped"])
    np.testing.assert_allclose(whole.mirror().boxes(boxes), stored["flipped_continuous"].clip(0, limits))
    resized = Placement.of_crop((0, 0, *size), (384, 256))
    np.testing.assert_allclose(resized.boxes(boxes), stored["resized_to_384x256"].clip(0, 4 * limits))
    padded = resized.then(np.array([[1, 0, 0], [0, 1, 64]]), (384, 320))
    inside = stored["then_padded_64_rows_on_top"][:4]  # the last one sticks out of the picture
    np.testing.assert_allclose(padded.boxes(boxes)[:4], inside)


def test_what_has_left_the_image_on_the_way_has_no_area():
    """Pixels that a step moved out are lost, also where the next step moves them back or turns them."""
    right, back = (np.array([[1.0, 0, by], [0, 1, 0]]) for by in (30, -30))
    moved = Placement.whole((100, 80)).then(right, (100, 80))
    boxes = np.array([[75, 10, 95, 20], [60, 10, 90, 20], [10, 10, 20, 20]])
    assert moved.boxes(boxes).tolist() == [[100, 10, 100, 20], [90, 10, 100, 20], [40, 10, 50, 20]]
    assert moved.then(back, (100, 80)).boxes(boxes).tolist() == [[70, 10, 70, 10], [60, 10, 70, 20], [10, 10, 20, 20]]
    turned = moved.then(randaugment_move("Rotate", 1, (100, 80)), (100, 80)).boxes(boxes)
    areas = np.prod(turned[:, 2:] - turned[:, :2], axis=1)
    assert areas[0] == 0
    assert (areas[1:] > 0).all()
    assert moved.boxes(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize("name", ["keep_shape", "keep_shape_flip", "keep_shape_randaug"])
@pytest.mark.parametrize("size", [(61, 45), (45, 300), (500, 1)], ids=str)
def test_pictures_that_keep_their_shape_are_padded_below_and_on_the_right(name, size):
    mirrored = []
    for seed in range(8):
        picture = Image.new("RGB", size, (0, 200, 90))
        pixels, placement = transform(name, SIDE)(picture, np.random.default_rng(seed))
        width, height = placement.size
        assert pixels.shape == (3, SIDE, SIDE)
        assert max(placement.size) == SIDE
        assert abs(width / height - size[0] / size[1]) < 0.02 or min(placement.size) <= 10
        assert not pixels[:, height:].any()
        assert not pixels[:, :, width:].any()
        assert pixels[:, :height, :width].any()
        mirrored.append(placement.mirrored)
    assert any(mirrored) == (name != "keep_shape")
    assert not all(mirrored)
