"""Attention patterns and their fast paths, against torch's attention over padded sequences in float32."""

import pytest
import torch
from torch import Tensor

from tests.model.spans import plain_varlen_attn
from vlc.model import patterns
from vlc.model.attention import has_flash_attention
from vlc.model.blocks import blocks
from vlc.model.packing import Packing
from vlc.model.patterns import FULL, grouped, padded

MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
STARTS = torch.tensor([[0, 0, 1, 0, 1]]).expand(4, 5)  # a prefix of two tokens, a group of two, a target


@pytest.fixture
def tokens() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(4, 5, 24)


def _gradient(outputs: Tensor, inputs: Tensor) -> Tensor:
    return torch.autograd.grad((outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum(), inputs)[0]


@pytest.mark.parametrize("pattern", [FULL, padded(MASK), grouped(STARTS, MASK)])
def test_products_in_bfloat16_are_close_to_float32(tokens, pattern):
    exact = tokens.requires_grad_()
    half = tokens.detach().bfloat16().requires_grad_()
    expected, found = pattern.attend(exact, 2), pattern.attend(half, 2)
    assert found.dtype == torch.bfloat16
    assert type(found.grad_fn).__name__ == "BatchedMatmulAttentionBackward"
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)
    torch.testing.assert_close(_gradient(found, half).float(), _gradient(expected, exact), atol=0.03, rtol=0.03)


@pytest.fixture(params=["host", "device"])
def packing(request, monkeypatch) -> Packing:
    monkeypatch.setattr(patterns, "varlen_attn", plain_varlen_attn)
    return Packing.on_host(MASK) if request.param == "host" else Packing.on_device(MASK.bool(), int(MASK.sum()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_sequences_attend_as_padded_ones(tokens, dtype, packing):
    real = MASK.bool()
    inputs = tokens.to(dtype).requires_grad_()
    expected = padded(MASK).attend(inputs, 2) * real[:, :, None]
    packed = packing.unpack(packing.pattern.attend(packing.pack(inputs), 2))
    close = {"atol": 1e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.02, "rtol": 0.02}
    torch.testing.assert_close(packed, expected, **close)
    torch.testing.assert_close(_gradient(packed, inputs), _gradient(expected, inputs), **close)


@pytest.mark.parametrize(
    ("capability", "half", "expected"), [((8, 0), True, True), ((7, 5), True, False), ((9, 0), False, False)]
)
def test_gpus_pack_in_half_precision_where_they_have_flash_attention(monkeypatch, capability, half, expected):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: half)
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_flash_attention(torch.device("cuda")) is expected
    assert not has_flash_attention(torch.device("cpu"))


def test_first_tokens_alone_are_those_of_the_whole_block(tokens, packing):
    (block,) = blocks(24, 1, 2, 4)
    inputs, pattern = tokens.requires_grad_(), padded(MASK)
    whole = block(inputs, pattern)[:, 0]
    alone = block.forward_first_token(inputs, pattern)
    packed = packing.in_order(block.forward_first_token(packing.pack(inputs), packing.pattern))
    parameters = [inputs, *block.parameters()]
    expected = torch.autograd.grad(whole.square().sum(), parameters)
    for first in (alone, packed):
        torch.testing.assert_close(first, whole)
        found = torch.autograd.grad(first.square().sum(), parameters)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def _sdpa(qkv: Tensor, **options) -> Tensor:
    queries, keys, values = qkv.unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
    return torch.nn.functional.scaled_dot_product_attention(queries, keys, values, **options).transpose(1, 2).flatten(2)


def test_one_group_attends_fully_and_a_group_for_each_token_causally(tokens):
    none, all_start = torch.zeros(4, 5, dtype=torch.int64), torch.ones(4, 5, dtype=torch.int64)
    torch.testing.assert_close(grouped(none).attend(tokens, 2), FULL.attend(tokens, 2))
    torch.testing.assert_close(grouped(none, MASK).attend(tokens, 2), padded(MASK).attend(tokens, 2))
    torch.testing.assert_close(grouped(all_start).attend(tokens, 2), _sdpa(tokens, is_causal=True))
    assert not torch.allclose(grouped(all_start).attend(tokens, 2), FULL.attend(tokens, 2), atol=0.01)


def test_a_prefix_sees_itself_and_a_target_sees_what_is_before_it(tokens):
    prefix = torch.tensor([[0, 0, 0, 1, 1]]).expand(4, 5)
    allowed = torch.ones(5, 5).tril().bool()
    allowed[:3, :3] = True
    torch.testing.assert_close(grouped(prefix).attend(tokens, 2), _sdpa(tokens, attn_mask=allowed))


def test_the_first_token_of_groups_is_that_of_the_whole_block(tokens):
    (block,) = blocks(24, 1, 2, 4)
    for pattern in (grouped(STARTS), grouped(STARTS, MASK), grouped(torch.ones_like(STARTS))):
        torch.testing.assert_close(block.forward_first_token(tokens, pattern), block(tokens, pattern)[:, 0])
