"""Attention's fast paths, against torch's attention over padded sequences in float32."""

import pytest
import torch
from torch import Tensor

from tests.model.spans import plain_varlen_attn
from vlc.model import attention
from vlc.model.attention import attend, attend_packed, attends_to_spans
from vlc.model.blocks import blocks, key_mask
from vlc.model.packing import Packing

MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])


@pytest.fixture
def tokens() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(4, 5, 24)


def _gradient(outputs: Tensor, inputs: Tensor) -> Tensor:
    return torch.autograd.grad((outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum(), inputs)[0]


@pytest.mark.parametrize("mask", [None, key_mask(MASK)])
def test_products_in_bfloat16_are_close_to_float32(tokens, mask):
    exact = tokens.requires_grad_()
    half = tokens.detach().bfloat16().requires_grad_()
    expected, found = attend(exact, 2, mask), attend(half, 2, mask)
    assert found.dtype == torch.bfloat16
    assert type(found.grad_fn).__name__ == "_ProductsBackward"
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)
    torch.testing.assert_close(_gradient(found, half).float(), _gradient(expected, exact), atol=0.03, rtol=0.03)


@pytest.fixture(params=["host", "device"])
def packing(request, monkeypatch) -> Packing:
    monkeypatch.setattr(attention, "varlen_attn", plain_varlen_attn)
    return Packing.on_host(MASK) if request.param == "host" else Packing.on_device(MASK.bool(), int(MASK.sum()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_sequences_attend_as_padded_ones(tokens, dtype, packing):
    real = MASK.bool()
    inputs = tokens.to(dtype).requires_grad_()
    padded = attend(inputs, 2, key_mask(MASK)) * real[:, :, None]
    packed = packing.unpack(attend_packed(packing.pack(inputs), 2, packing.spans))
    close = {"atol": 1e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.02, "rtol": 0.02}
    torch.testing.assert_close(packed, padded, **close)
    torch.testing.assert_close(_gradient(packed, inputs), _gradient(padded, inputs), **close)


@pytest.mark.parametrize(
    ("capability", "half", "expected"), [((8, 0), True, True), ((7, 5), True, False), ((9, 0), False, False)]
)
def test_gpus_attend_to_spans_in_half_precision_where_they_have_flash_attention(
    monkeypatch, capability, half, expected
):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: half)
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert attends_to_spans(torch.device("cuda")) is expected
    assert not attends_to_spans(torch.device("cpu"))


def test_first_tokens_alone_are_those_of_the_whole_block(tokens, packing):
    (block,) = blocks(24, 1, 2, 4)
    inputs, mask = tokens.requires_grad_(), key_mask(MASK)
    whole = block(inputs, mask)[:, 0]
    alone = block.first(inputs, mask)
    packed = packing.in_order(block.first(packing.pack(inputs), spans=packing.spans))
    parameters = [inputs, *block.parameters()]
    expected = torch.autograd.grad(whole.square().sum(), parameters)
    for first in (alone, packed):
        torch.testing.assert_close(first, whole)
        found = torch.autograd.grad(first.square().sum(), parameters)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
