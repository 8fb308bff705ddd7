"""Linear layers in float32 through oneDNN, for processors on which MKL's product is slow.

On x86 torch hands float32 linear layers to MKL, which on AMD's processors reaches half of what oneDNN does (measured on
Zen 5: 190 against 390 GFLOP/s). oneDNN is within reach as the library behind convolutions: a product is one of size 1x1.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CPUINFO = Path("/proc/cpuinfo")


def mkl_is_slow() -> bool:
    """Whether float32 linear layers go to MKL here, on a processor that is not Intel's."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available() and _CPUINFO.is_file()):
        return False
    return "AuthenticAMD" in _CPUINFO.read_text(errors="replace")


def use_onednn(module: nn.Module) -> None:
    """Make every plain linear layer inside a module a `OneDNNLinear`, in place; parameters and names stay."""
    for part in module.modules():
        if type(part) is nn.Linear:
            part.__class__ = OneDNNLinear


class OneDNNLinear(nn.Linear):
    """A linear layer whose float32 products on the CPU are oneDNN's; everything else is as in nn.Linear."""

    def forward(self, inputs: Tensor) -> Tensor:
        plain = inputs.device.type == "cpu" and inputs.dtype == self.weight.dtype == torch.float32
        if not plain or torch.is_autocast_enabled("cpu"):
            return super().forward(inputs)
        if not torch.is_grad_enabled():
            return _linear(inputs.reshape(-1, self.in_features), self.weight, self.bias).view(*inputs.shape[:-1], -1)
        return _Linear.apply(inputs, self.weight, self.bias)


def _linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows (N, I), weight (O, I), bias (O,) -> (N, O): rows as the pixels of one image of I channels."""
    pixels = rows.contiguous()[None, :, None].permute(0, 3, 1, 2)
    return F.conv2d(pixels, weight[:, :, None, None], bias).permute(0, 2, 3, 1)[0, :, 0]


class _Linear(torch.autograd.Function):
    """The layer with all three products as forward convolutions: the backward ones of 1x1 are slower."""

    @staticmethod
    def forward(ctx, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = inputs.reshape(-1, inputs.shape[-1])
        ctx.save_for_backward(rows, weight)
        ctx.has_bias = bias is not None
        return _linear(rows, weight, bias).view(*inputs.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        wants_inputs, wants_weight, wants_bias = ctx.needs_input_grad
        grad_rows = grad.reshape(-1, grad.shape[-1])
        for_inputs = for_weight = for_bias = None
        if wants_inputs:
            for_inputs = _linear(grad_rows, weight.t().contiguous()).view(*grad.shape[:-1], -1)
        if wants_weight:
            for_weight = _linear(grad_rows.t(), rows.t().contiguous())
        if ctx.has_bias and wants_bias:
            for_bias = grad_rows.sum(0)
        return for_inputs, for_weight, for_bias
