"""The transformer block of encoder and decoder: timm's block, with its parts for the families of ViTs."""

from collections.abc import Callable
from functools import partial

import torch
from timm.layers import Mlp, SwiGLU, SwiGLUPacked, get_act_layer
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn

from vlc.model.attention import Attention
from vlc.model.patterns import FULL, AttentionPattern

layer_norm = partial(nn.LayerNorm, eps=1e-6)

# The layer between the attentions, and timm's name of its activation.
MLPS: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "gelu": (Mlp, "gelu"),
    "quick_gelu": (Mlp, "quick_gelu"),
    "gelu_tanh": (Mlp, "gelu_tanh"),
    "swiglu": (SwiGLU, "silu"),
    "packed_swiglu": (SwiGLUPacked, "silu"),
}


class Block(TimmBlock):
    """timm's block with the same parameters and values, for any attention pattern, and for first tokens only."""

    attn: Attention

    # timm's method takes a mask.
    def forward(self, x: Tensor, pattern: AttentionPattern = FULL) -> Tensor:  # type: ignore[override]
        """Transform tokens of the shapes of `Attention.forward`."""
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), pattern)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))

    def forward_first_token(self, x: Tensor, pattern: AttentionPattern = FULL) -> Tensor:
        """Return what `forward` gives for the first token of each sequence, (B, D).

        The other tokens serve as keys and values only.
        """
        tokens, mixed = pattern.first_tokens(x), self.attn.forward_first_token(self.norm1(x), pattern)
        tokens = tokens + self.drop_path1(self.ls1(mixed))
        return tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens))))


def blocks(
    width: int,
    depth: int,
    heads: int,
    mlp_ratio: float,
    drop_path: float = 0.0,
    *,
    norm_eps: float = 1e-6,
    dropout: float = 0.0,
    layer_scale: float | None = None,
    mlp: str = "gelu",
    attention_norm: bool = False,
    mlp_norm: bool = False,
) -> nn.ModuleList:
    """Return pre-norm blocks.

    drop_path: rate of stochastic depth in the last block; the rates rise to it linearly.
    dropout: rate of dropout on the outputs of attention and MLP, and inside the MLP.
    layer_scale, mlp, attention_norm, mlp_norm: as in `vlc.model.sizes.EncoderConfig`.
    """
    mlp_layer, activation = MLPS[mlp]
    norm, rates = partial(layer_norm, eps=norm_eps), torch.linspace(0, drop_path, depth).tolist()
    return nn.ModuleList(
        Block(
            width,
            heads,
            mlp_ratio,
            qkv_bias=True,
            norm_layer=norm,  # type: ignore[arg-type]  # timm calls it, and asks for no class
            drop_path=rate,
            proj_drop=dropout,
            attn_layer=Attention,
            init_values=layer_scale,
            mlp_layer=mlp_layer,  # type: ignore[arg-type]  # as norm_layer
            act_layer=get_act_layer(activation),  # type: ignore[arg-type]  # None only for the name of none
            scale_attn_norm=attention_norm,
            scale_mlp_norm=mlp_norm,
        )
        for rate in rates
    )
