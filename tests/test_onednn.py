"""Linear layers through oneDNN, against torch's own."""

import copy
import shutil

import pytest
import torch
import torch.nn.functional as F

from vlc.onednn import OneDNNLinear, use_onednn


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(3, 5), (0, 5)])
def test_onednn_layers_compute_the_same(bias, rows):
    layer = torch.nn.Linear(12, 20, bias=bias)
    inputs = torch.randn(*rows, 12, requires_grad=True)
    leaves = [inputs, *layer.parameters()]
    outputs, grad = layer(inputs), torch.randn(*rows, 20)
    expected = torch.autograd.grad(outputs, leaves, grad)
    use_onednn(layer)
    assert type(layer) is OneDNNLinear
    torch.testing.assert_close(layer(inputs), outputs)
    for ours, theirs in zip(torch.autograd.grad(layer(inputs), leaves, grad), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        torch.testing.assert_close(layer(inputs), outputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(inputs).dtype == torch.bfloat16


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_onednn_layers_can_be_compiled(layer):
    inputs = torch.randn(3, 12)
    compiled = torch.compile(layer)
    expected = F.linear(inputs, layer.weight, layer.bias)
    torch.testing.assert_close(compiled(inputs), expected)
    found = torch.autograd.grad(compiled(inputs).square().sum(), layer.weight)
    torch.testing.assert_close(found, torch.autograd.grad(expected.square().sum(), layer.weight))
    with torch.no_grad():
        torch.testing.assert_close(compiled(inputs), expected)


HALF = {"atol": 0.02, "rtol": 0.02}


@pytest.fixture
def layer() -> torch.nn.Linear:
    torch.manual_seed(0)
    layer = torch.nn.Linear(12, 20)
    use_onednn(layer)
    return layer


@torch.no_grad()
@pytest.mark.parametrize("half", [False, True])
def test_packed_weights_follow_the_weights(layer, half):
    inputs, close = torch.randn(3, 2, 12), HALF if half else {}

    def expected() -> torch.Tensor:
        return inputs @ layer.weight.clone().t() + layer.bias  # a clone: autocast keeps what it made of a parameter

    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        before = layer(inputs)
        assert before.dtype == (torch.bfloat16 if half else torch.float32)
        torch.testing.assert_close(before.float(), expected().float(), **close)
        torch.testing.assert_close(layer.gelu(inputs).float(), F.gelu(expected().float()), **close)
        layer.weight.mul_(-1)  # what an optimiser or a checkpoint does
        torch.testing.assert_close(layer(inputs).float(), expected().float(), **close)
        layer.weight.data = torch.randn(20, 12)
        torch.testing.assert_close(layer(inputs).float(), expected().float(), **close)
    with torch.autocast("cpu", torch.bfloat16, enabled=not half):
        assert layer(inputs).dtype == (torch.float32 if half else torch.bfloat16)


def test_gelu_has_its_gradient_in_training(layer):
    inputs = torch.randn(3, 12)
    found = torch.autograd.grad(layer.gelu(inputs).sum(), layer.weight)
    expected = torch.autograd.grad(F.gelu(F.linear(inputs, layer.weight, layer.bias)).sum(), layer.weight)
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_packed_weights_are_not_kept_for_training_nor_copied(layer):
    layer(torch.randn(3, 12))
    assert layer._packed is not None
    assert copy.deepcopy(layer)._packed is None
    layer.train()
    assert layer._packed is None
