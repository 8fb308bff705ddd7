"""Linear layers through oneDNN, against torch's own."""

import pytest
import torch

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
