"""The transformer block of encoder and decoder: timm's, with the norms MAE trains with."""

from functools import partial

import torch
from timm.layers import Mlp as TimmMlp
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn

from vlc.hardware.onednn import OneDNNLinear
from vlc.model.attention import Attention, first_tokens
from vlc.model.packing import Lengths, Starts

layer_norm = partial(nn.LayerNorm, eps=1e-6)


class Mlp(TimmMlp):
    """timm's two layers with GELU between them, its parameters and its values."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1.gelu(x) if isinstance(self.fc1, OneDNNLinear) else self.act(self.fc1(x))
        return self.drop2(self.fc2(self.drop1(hidden)))


class Block(TimmBlock):
    """timm's block, its parameters and its values, also for packed sequences and for first tokens alone."""

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        spans: Lengths | Starts | None = None,
    ) -> Tensor:
        """Tokens as in `Attention.forward`, and as many."""
        assert not is_causal
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), attn_mask=attn_mask, spans=spans)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))

    def first(self, x: Tensor, attn_mask: Tensor | None = None, spans: Lengths | Starts | None = None) -> Tensor:
        """What `forward` gives for the first token of each sequence, (B, D): the others serve as keys and values."""
        tokens, mixed = first_tokens(x, spans), self.attn.first(self.norm1(x), attn_mask, spans)
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
    """Pre-norm blocks; drop_path is the rate of the last one, the others rise to it linearly (stochastic depth).

    dropout: of what attention and MLP add to the tokens, and inside the MLP.
    """
    norm, rates = partial(layer_norm, eps=norm_eps), torch.linspace(0, drop_path, depth).tolist()
    return nn.ModuleList(
        Block(
            width,
            heads,
            mlp_ratio,
            qkv_bias=True,
            norm_layer=norm,
            drop_path=rate,
            proj_drop=dropout,
            attn_layer=Attention,
            mlp_layer=Mlp,
        )
        for rate in rates
    )


def key_mask(mask: Tensor) -> Tensor:
    """Token mask (B, L), nonzero = attend, as an attention mask (B, 1, 1, L) bool that hides padding as a key."""
    return mask.bool()[:, None, None, :]
