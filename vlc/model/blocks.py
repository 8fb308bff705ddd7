"""The transformer block of encoder and decoder: timm's block with MAE's epsilon in the norms."""

from functools import partial

import torch
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn

from vlc.model.attention import Attention
from vlc.model.patterns import FULL, AttentionPattern

layer_norm = partial(nn.LayerNorm, eps=1e-6)


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
) -> nn.ModuleList:
    """Return pre-norm blocks.

    drop_path: rate of stochastic depth in the last block; the rates rise to it linearly.
    dropout: rate of dropout on the outputs of attention and MLP, and inside the MLP.
    """
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
        )
        for rate in rates
    )
