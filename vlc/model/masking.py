"""Random patch dropping and its inverse, after masked autoencoders (He et al. 2022, section 3)."""

from typing import NamedTuple

import torch
from torch import Tensor


class PatchMask(NamedTuple):
    """The patches that a pass dropped.

    kept: (B, K) int64, indices of the kept patches, in the order in which they enter the encoder.
    dropped: (B, P) float32, 1 = dropped, 0 = kept.
    restore: (B, P) int64, position of each patch in the shuffled order (kept ones first), for `restore_patches`.
    """

    kept: Tensor
    dropped: Tensor
    restore: Tensor


def num_kept(num_patches: int, mask_ratio: float) -> int:
    """Return how many patches stay. The expression is the published one, as its rounding decides the count."""
    return int(num_patches * (1 - mask_ratio))


def random_mask(noise: Tensor, mask_ratio: float) -> PatchMask:
    """Keep the patches with the smallest noise; noise is (B, P), uniform in [0, 1)."""
    count = num_kept(noise.shape[1], mask_ratio)
    shuffled = noise.argsort(dim=1)
    restore = shuffled.argsort(dim=1)
    dropped = (restore >= count).to(noise.dtype)
    return PatchMask(shuffled[:, :count], dropped, restore)


def shown_patches(extents: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return which patches of a padded grid belong to the image, (B, P) bool; extents (B, 2) in rows and columns."""
    rows, columns = (
        torch.arange(length, device=extents.device) < extents[:, axis, None] for axis, length in enumerate(grid)
    )
    return (rows[:, :, None] & columns[:, None, :]).flatten(1)


def leading_patches(shown: Tensor, count: int, noise: Tensor | None = None) -> Tensor:
    """Return indices (B, count) of shown patches (B, P), then of padding; noise (B, P) orders them at random."""
    order = (~shown).float() if noise is None else noise + (~shown)
    return order.argsort(dim=1, stable=True)[:, :count]


def take_patches(tokens: Tensor, indices: Tensor) -> Tensor:
    """Select tokens (B, P, D) at indices (B, K): (B, K, D)."""
    return tokens.gather(1, indices.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def restore_patches(kept: Tensor, fill: Tensor, restore: Tensor) -> Tensor:
    """Put kept tokens (B, K, D) back in image order (B, P, D), with `fill` (1, 1, D) where a patch was dropped."""
    batch, count, width = kept.shape
    missing = fill.to(kept.dtype).expand(batch, restore.shape[1] - count, width)
    return take_patches(torch.cat([kept, missing], dim=1), restore)
