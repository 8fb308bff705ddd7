"""Word-patch alignment: the cost of moving a caption's words onto an image's patches (Chen et al. 2020, UNITER).

The transport plan is found with the proximal point method IPOT (Xie et al. 2020), without gradient; the gradient flows
through the cosine costs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_costs(text: Tensor, image: Tensor) -> Tensor:
    """1 - cosine similarity of every word (B, L, D) and patch (B, P, D) -> (B, L, P); norms are at least 1e-5."""
    return 1 - F.normalize(text, dim=-1, eps=1e-5) @ F.normalize(image, dim=-1, eps=1e-5).transpose(1, 2)


@torch.no_grad()
def transport_plan(costs: Tensor, words: Tensor, patches: Tensor, beta: float = 0.5, iterations: int = 50) -> Tensor:
    """Plan (B, P, L) that moves uniform mass on the words onto uniform mass on the patches at least cost.

    costs (B, L, P) float32; words (B, L) and patches (B, P) bool, True = takes part. Other cells of the plan are 0.
    """
    num_words = words.sum(1).clamp(min=1).to(costs.dtype)[:, None, None]  # (B, 1, 1)
    num_patches = patches.sum(1).to(costs.dtype)[:, None, None]
    pairs = patches[:, :, None] & words[:, None, :]
    joint = pairs.to(costs.dtype)  # (B, P, L)
    kernel = torch.exp(-costs.transpose(1, 2) / beta) * joint
    # Large numbers where a word or patch takes no part: their scaling factors become (nearly) 0, never infinite.
    no_word = (~words).to(costs.dtype)[:, :, None] * 1e4  # (B, L, 1)
    no_patch = (~patches).to(costs.dtype)[:, :, None] * 1e4
    word_scale = words.to(costs.dtype)[:, :, None] / num_words  # (B, L, 1)
    plan = joint
    for _ in range(iterations):
        scaled = kernel * plan
        patch_scale = 1 / (num_patches * (scaled @ word_scale) + no_patch)  # (B, P, 1)
        word_scale = 1 / (num_words * (scaled.transpose(1, 2) @ patch_scale) + no_word)
        plan = patch_scale * scaled * word_scale.transpose(1, 2)
    return plan.masked_fill(~pairs, 0)  # a text without words gave 0 / 0


def transport_distance(text: Tensor, image: Tensor, words: Tensor, patches: Tensor) -> Tensor:
    """Cost of the best plan for each pair (B,) float32; 0 for a text without words.

    text (B, L, D), image (B, P, D); words (B, L), patches (B, P) bool, True = takes part.
    """
    costs = cosine_costs(text.float(), image.float()) * (words[:, :, None] & patches[:, None, :])
    plan = transport_plan(costs.detach(), words, patches)
    return (costs * plan.transpose(1, 2)).sum((1, 2))


def inner_words(mask: Tensor) -> Tensor:
    """Text mask (B, L) without the first and the last real token ([CLS] and [SEP]), as bool."""
    position = torch.arange(mask.shape[1], device=mask.device)
    last = mask.sum(1, keepdim=True) - 1
    return (position > 0) & (position < last)
