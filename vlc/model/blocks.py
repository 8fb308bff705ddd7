"""The transformer block of encoder and decoder: timm's, with the norms MAE trains with."""

from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

layer_norm = partial(nn.LayerNorm, eps=1e-6)


def blocks(
    width: int,
    depth: int,
    heads: int,
    mlp_ratio: float,
    drop_path: float = 0.0,
    *,
    norm_eps: float = 1e-6,
    dropout: float = 0.0,
) -> nn.ModuleList:
    """Pre-norm blocks; drop_path is the rate of the last one, the others rise to it linearly (stochastic depth).

    dropout: of what attention and MLP add to the tokens, and inside the MLP.
    """
    norm, rates = partial(layer_norm, eps=norm_eps), torch.linspace(0, drop_path, depth).tolist()
    return nn.ModuleList(
        Block(width, heads, mlp_ratio, qkv_bias=True, norm_layer=norm, drop_path=rate, proj_drop=dropout)
        for rate in rates
    )


def key_mask(mask: Tensor) -> Tensor:
    """Token mask (B, L), nonzero = attend, as an attention mask (B, 1, 1, L) bool that hides padding as a key."""
    return mask.bool()[:, None, None, :]
