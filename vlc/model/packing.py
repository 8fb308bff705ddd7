"""Packing: sequences without their padding, which costs as much as real tokens."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vlc.model.patterns import AttentionPattern, CumulativeLengths, SequenceLengths


@dataclass(frozen=True)
class Packing:
    """The positions of the real tokens of padded sequences.

    rows: (N,) int64, their indices among all B * S tokens, sequence by sequence.
    pattern: the attention pattern of the packed sequences.
    order: (B,) int64, the batch row of each packed sequence; None: they are in the order of the batch.
    size: B and S.
    """

    rows: Tensor
    pattern: AttentionPattern
    order: Tensor | None
    size: tuple[int, int]

    @classmethod
    def on_host(cls, mask: Tensor) -> "Packing":
        """Build from a mask (B, S) in the host's memory, nonzero = real. Every sequence must have a real token."""
        order = mask.sum(1).argsort()
        real = mask[order].nonzero()
        lengths = torch.bincount(real[:, 0], minlength=len(mask))
        return cls(
            order[real[:, 0]] * mask.shape[1] + real[:, 1],
            SequenceLengths(tuple(lengths.tolist())),
            order,
            (mask.shape[0], mask.shape[1]),
        )

    @classmethod
    def on_device(cls, mask: Tensor, num_real: int) -> "Packing":
        """Build from a mask (B, S) bool with num_real real tokens, without a device synchronisation."""
        rows = (~mask).flatten().to(torch.int8).argsort(stable=True)[:num_real]
        starts = F.pad(mask.sum(1).cumsum(0), (1, 0)).to(torch.int32)
        return cls(rows, CumulativeLengths(starts, mask.shape[1]), None, (mask.shape[0], mask.shape[1]))

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
        """Reorder rows (B, D), one for each packed sequence, to the order of the batch."""
        return first if self.order is None else first.index_select(0, self.order.argsort())
