"""Linear layers through oneDNN, against torch's own."""

import copy
import os
import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Mlp

from vlc.hardware import onednn
from vlc.hardware.onednn import (
    MIN_WIDTH_FOR_FAST_PRODUCTS,
    OneDNNLinear,
    OneDNNLinearGELU,
    computes_bfloat16,
    packs_bfloat16,
    suits_onednn,
    use_onednn,
)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(3, 5), (0, 5)])
def test_onednn_layers_compute_the_same(bias, rows, gradients, monkeypatch):
    monkeypatch.setattr(onednn, "_GRADIENTS_BY_ONEDNN", gradients)
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


def _with_gelu(layer: OneDNNLinear) -> OneDNNLinearGELU:
    """A layer of the same parameters that applies GELU too."""
    fused = copy.copy(layer)
    fused.__class__ = OneDNNLinearGELU
    return fused


@torch.no_grad()
def test_the_first_layer_of_an_mlp_takes_over_its_gelu():
    mlp, inputs = Mlp(12, 20).eval(), torch.randn(3, 12)
    expected, names = mlp(inputs), list(mlp.state_dict())
    for _ in range(2):  # the second time nothing is left to do
        use_onednn(mlp)
        assert (type(mlp.fc1), type(mlp.fc2)) == (OneDNNLinearGELU, OneDNNLinear)
        torch.testing.assert_close(mlp(inputs), expected)
    assert list(mlp.state_dict()) == names


@torch.no_grad()
@pytest.mark.parametrize("half", [False, True])
def test_packed_weights_follow_the_weights(layer, half):
    inputs, close, fused = torch.randn(3, 2, 12), HALF if half else {}, _with_gelu(layer)

    def check() -> None:
        # A context for each change: inside of one, autocast keeps what it made of a parameter.
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            expected = (inputs @ layer.weight.t() + layer.bias).float()
            outputs = layer(inputs)
            assert outputs.dtype == (torch.bfloat16 if half else torch.float32)
            torch.testing.assert_close(outputs.float(), expected, **close)
            torch.testing.assert_close(fused(inputs).float(), F.gelu(expected), **close)

    check()
    layer.weight.mul_(-1)  # what an optimiser or a checkpoint does
    check()
    layer.weight.data = torch.randn(20, 12)
    check()
    with torch.autocast("cpu", torch.bfloat16, enabled=not half):
        assert layer(inputs).dtype == (torch.float32 if half else torch.bfloat16)


def test_gelu_has_its_gradient_in_training(layer):
    inputs = torch.randn(3, 12)
    found = torch.autograd.grad(_with_gelu(layer)(inputs).sum(), layer.weight)
    expected = torch.autograd.grad(F.gelu(F.linear(inputs, layer.weight, layer.bias)).sum(), layer.weight)
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_packed_weights_are_not_kept_for_training_nor_copied(layer):
    layer(torch.randn(3, 12))
    assert layer._packed is not None
    assert copy.deepcopy(layer)._packed is None
    layer.train()
    assert layer._packed is None


@torch.no_grad()
@pytest.mark.parametrize("able", [False, True])
def test_bfloat16_weights_are_packed_where_the_processor_can(layer, monkeypatch, able):
    if able and not packs_bfloat16():
        pytest.skip("this processor cannot")
    monkeypatch.setattr("vlc.hardware.onednn.packs_bfloat16", lambda: able)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = layer(torch.ones(3, 12))
    assert (layer._packed is not None) == able
    assert outputs.dtype == torch.bfloat16
    torch.testing.assert_close(outputs.float(), F.linear(torch.ones(3, 12), layer.weight, layer.bias), **HALF)
    assert suits_onednn(MIN_WIDTH_FOR_FAST_PRODUCTS, half=True) == able
    assert able or not computes_bfloat16("cpu")


@pytest.mark.parametrize("half", [False, True])
def test_the_choice_asks_the_processor(monkeypatch, half):
    """Each with the processor's answer, and without oneDNN."""
    for built, supported, expected in ((True, True, True), (True, False, False), (False, True, False)):
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda built=built: built)
        monkeypatch.setattr(
            torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda supported=supported: supported, raising=False
        )
        packs_bfloat16.cache_clear()
        monkeypatch.setattr("vlc.hardware.onednn.mkl_is_slow", lambda: False)
        assert packs_bfloat16() == expected
        assert suits_onednn(MIN_WIDTH_FOR_FAST_PRODUCTS, half=half) == (half and expected)
        assert not suits_onednn(MIN_WIDTH_FOR_FAST_PRODUCTS - 1, half=half)
    monkeypatch.undo()
    packs_bfloat16.cache_clear()


OLD_PROCESSOR = """
import platform
import torch
from vlc.hardware.onednn import OneDNNLinearGELU, computes_bfloat16, packs_bfloat16, use_onednn
layer, inputs = torch.nn.Linear(12, 20), torch.randn(3, 12)
expected = layer(inputs)
use_onednn(layer)
with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
    torch.testing.assert_close(layer(inputs).float(), expected, atol=0.02, rtol=0.02)
    layer.__class__ = OneDNNLinearGELU
    torch.testing.assert_close(layer(inputs).float(), torch.nn.functional.gelu(expected), atol=0.02, rtol=0.02)
assert platform.machine() != "x86_64" or not (packs_bfloat16() or computes_bfloat16("cpu"))
"""


def test_processors_without_avx512():
    """oneDNN and torch are told to do without, as on older processors, where the packing of bfloat16 fails."""
    limited = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run(
        [sys.executable, "-c", OLD_PROCESSOR], env=limited, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
