"""Which images texts are matched with."""

from dataclasses import replace

import pytest
import torch

from vlc.common.inputs import Images, ImageSizes
from vlc.data.batch import Batch
from vlc.data.matching import kept_images, match_labels, matched_images
from vlc.data.parts.wrong_images import WrongImageChoice

DRAWS = torch.tensor([0.9, 0.1, 0.8, 0.2])


@pytest.fixture
def batch() -> Batch:
    return Batch(
        images=Images(torch.rand(4, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))),
        index=torch.arange(4),
        split="train",
        parts={"wrong_images": WrongImageChoice(DRAWS, torch.tensor([1, 2, 3, 0]))},
    )


def test_half_of_the_examples_keep_their_image():
    assert kept_images(torch.tensor([0.9, 0.1, 0.8, 0.2])).tolist() == [0, 1, 0, 1]
    assert kept_images(torch.rand(7)).sum() == 3


def test_the_others_get_images_of_the_batch(batch):
    assert match_labels(batch).tolist() == [0, 1, 0, 1]
    images, sizes = matched_images(batch)
    shown = [next(row for row in range(4) if torch.equal(image, batch.images.pixels[row, 0])) for image in images]
    assert shown == [1, 1, 3, 3]
    assert sizes is None


def test_an_example_without_a_wrong_image_is_a_match(batch):
    batch = batch.with_parts(wrong_images=WrongImageChoice(DRAWS, torch.tensor([0, 2, 3, 0])))
    assert match_labels(batch).tolist() == [1, 1, 0, 1]
    assert torch.equal(matched_images(batch)[0][0], batch.images.pixels[0, 0])


def test_images_of_the_data_set_where_the_batch_brings_them(batch):
    others = torch.rand(4, 1, 3, 8, 8)
    images, _ = matched_images(batch.with_parts(wrong_images=WrongImageChoice(DRAWS, images=Images(others))))
    torch.testing.assert_close(images[0], others[0, 0])
    torch.testing.assert_close(images[1], batch.images.pixels[1, 0])


def test_sizes_go_with_the_images(batch):
    pixels = torch.tensor([[[8, 4]], [[8, 5]], [[8, 6]], [[8, 7]]])
    _, sizes = matched_images(replace(batch, images=replace(batch.images, sizes=ImageSizes(pixels, 56))))
    assert sizes.height_width[:, 1].tolist() == [5, 5, 7, 7]
    assert sizes.largest == 56
