"""What GPUs compute over packed sequences, on any device."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vlc.model import encoder, patterns


def plain_varlen_attn(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    query_starts: Tensor,
    key_starts: Tensor,
    longest_query: int,
    longest_key: int,
) -> Tensor:
    """`torch.nn.attention.varlen.varlen_attn` of (N, heads, D), one sequence after the other."""
    mixed = []
    for first, last, first_key, last_key in zip(
        query_starts[:-1], query_starts[1:], key_starts[:-1], key_starts[1:], strict=True
    ):
        assert last - first <= longest_query
        assert last_key - first_key <= longest_key
        parts = queries[first:last], keys[first_key:last_key], values[first_key:last_key]
        mixed.append(F.scaled_dot_product_attention(*(part.transpose(0, 1) for part in parts)).transpose(0, 1))
    assert last == len(queries)
    assert last_key == len(keys) == len(values)
    return torch.cat(mixed)


def pack_as_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every device pack sequences as GPUs do in half precision."""
    monkeypatch.setattr(encoder, "has_flash_attention", lambda device: True)
    monkeypatch.setattr(patterns, "varlen_attn", plain_varlen_attn)
