"""Patch dropping."""

import json

import torch

from vlc.model.masking import num_kept, random_mask, restore_patches, take_patches


def test_counts_are_the_published_ones(golden):
    for case, (kept, removed) in json.loads((golden / "tiny/mask_lengths.json").read_text()).items():
        patches, ratio = case.split(",")
        assert num_kept(int(patches), float(ratio)) == kept
        assert int(patches) - kept == removed


def test_the_smallest_noise_stays_in_order():
    mask = random_mask(torch.tensor([[0.9, 0.1, 0.5, 0.3]]), mask_ratio=0.5)
    assert mask.kept.tolist() == [[1, 3]]
    assert mask.dropped.tolist() == [[1.0, 0.0, 1.0, 0.0]]


def test_restoring_puts_kept_patches_back_and_fills_the_rest():
    tokens = torch.arange(12.0).reshape(2, 6, 1)
    mask = random_mask(torch.rand(2, 6), mask_ratio=0.5)
    restored = restore_patches(take_patches(tokens, mask.kept), torch.full((1, 1, 1), -1.0), mask.restore)
    expected = torch.where(mask.dropped.bool()[..., None], torch.tensor(-1.0), tokens)
    assert torch.equal(restored, expected)
