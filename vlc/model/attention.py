"""The attention layer of a ViT block: timm's layer with an attention pattern in place of a mask."""

import torch
from timm.layers import Attention as TimmAttention
from torch import Tensor, nn

from vlc.hardware.onednn import product_of
from vlc.model.patterns import FULL, AttentionPattern


class Attention(TimmAttention):
    """timm's attention with the same parameters and values, for any attention pattern, and for first tokens only."""

    # timm's method takes a mask.
    def forward(self, x: Tensor, pattern: AttentionPattern = FULL) -> Tensor:  # type: ignore[override]
        """Mix tokens (B, L, D), or packed tokens (N, D) with their pattern; returns the same shape."""
        return self.proj_drop(self.proj(self.norm(pattern.attend(self.qkv(x), self.num_heads))))

    def forward_first_token(self, x: Tensor, pattern: AttentionPattern = FULL) -> Tensor:
        """Return what `forward` gives for the first token of each sequence, (B, D)."""
        parts = (self.attn_dim, 2 * self.attn_dim)
        if isinstance(self.qkv, nn.Linear):
            product = product_of(self.qkv)
            (for_queries, for_others), (bias, biases) = self.qkv.weight.split(parts), self.qkv.bias.split(parts)
            queries, keys_values = product(pattern.first_tokens(x), for_queries, bias), product(x, for_others, biases)
        else:  # it has an adapter, which needs whole outputs
            queries = self.qkv(pattern.first_tokens(x))[..., : self.attn_dim]
            keys_values = self.qkv(x)[..., self.attn_dim :]
        return self.proj_drop(self.proj(self.norm(pattern.attend_first(queries, keys_values, self.num_heads))))


def has_flash_attention(device: torch.device) -> bool:
    """Whether `CumulativeLengths` can be used: flash attention takes sequences of any lengths, in half precision."""
    if device.type != "cuda" or not torch.is_autocast_enabled("cuda"):
        return False
    return torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability(device) >= (8, 0)
