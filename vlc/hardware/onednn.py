"""CPU speed: whether a processor computes bfloat16, and linear layers through oneDNN where that is faster than MKL.

On x86 torch hands float32 linear layers to MKL, which on AMD's processors reaches half of what oneDNN does (measured on
Zen 5: 100 against 210 GFLOP/s on a core). In evaluation, weights put into oneDNN's order once save another 5 to 10 %, in
bfloat16 too. oneDNN's products are called through the operators that torch.compile uses. Without AVX-512,
MKL's products are the faster ones for gradients (on Zen 4 held to AVX2, two cores: 165 to 206 GFLOP/s against 109 to 198).
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

# The smallest encoder width for which bfloat16 and oneDNN are faster on a CPU. Below it they cost more than they gain.
MIN_WIDTH_FOR_FAST_PRODUCTS = 768
_CPUINFO = Path("/proc/cpuinfo")


def mkl_is_slow() -> bool:
    """Whether float32 linear layers go to MKL here, on a processor that is not Intel's."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available() and _CPUINFO.is_file()):
        return False
    return "AuthenticAMD" in _CPUINFO.read_text(errors="replace")


@cache
def packs_bfloat16() -> bool:
    """Whether oneDNN takes bfloat16 weights in its own order here: on x86 it needs AVX-512, or AVX2 with conversions.

    torch asks oneDNN, so ONEDNN_MAX_CPU_ISA is respected.
    """
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


# The product of matrices for gradients. (A constant, because torch.compile cannot ask oneDNN.)
_GRADIENTS_BY_ONEDNN = packs_bfloat16()


def computes_bfloat16(accelerator: str) -> bool:
    """Whether a device ("gpu", "cpu", ...) multiplies bfloat16 matrices natively, without converting them to float32."""
    if accelerator == "cpu":
        return packs_bfloat16() and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return accelerator == "gpu" and torch.cuda.is_bf16_supported(including_emulation=False)


def suits_onednn(width: int, *, half: bool) -> bool:
    """Whether the linear layers of an encoder gain from `use_onednn` on the CPU; half: in bfloat16."""
    return width >= MIN_WIDTH_FOR_FAST_PRODUCTS and (packs_bfloat16() if half else mkl_is_slow())


def use_onednn(module: nn.Module) -> None:
    """Turn every plain linear layer inside a module into a `OneDNNLinear`, in place; parameters and names stay.

    The first layer of an MLP also computes the GELU that follows it.
    """
    for part in module.modules():
        if isinstance(part, Mlp) and type(part.fc1) is nn.Linear and isinstance(part.act, nn.GELU):
            part.fc1.__class__, part.act = OneDNNLinearGELU, nn.Identity()
        elif type(part) is nn.Linear:
            part.__class__ = OneDNNLinear


def without_onednn(module: nn.Module) -> None:
    """Undo `use_onednn`, in place: the layers are torch's own again."""
    for part in module.modules():
        if isinstance(part, Mlp) and isinstance(part.fc1, OneDNNLinearGELU):
            part.act = nn.GELU()
    for part in module.modules():
        if isinstance(part, OneDNNLinear):
            part._packed = None
            part.__class__ = nn.Linear  # type: ignore[assignment]  # the class above it


def product_of(layer: nn.Linear) -> Callable[..., Tensor]:
    """Return the function (inputs, weight, bias) -> outputs that is fastest for parts of this layer's weight."""
    return linear if isinstance(layer, OneDNNLinear) else F.linear


class OneDNNLinear(nn.Linear):
    """A linear layer whose products on the CPU are oneDNN's: in float32, and without gradients in bfloat16 too.

    Where oneDNN cannot take bfloat16, torch's own product is used, as in training. Without gradients the weights are
    kept in oneDNN's order (as much memory again), until they change or the layer is set to train or to evaluate.
    """

    _packed: tuple[tuple, Tensor] | None = None  # the key of the weights, and the packed weights

    def forward(self, inputs: Tensor) -> Tensor:
        dtype = self._packed_dtype(inputs)
        return linear(inputs, self.weight, self.bias) if dtype is None else self._by_packed(inputs, dtype, "none")

    def train(self, mode: bool = True) -> "OneDNNLinear":
        self._packed = None
        return super().train(mode)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_packed": None}  # in oneDNN's order a tensor cannot be copied

    def _packed_dtype(self, inputs: Tensor) -> torch.dtype | None:
        """Return the dtype in which to compute with packed weights; None: compute without them."""
        on_cpu = inputs.device.type == self.weight.device.type == "cpu"
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or not (on_cpu and inputs.numel()):
            return None
        if torch.is_autocast_enabled("cpu"):
            dtype: torch.dtype | None = torch.get_autocast_dtype("cpu")
        else:
            dtype = inputs.dtype if inputs.dtype == self.weight.dtype else None
        return dtype if dtype == torch.float32 or (dtype == torch.bfloat16 and packs_bfloat16()) else None

    def _by_packed(self, inputs: Tensor, dtype: torch.dtype, after: str) -> Tensor:
        key = (self.weight.data_ptr(), self.weight._version, dtype)  # weights may be replaced, or changed in place
        if self._packed is None or self._packed[0] != key:
            self._packed = key, torch.ops.mkldnn._reorder_linear_weight(self.weight.detach().to(dtype))
        return torch.ops.mkldnn._linear_pointwise(inputs.to(dtype), self._packed[1], self.bias, after, [], "none")


class OneDNNLinearGELU(OneDNNLinear):
    """A linear layer followed by GELU, in one operation where weights are packed."""

    def forward(self, inputs: Tensor) -> Tensor:
        dtype = self._packed_dtype(inputs)
        return F.gelu(super().forward(inputs)) if dtype is None else self._by_packed(inputs, dtype, "gelu")


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute torch's function of this name; float32 on the CPU, outside of autocast, goes to oneDNN."""
    plain = inputs.device.type == "cpu" and inputs.dtype == weight.dtype == torch.float32
    if not plain or torch.is_autocast_enabled("cpu") or not inputs.numel():  # oneDNN refuses a product without rows
        return F.linear(inputs, weight, bias)
    product = _Linear.apply if torch.is_grad_enabled() else _product
    return product(inputs.reshape(-1, inputs.shape[-1]), weight, bias).view(*inputs.shape[:-1], len(weight))


# A custom operator, because torch.compile accepts oneDNN's only for packed weights.
@torch.library.custom_op("vlc::onednn_product", mutates_args=())
def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows (N, I), weight (O, I), bias (O,) -> (N, O); strides are free."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


@_product.register_fake
def _(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return rows.new_empty(len(rows), len(weight))


class _Linear(torch.autograd.Function):
    """The linear layer, with oneDNN's products forward and backward."""

    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        wants_rows, wants_weight, wants_bias = ctx.needs_input_grad
        for_rows = for_weight = None
        if wants_rows:
            for_rows = _product(grad, weight.t()) if _GRADIENTS_BY_ONEDNN else grad @ weight
        if wants_weight:
            for_weight = _product(grad.t(), rows.t()) if _GRADIENTS_BY_ONEDNN else grad.t() @ rows
        return for_rows, for_weight, grad.sum(0) if wants_bias else None
