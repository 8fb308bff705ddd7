"""Attention of a ViT block over padded or packed sequences, by the products that are fast where it runs.

Packed: the real tokens of all sequences as rows (N, D), without padding (`vlc.model.packing`).
"""

from collections.abc import Iterator
from itertools import groupby

import torch
import torch.nn.functional as F
from timm.layers import Attention as TimmAttention
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from vlc.hardware.onednn import OneDNNLinear, linear
from vlc.model.packing import Lengths, Starts


class Attention(TimmAttention):
    """timm's attention, its parameters and its values, also for packed sequences and for single queries."""

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        spans: Lengths | Starts | None = None,
    ) -> Tensor:
        """Tokens (B, L, D), with attn_mask (B, 1, 1, L) bool, True = attend; or packed (N, D) with their spans."""
        assert not is_causal
        qkv = self.qkv(x)
        if spans is None:
            mixed = attend(qkv, self.num_heads, attn_mask)
        else:
            mixed = attend_packed(qkv, self.num_heads, spans)
        return self.proj_drop(self.proj(mixed))

    def first(self, x: Tensor, attn_mask: Tensor | None = None, spans: Lengths | Starts | None = None) -> Tensor:
        """What `forward` gives for the first token of each sequence, (B, D)."""
        product = linear if isinstance(self.qkv, OneDNNLinear) else F.linear
        parts = (self.attn_dim, 2 * self.attn_dim)
        (for_queries, for_others), (bias, biases) = self.qkv.weight.split(parts), self.qkv.bias.split(parts)
        queries, others = product(first_tokens(x, spans), for_queries, bias), product(x, for_others, biases)
        if spans is None:
            mixed = _attend_first(queries, others, attn_mask, self.num_heads)
        elif isinstance(spans, Starts):
            mixed = _attend_first_of_spans(queries, others, spans, self.num_heads)
        else:
            queries = queries.split([count for count, _ in _groups(spans)])
            pairs = zip(queries, _split(others, spans), strict=True)
            mixed = torch.cat([_attend_first(*pair, None, self.num_heads) for pair in pairs])
        return self.proj_drop(self.proj(mixed))


def first_tokens(x: Tensor, spans: Lengths | Starts | None) -> Tensor:
    """The first token of each padded (B, L, D) or packed (N, D) sequence: (B, D)."""
    if spans is None:
        return x[:, 0]
    if isinstance(spans, Starts):
        return x.index_select(0, spans.places[:-1])
    return torch.cat([part[:, 0] for part in _split(x, spans)])


def attends_to_spans(device: torch.device) -> bool:
    """Whether sequences of any lengths are attended to at once: by flash attention, which computes in half precision."""
    if device.type != "cuda" or not torch.is_autocast_enabled("cuda"):
        return False
    return torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability(device) >= (8, 0)


def attend(qkv: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Queries, keys and values side by side (B, L, 3 * D), mask (B, 1, 1, L) bool -> mixed values (B, L, D)."""
    if _in_products(qkv):
        return _Products.apply(qkv, heads, mask)
    queries, keys, values = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask).transpose(1, 2).flatten(2)


def attend_packed(qkv: Tensor, heads: int, spans: Lengths | Starts) -> Tensor:
    """The same for packed sequences: (N, 3 * D) -> (N, D)."""
    if isinstance(spans, Starts):
        queries, keys, values = qkv.unflatten(-1, (3, heads, -1)).unbind(1)
        ends = (spans.places, spans.places, spans.longest, spans.longest)
        return varlen_attn(queries, keys, values, *ends).flatten(1)
    return torch.cat([attend(part, heads).flatten(0, 1) for part in _split(qkv, spans)])


def _attend_first(queries: Tensor, others: Tensor, mask: Tensor | None, heads: int) -> Tensor:
    """A query (B, D) for each sequence, keys and values (B, L, 2 * D) -> (B, D)."""
    keys, values = others.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    queries = queries.unflatten(-1, (heads, -1))[:, :, None]
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask).flatten(1)


def _attend_first_of_spans(queries: Tensor, others: Tensor, spans: Starts, heads: int) -> Tensor:
    """The same for packed keys and values (N, 2 * D)."""
    keys, values = others.unflatten(-1, (2, heads, -1)).unbind(1)
    alone = torch.arange(len(queries) + 1, dtype=torch.int32, device=queries.device)
    mixed = varlen_attn(queries.unflatten(-1, (heads, -1)), keys, values, alone, spans.places, 1, spans.longest)
    return mixed.flatten(1)


def _groups(lengths: Lengths) -> Iterator[tuple[int, int]]:
    """Runs of equal lengths: how many, how long."""
    return ((len(list(run)), length) for length, run in groupby(lengths))


def _split(rows: Tensor, lengths: Lengths) -> list[Tensor]:
    """Packed rows (N, D) -> a part (count, length, D) for each run of equal lengths."""
    groups = list(_groups(lengths))
    parts = rows.split([count * length for count, length in groups])
    return [part.unflatten(0, group) for part, group in zip(parts, groups, strict=True)]


def _in_products(qkv: Tensor) -> bool:
    """In bfloat16 on CPUs torch's attention computes its products one tile at a time, slowly; batched ones are fast."""
    return qkv.device.type == "cpu" and qkv.dtype == torch.bfloat16


class _Products(torch.autograd.Function):
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
