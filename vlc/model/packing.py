"""Sequences without their padding, for devices on which it would be computed on."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the real tokens of padded sequences are.

    rows (N,) int64: their places among all B * S, sequence by sequence, those of equal length side by side; lengths: of
    the sequences in this order; order (B,) int64: which sequences they are; size: B and S.
    """

    rows: Tensor
    lengths: tuple[int, ...]
    order: Tensor
    size: tuple[int, int]

    @classmethod
    def of(cls, mask: Tensor) -> "Packing":
        """From a mask (B, S), nonzero = real; every sequence has a token."""
        order = mask.sum(1).argsort()
        real = mask[order].nonzero()
        lengths = torch.bincount(real[:, 0], minlength=len(mask))
        return cls(order[real[:, 0]] * mask.shape[1] + real[:, 1], tuple(lengths.tolist()), order, tuple(mask.shape))

    @property
    def is_full(self) -> bool:
        """Whether there is no padding."""
        return len(self.rows) == self.size[0] * self.size[1]

    def pack(self, tokens: Tensor) -> Tensor:
        """(B, S, D) -> (N, D)."""
        return tokens.flatten(0, 1).index_select(0, self.rows)

    def unpack(self, packed: Tensor) -> Tensor:
        """(N, D) -> (B, S, D), zero at padding."""
        batch, length = self.size
        return (
            packed.new_zeros(batch * length, packed.shape[1]).index_copy(0, self.rows, packed).unflatten(0, self.size)
        )

    def in_order(self, first: Tensor) -> Tensor:
        """A row (B, D) for each packed sequence -> in the order of the batch."""
        return first.index_select(0, self.order.argsort())
