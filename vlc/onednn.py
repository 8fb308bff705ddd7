"""What processors are good at; linear layers in float32 through oneDNN, for those on which MKL's product is slow.

On x86 torch hands float32 linear layers to MKL, which on AMD's processors reaches half of what oneDNN does (measured on
Zen 5: 100 against 210 GFLOP/s on a core). oneDNN's product is within reach as the operator that torch.compile uses.
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


def computes_bfloat16(accelerator: str) -> bool:
    """Whether a device ("gpu", "cpu", ...) multiplies bfloat16 matrices itself, rather than by way of float32."""
    if accelerator == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return accelerator == "gpu" and torch.cuda.is_bf16_supported(including_emulation=False)


def use_onednn(module: nn.Module) -> None:
    """Make every plain linear layer inside a module a `OneDNNLinear`, in place; parameters and names stay."""
    for part in module.modules():
        if type(part) is nn.Linear:
            part.__class__ = OneDNNLinear


class OneDNNLinear(nn.Linear):
    """A linear layer whose float32 products on the CPU are oneDNN's; everything else is as in nn.Linear."""

    def forward(self, inputs: Tensor) -> Tensor:
        return linear(inputs, self.weight, self.bias)


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As torch's function of this name; float32 on the CPU, outside of autocast, goes to oneDNN."""
    plain = inputs.device.type == "cpu" and inputs.dtype == weight.dtype == torch.float32
    if not plain or torch.is_autocast_enabled("cpu") or not inputs.numel():  # oneDNN refuses a product without rows
        return F.linear(inputs, weight, bias)
    product = _Linear.apply if torch.is_grad_enabled() else _product
    return product(inputs.reshape(-1, inputs.shape[-1]), weight, bias).view(*inputs.shape[:-1], len(weight))


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows (N, I), weight (O, I), bias (O,) -> (N, O); strides are free."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """The layer with all three products oneDNN's."""

    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        wants_rows, wants_weight, wants_bias = ctx.needs_input_grad
        for_rows = _product(grad, weight.t()) if wants_rows else None
        for_weight = _product(grad.t(), rows.t()) if wants_weight else None
        return for_rows, for_weight, grad.sum(0) if wants_bias else None
