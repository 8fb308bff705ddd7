"""Sequences without their padding."""

import torch

from vlc.model.packing import Packing


def test_real_tokens_are_kept_sequence_by_sequence_and_come_back():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0]])
    tokens = torch.arange(12.0).view(4, 3, 1)
    packing = Packing.on_host(mask)
    assert packing.pattern.lengths == (1, 1, 2, 3)
    assert sorted(packing.order[:2].tolist()) == [1, 3]
    assert packing.pack(tokens).flatten().tolist()[2:] == [6, 7, 0, 1, 2]
    assert torch.equal(packing.unpack(packing.pack(tokens)), tokens * mask[:, :, None])
    starts = packing.pack(tokens)[[0, 1, 2, 4]]
    assert packing.in_order(starts).flatten().tolist() == [0, 3, 6, 9]
    assert not packing.is_full


def test_a_device_is_told_how_many_tokens_are_real():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 0, 1]]).bool()
    tokens = torch.arange(9.0).view(3, 3, 1)
    packing = Packing.on_device(mask, 6)
    assert packing.pack(tokens).flatten().tolist() == [0, 1, 2, 3, 6, 8]
    assert packing.pattern.starts.tolist() == [0, 3, 4, 6]
    assert packing.pattern.starts.dtype == torch.int32
    assert packing.pattern.longest == 3
    assert torch.equal(packing.unpack(packing.pack(tokens)), tokens * mask[:, :, None])
    first = packing.pack(tokens)[[0, 3, 4]]
    assert torch.equal(packing.in_order(first), first)


def test_nothing_to_leave_out():
    assert Packing.on_host(torch.ones(2, 3)).is_full


def test_gaps_may_be_anywhere():
    packing = Packing.on_host(torch.tensor([[1, 0, 1]]))
    assert packing.rows.tolist() == [0, 2]
