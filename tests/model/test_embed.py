"""Position tables and their resizing, against the published ones."""

import numpy as np
import pytest
import torch

from vlc.model.embed import resize_positions, sincos_positions


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
