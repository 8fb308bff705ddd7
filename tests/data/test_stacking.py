"""Images of several shapes as one tensor."""

import torch

from vlc.data.stacking import padded_alike, stack_images


def test_images_of_several_shapes_are_padded_and_say_so():
    images = [torch.full((3, *shape), 9, dtype=torch.uint8) for shape in ((2, 5), (4, 3), (4, 4))]
    batch = {"pairs": stack_images([images[:2], images[1:]]), "others": stack_images([images[2:], images[:1]])}
    batch = padded_alike(batch)
    pairs, sizes = batch["pairs"].pixels, batch["pairs"].sizes
    others, other_sizes = batch["others"].pixels, batch["others"].sizes
    assert pairs.shape == (2, 2, 3, 4, 5)
    assert others.shape == (2, 1, 3, 4, 5)
    assert sizes.height_width.tolist() == [[[2, 5], [4, 3]], [[4, 3], [4, 4]]]
    assert other_sizes.height_width.tolist() == [[[4, 4]], [[2, 5]]]
    assert sizes.largest == other_sizes.largest == 16
    shown = (pairs == 9).all(2)
    assert shown[0, 0, :2, :5].all()
    assert shown.sum((2, 3)).tolist() == [[10, 12], [12, 16]]


def test_images_of_one_shape_have_no_sizes():
    images = stack_images([[torch.zeros(3, 4, 6)], [torch.ones(3, 4, 6)]])
    assert images.pixels.shape == (2, 1, 3, 4, 6)
    assert images.sizes is None
    assert padded_alike({"one": images, "other": images})["other"] is images


def test_images_of_one_shape_beside_others_of_another_are_padded():
    small, large = (stack_images([[torch.full((3, *shape), 9, dtype=torch.uint8)]]) for shape in ((2, 5), (4, 3)))
    small, large = padded_alike({"a": small, "b": large}).values()
    assert small.pixels.shape == large.pixels.shape == (1, 1, 3, 4, 5)
    assert small.sizes.height_width.tolist() == [[[2, 5]]]
    assert large.sizes.height_width.tolist() == [[[4, 3]]]
    assert small.sizes.largest == large.sizes.largest == 12
    assert (small.pixels == 9).sum() == 3 * 10


def test_a_batch_has_the_order_of_its_images_in_memory():
    """Pipelines leave the colours of a pixel together: a copy into planes would cost a tenth of their time."""
    image = torch.arange(24, dtype=torch.uint8).reshape(2, 4, 3).permute(2, 0, 1)
    stacked = stack_images([[image, image + 1], [image + 2, image + 3]]).pixels
    assert stacked.movedim(2, -1).is_contiguous()
    assert torch.equal(stacked[1, 0], image + 2)
    planes = stack_images([[image.contiguous()], [image]]).pixels
    assert planes.is_contiguous()
    assert torch.equal(planes[1, 0], image)
