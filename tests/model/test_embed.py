"""Position tables and their resizing, against the published ones."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from vlc.model.embed import learned_positions, resize_positions, sincos_positions


@pytest.mark.parametrize(("width", "grid"), [(64, 4), (32, 6), (768, 14)])
def test_sincos_positions_are_the_published_ones(golden, width, grid):
    expected = np.load(golden / f"posembed/sincos_{width}_{grid}_cls.npy")
    table = sincos_positions(width, grid)
    assert table.shape == (1, *expected.shape)
    np.testing.assert_allclose(table[0], expected, atol=2e-6)


def test_first_half_of_the_channels_tells_the_column():
    table = sincos_positions(8, 3)[0, 1:].reshape(3, 3, 8)
    assert torch.equal(table[0, :, :4], table[2, :, :4])
    assert torch.equal(table[:, 0, 4:], table[:, 2, 4:])
    assert not torch.equal(table[:, 0, :4], table[:, 1, :4])


def test_resizing_keeps_the_class_row_and_a_table_of_equal_size():
    table = torch.randn(1, 17, 8)
    assert torch.equal(resize_positions(table, 16), table)
    resized = resize_positions(table, 36)
    assert resized.shape == (1, 37, 8)
    assert torch.equal(resized[:, 0], table[:, 0])


def test_a_grid_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match="square"):
        resize_positions(torch.zeros(1, 13, 8), 16)


@pytest.mark.parametrize("extent", [(4, 4), (5, 3), (1, 5), (5, 1), (2, 2)])
def test_learned_positions_are_stretched_over_each_image(extent):
    table = torch.randn(1, 1 + 16, 8)
    placed = learned_positions(table, (5, 5), torch.tensor([extent, (5, 5)])).unflatten(1, (5, 5))
    square = table[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    for row, (height, width) in enumerate([extent, (5, 5)]):
        expected = interpolate(square, size=(height, width), mode="bilinear", align_corners=True)[0].permute(1, 2, 0)
        torch.testing.assert_close(placed[row, :height, :width], expected, atol=1e-5, rtol=1e-5)


def test_a_learned_table_stays_as_it_is_on_its_own_grid():
    table = torch.randn(1, 1 + 16, 8)
    assert torch.equal(learned_positions(table, (4, 4)), table[:, 1:])
    torch.testing.assert_close(learned_positions(table, (4, 4), torch.tensor([[4, 4]])), table[:, 1:])
