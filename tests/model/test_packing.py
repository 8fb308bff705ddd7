"""Sequences without their padding."""

import torch

from vlc.model.packing import Packing


def test_real_tokens_are_kept_sequence_by_sequence_and_come_back():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0]])
    tokens = torch.arange(12.0).view(4, 3, 1)
    packing = Packing.of(mask)
    assert packing.lengths == (1, 1, 2, 3)
    assert sorted(packing.order[:2].tolist()) == [1, 3]
    assert packing.pack(tokens).flatten().tolist()[2:] == [6, 7, 0, 1, 2]
    assert torch.equal(packing.unpack(packing.pack(tokens)), tokens * mask[:, :, None])
    starts = packing.pack(tokens)[[0, 1, 2, 4]]
    assert packing.in_order(starts).flatten().tolist() == [0, 3, 6, 9]
    assert not packing.is_full


def test_nothing_to_leave_out():
    assert Packing.of(torch.ones(2, 3)).is_full


def test_gaps_may_be_anywhere():
    packing = Packing.of(torch.tensor([[1, 0, 1]]))
    assert packing.rows.tolist() == [0, 2]
