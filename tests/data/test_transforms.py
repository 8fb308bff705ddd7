"""Image pipelines, against the published ones."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from vlc.data.transforms import (
    RANDAUGMENT_OPS,
    TRANSFORMS,
    crop_box,
    normalize,
    randaugment,
    randaugment_op,
    resized_crop,
    transform,
)


@pytest.fixture(scope="module")
def cases(golden):
    return torch.load(golden / "transforms/transform_cases.pt", weights_only=True)


@pytest.fixture(scope="module")
def image(golden):
    return Image.open(golden / "transforms/input_61x45.png").convert("RGB")


@pytest.mark.parametrize("name", RANDAUGMENT_OPS)
def test_randaugment_operations_are_the_published_ones(cases, image, name):
    published = {"TranslateX": "TranslateXabs", "TranslateY": "TranslateYabs"}.get(name, name)
    for sign, label in ((1, "plus"), (-1, "minus")):
        ours = pil_to_tensor(randaugment_op(image, name, sign)).permute(1, 2, 0)
        assert torch.equal(ours, cases[f"op.{published}.{label}"])


@pytest.mark.parametrize("size", [32, 64, 96])
def test_mae_test_is_exactly_the_published_pipeline(cases, image, size):
    ours = normalize(transform("mae_test", size)(image, np.random.default_rng(0)).pixels)
    torch.testing.assert_close(ours, cases[f"mae_test.{size}"], atol=1e-6, rtol=1e-6)


def test_mae_test_of_a_grey_image(cases, image):
    grey = image.convert("L").convert("RGB")
    ours = normalize(transform("mae_test", 64)(grey, np.random.default_rng(0)).pixels)
    torch.testing.assert_close(ours, cases["mae_test.64.gray_to_rgb"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("number", range(6))
def test_mae_is_exactly_the_published_pipeline_for_a_given_draw(cases, image, number):
    top, left, height, width = cases[f"mae.{number}.box_top_left_height_width"].tolist()
    box = (left, top, left + width, top + height)
    ours = normalize(resized_crop(image, box, 64, flip=bool(cases[f"mae.{number}.flip"])).pixels)
    torch.testing.assert_close(ours, cases[f"mae.{number}.out"], atol=1e-6, rtol=1e-6)


def test_crops_are_distributed_as_torchvision_draws_them():
    torch.manual_seed(0)
    canvas = torch.zeros(3, 45, 61)
    draw = torchvision.transforms.RandomResizedCrop.get_params
    theirs = np.array([draw(canvas, [0.8, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    rng = np.random.default_rng(0)
    boxes = np.array([crop_box(61, 45, rng, (0.8, 1.0)) for _ in range(4000)])
    left, top, right, bottom = boxes.T
    ours = np.stack([top, left, bottom - top, right - left], axis=1)
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=0.4)
    np.testing.assert_allclose(ours.std(0), theirs.std(0), atol=0.4)
    assert (left >= 0).all()
    assert (right <= 61).all()


def test_extreme_shapes_fall_back_to_a_central_crop():
    left, top, right, bottom = crop_box(400, 10, np.random.default_rng(0), (0.8, 1.0))
    assert (bottom - top, right - left) == (10, 13)
    assert left == (400 - 13) // 2


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_pipeline_gives_a_uint8_image_that_only_the_generator_varies(image, name):
    pipeline = transform(name, 32)
    first, again, other = (pipeline(image, np.random.default_rng(seed)).pixels for seed in (0, 0, 3))
    assert first.shape == (3, 32, 32)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name in ("mae_test", "pixelbert", "keep_shape", "central_crop"))


def test_randaugment_draws_with_replacement_from_all_operations(image, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "vlc.data.transforms.randaugment_op", lambda image, name, sign: drawn.append((name, sign)) or image
    )
    rng = np.random.default_rng(0)
    for _ in range(2000):
        randaugment(image, rng)
    names, signs = zip(*drawn, strict=True)
    assert len(drawn) == 4000
    counts = [names.count(name) / len(names) for name in RANDAUGMENT_OPS]
    assert counts == pytest.approx([1 / 14] * 14, abs=0.02)
    assert signs.count(1) / len(signs) == pytest.approx(0.5, abs=0.03)


def test_shift_moves_by_at_most_a_twentieth(image):
    plain = resized_crop(image, None, 64).pixels
    seen = set()
    for seed in range(60):
        shifted = transform("shift", 64)(image, np.random.default_rng(seed)).pixels
        inner = shifted[:, 10:50, 10:50]
        found = [
            (down, right)
            for down in range(-3, 4)
            for right in range(-3, 4)
            if torch.equal(inner, plain[:, 10 + down : 50 + down, 10 + right : 50 + right])
        ]
        assert found
        seen.update(found)
    assert len(seen) > 20


def test_normalising_leaves_float_images_alone():
    images = torch.randn(2, 3, 4, 4)
    assert normalize(images) is images
