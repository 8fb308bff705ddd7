"""Rotary positions of patches: queries and keys are rotated by angles that depend on a patch's place (Su et al. 2021).

Two families have them in two dimensions: EVA-02 (Fang et al. 2023) and DINOv3 (Siméoni et al. 2025). Tokens of texts, class
tokens and registers are not rotated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from timm.layers import RotaryEmbeddingCat, RotaryEmbeddingDinoV3, apply_rot_embed_cat
from torch import Tensor, nn

from vlc.model.patterns import AttentionPattern
from vlc.model.segments import Segment


class Kind(NamedTuple):
    """How a family rotates.

    angles: timm's layer for heads of a given width; its `get_embed` returns sines and cosines (P, 2 * width) of a grid.
    halves: whether a channel turns with the one half a head away; otherwise with its neighbour.
    """

    angles: Callable[[int], nn.Module]
    halves: bool


ROTARY: dict[str, Kind] = {
    # The angles of EVA-02 are those of a grid of 16 x 16 patches, on which it was pre-trained.
    "eva02": Kind(lambda width: RotaryEmbeddingCat(width, in_pixels=False, ref_feat_shape=[16, 16]), False),
    "dinov3": Kind(lambda width: RotaryEmbeddingDinoV3(width, rotate_half=True), True),
}


class Rotary(nn.Module):
    """The rotations of all tokens of a pass.

    kind: a name of ROTARY.
    head_width: the channels of a head.
    """

    def __init__(self, kind: str, head_width: int):
        super().__init__()
        self.halves, self.head_width = ROTARY[kind].halves, head_width
        self.angles = ROTARY[kind].angles(head_width)

    def forward(self, segments: Sequence[Segment]) -> Tensor:
        """Return sines beside cosines (B, S, 2 * head_width) float32 for the tokens of segments that stand side by side."""
        return torch.cat([self._of(segment) for segment in segments], dim=1)

    def _of(self, segment: Segment) -> Tensor:
        rows, length, _ = segment.tokens.shape
        sines = torch.zeros(rows, length, self.head_width, device=segment.tokens.device)
        still = torch.cat([sines, torch.ones_like(sines)], dim=-1)
        if segment.grid is None:
            return still
        # torch types every attribute of a module as a module.
        table = self.angles.get_embed(list(segment.grid)).to(still)  # type: ignore[operator]
        places = table[segment.patch_indices] if segment.patch_indices is not None else table.expand(rows, -1, -1)
        return torch.cat([still[:, :1], places], dim=1)


@dataclass(frozen=True, eq=False)
class RotatedAttention(AttentionPattern):
    """The attention of another pattern with rotated queries and keys. The first token of a sequence is never rotated.

    pattern: who attends to whom.
    rotation: of all tokens as `Rotary` returns it, packed (N, 2 * head_width) where the tokens are.
    halves: as in `Kind`.
    """

    pattern: AttentionPattern
    rotation: Tensor
    halves: bool

    def attend(self, qkv: Tensor, heads: int) -> Tensor:
        return self.pattern.attend(self._rotated(qkv, heads, 3), heads)

    def attend_first(self, queries: Tensor, keys_values: Tensor, heads: int) -> Tensor:
        return self.pattern.attend_first(queries, self._rotated(keys_values, heads, 2), heads)

    def first_tokens(self, tokens: Tensor) -> Tensor:
        return self.pattern.first_tokens(tokens)

    def _rotated(self, parts: Tensor, heads: int, count: int) -> Tensor:
        """Rotate parts side by side, (B, L, count * D) or (N, count * D), except for the last, which are the values."""
        turned, values = parts.unflatten(-1, (count, heads, -1)).split([count - 1, 1], dim=-3)
        turned = apply_rot_embed_cat(turned, self.rotation[..., None, None, :], half=self.halves)
        return torch.cat([turned.to(values.dtype), values], dim=-3).flatten(-3)
