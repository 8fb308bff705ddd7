"""Attention patterns: which tokens attend to which, each with the products that compute it fast.

A sequence is padded (B, L, D), or packed: the real tokens of all sequences as rows (N, D) (`vlc.model.packing`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn


class AttentionPattern(ABC):
    """One object that every block takes: it decides who attends to whom and how the tokens are laid out."""

    @abstractmethod
    def attend(self, qkv: Tensor, heads: int) -> Tensor:
        """Mix values: queries, keys and values side by side (B, L, 3 * D) -> (B, L, D); packed (N, 3 * D) -> (N, D)."""

    @abstractmethod
    def attend_first(self, queries: Tensor, keys_values: Tensor, heads: int) -> Tensor:
        """Mix values for the first token of each sequence alone.

        queries: (B, D), one for each sequence.
        keys_values: keys and values side by side, (B, L, 2 * D) or packed (N, 2 * D).
        Returns (B, D), in the order of the queries.
        """

    @abstractmethod
    def first_tokens(self, tokens: Tensor) -> Tensor:
        """Return the first token of each padded (B, L, D) or packed (N, D) sequence, (B, D)."""


@dataclass(frozen=True, eq=False)
class MaskedAttention(AttentionPattern):
    """Sequences of one length with a mask.

    mask: (B, 1, 1 or L, L) bool by query and key, True = the query attends to the key; None: all attend to all.
    """

    mask: Tensor | None = None

    def attend(self, qkv: Tensor, heads: int) -> Tensor:
        if prefers_batched_matmul(qkv):
            return BatchedMatmulAttention.apply(qkv, heads, self.mask)
        queries, keys, values = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=self.mask).transpose(1, 2).flatten(2)

    def attend_first(self, queries: Tensor, keys_values: Tensor, heads: int) -> Tensor:
        keys, values = keys_values.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        queries = queries.unflatten(-1, (heads, -1))[:, :, None]
        mask = None if self.mask is None else self.mask[:, :, :1]
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask).flatten(1)

    def first_tokens(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


FULL = MaskedAttention()


def padded(mask: Tensor) -> MaskedAttention:
    """Return the pattern that hides padding from all tokens; mask (B, L), nonzero = real."""
    return MaskedAttention(mask.bool()[:, None, None, :])


def grouped(starts_group: Tensor, mask: Tensor | None = None) -> MaskedAttention:
    """Return the pattern in which a token attends to its own group and to all groups before it.

    All zeros give full attention. All ones give causal attention. A prefix of zeros followed by ones gives a prefix
    whose tokens see each other, and targets that see the prefix and the targets before them.

    starts_group: (B, L) int, 1 = a new group starts at this token.
    mask: (B, L), nonzero = real; None: there is no padding. The first token of each sequence must be real.
    """
    groups = starts_group.cumsum(1)
    allowed = groups[:, None, :] <= groups[:, :, None]
    if mask is not None:
        allowed = allowed & mask.bool()[:, None, :]
    return MaskedAttention(allowed[:, None])


def branched(branches: Tensor, mask: Tensor | None = None) -> MaskedAttention:
    """Return the pattern of a trunk with branches: each branch sees the trunk and itself, and the trunk sees itself alone.

    So what all branches share is computed once, and a branch does not depend on the others.

    branches: (B, L) int, 0 = a token of the trunk, otherwise the number of the token's branch.
    mask: (B, L), nonzero = real; None: there is no padding.
    """
    seen, sees = branches[:, None, :], branches[:, :, None]
    allowed = (seen == 0) | (seen == sees)
    if mask is not None:
        allowed = allowed & mask.bool()[:, None, :]
    return MaskedAttention(allowed[:, None])


@dataclass(frozen=True, eq=False)
class SequenceLengths(AttentionPattern):
    """Packed sequences whose lengths the host knows.

    lengths: of the sequences in their order. Neighbours of equal length are computed as one batch, so sorted lengths
    are the fastest.
    """

    lengths: tuple[int, ...]

    def attend(self, qkv: Tensor, heads: int) -> Tensor:
        return torch.cat([FULL.attend(part, heads).flatten(0, 1) for part in self._split(qkv)])

    def attend_first(self, queries: Tensor, keys_values: Tensor, heads: int) -> Tensor:
        parts = zip(queries.split([count for count, _ in self._runs()]), self._split(keys_values), strict=True)
        return torch.cat([FULL.attend_first(*part, heads) for part in parts])

    def first_tokens(self, tokens: Tensor) -> Tensor:
        return torch.cat([part[:, 0] for part in self._split(tokens)])

    def _runs(self) -> list[tuple[int, int]]:
        """Runs of equal lengths: how many, how long."""
        return [(len(list(run)), length) for length, run in groupby(self.lengths)]

    def _split(self, rows: Tensor) -> list[Tensor]:
        """Packed rows (N, D) -> a part (count, length, D) for each run of equal lengths."""
        runs = self._runs()
        parts = rows.split([count * length for count, length in runs])
        return [part.unflatten(0, run) for part, run in zip(parts, runs, strict=True)]


@dataclass(frozen=True, eq=False)
class CumulativeLengths(AttentionPattern):
    """Packed sequences whose lengths only a device knows; flash attention computes them at once.

    starts: (B + 1,) int32, the row at which each sequence starts; the last value is the number of rows.
    longest: no sequence has more rows than this.
    """

    starts: Tensor
    longest: int

    def attend(self, qkv: Tensor, heads: int) -> Tensor:
        queries, keys, values = qkv.unflatten(-1, (3, heads, -1)).unbind(1)
        ends = (self.starts, self.starts, self.longest, self.longest)
        return varlen_attn(queries, keys, values, *ends).flatten(1)  # type: ignore[union-attr]  # a tuple only with return_aux

    def attend_first(self, queries: Tensor, keys_values: Tensor, heads: int) -> Tensor:
        keys, values = keys_values.unflatten(-1, (2, heads, -1)).unbind(1)
        alone = torch.arange(len(queries) + 1, dtype=torch.int32, device=queries.device)
        queries = queries.unflatten(-1, (heads, -1))
        ends = (alone, self.starts, 1, self.longest)
        return varlen_attn(queries, keys, values, *ends).flatten(1)  # type: ignore[union-attr]  # as above

    def first_tokens(self, tokens: Tensor) -> Tensor:
        return tokens.index_select(0, self.starts[:-1])


def prefers_batched_matmul(qkv: Tensor) -> bool:
    """Whether batched products are faster: torch's attention in bfloat16 on CPUs computes one tile at a time, slowly."""
    return qkv.device.type == "cpu" and qkv.dtype == torch.bfloat16


class BatchedMatmulAttention(torch.autograd.Function):
    """Attention as batched products with all weights in memory; softmax is torch's, which sums in float32."""

    @staticmethod
    def forward(ctx, qkv: Tensor, heads: int, mask: Tensor | None) -> Tensor:
        batch, length, _ = qkv.shape
        with torch.autocast("cpu", enabled=False):
            queries, keys, values = parts = _by_head(qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4))
            scores = _scaled_product(queries, keys.transpose(1, 2), queries.shape[-1] ** -0.5)
            if mask is not None:
                scores.view(batch, heads, length, length).masked_fill_(~mask, float("-inf"))
            weights = scores.softmax(-1)
            mixed = torch.bmm(weights, values)
        ctx.save_for_backward(parts, weights)
        return mixed.view(batch, heads, length, -1).transpose(1, 2).flatten(2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        parts, weights = ctx.saved_tensors
        queries, keys, values = parts
        heads, scale = len(weights) // len(grad), queries.shape[-1] ** -0.5
        with torch.autocast("cpu", enabled=False):
            grad = _by_head(grad.unflatten(-1, (heads, -1)).transpose(1, 2))
            for_weights = torch.bmm(grad, values.transpose(1, 2))
            for_scores = torch._softmax_backward_data(for_weights, weights, -1, weights.dtype)
            for_parts = torch.stack(
                [
                    _scaled_product(for_scores, keys, scale),
                    _scaled_product(for_scores.transpose(1, 2), queries, scale),
                    torch.bmm(weights.transpose(1, 2), grad),
                ]
            )
        return for_parts.unflatten(1, (-1, heads)).permute(1, 3, 0, 2, 4).flatten(2), None, None


def _by_head(parts: Tensor) -> Tensor:
    """(..., B, heads, L, D) -> (..., B * heads, L, D), contiguous."""
    return parts.flatten(-4, -3).contiguous()


def _scaled_product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    return torch.baddbmm(left.new_empty(()), left, right, beta=0, alpha=scale)
