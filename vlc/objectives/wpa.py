"""Word-patch alignment: the cost of moving a caption's words onto an image's patches (Chen et al. 2020, UNITER).

The transport plan is found with the proximal point method IPOT (Xie et al. 2020), without gradient; the gradient flows
through the cosine costs.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_costs(text: Tensor, image: Tensor) -> Tensor:
    """1 - cosine similarity of every word (B, L, D) and patch (B, P, D) -> (B, L, P); norms are at least 1e-5."""
    return 1 - F.normalize(text, dim=-1, eps=1e-5) @ F.normalize(image, dim=-1, eps=1e-5).transpose(1, 2)


Iteration = Callable[..., tuple[Tensor, Tensor]]


def iteration(
    kernel: Tensor, plan: Tensor, word_scale: Tensor, counts: tuple[Tensor, Tensor], absent: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """One step of IPOT: the next plan (B, P, L) and the next scaling factors of the words (B, 1, L).

    counts: the numbers of patches and of words, (B, 1, 1) each.
    absent: (B, P, 1) and (B, 1, L), large where a patch or word takes no part, so that its scaling factor becomes nearly 0
        and never infinite.

    It consists of element-wise products and sums, so that torch.compile makes few kernels of it.
    """
    scaled = kernel * plan
    patch_scale = 1 / (counts[0] * (scaled * word_scale).sum(2, keepdim=True) + absent[0])
    word_scale = 1 / (counts[1] * (scaled * patch_scale).sum(1, keepdim=True) + absent[1])
    return patch_scale * scaled * word_scale, word_scale


@torch.no_grad()
def transport_plan(
    costs: Tensor,
    words: Tensor,
    patches: Tensor,
    beta: float = 0.5,
    iterations: int = 50,
    iterate: Iteration = iteration,
) -> Tensor:
    """Plan (B, P, L) that moves uniform mass on the words onto uniform mass on the patches at least cost.

    costs (B, L, P) float32; words (B, L) and patches (B, P) bool, True = takes part. Other cells of the plan are 0.
    iterate: `iteration`, or what it was compiled to.
    """
    counts = patches.sum(1)[:, None, None].to(costs.dtype), words.sum(1).clamp(min=1)[:, None, None].to(costs.dtype)
    absent = (~patches).to(costs.dtype)[:, :, None] * 1e4, (~words).to(costs.dtype)[:, None, :] * 1e4
    pairs = patches[:, :, None] & words[:, None, :]
    plan = pairs.to(costs.dtype)
    kernel = torch.exp(-costs.transpose(1, 2) / beta) * plan
    word_scale = words.to(costs.dtype)[:, None, :] / counts[1]
    for _ in range(iterations):
        plan, word_scale = iterate(kernel, plan, word_scale, counts, absent)
    return plan.masked_fill(~pairs, 0)  # a text without words gave 0 / 0


def transport_distance(
    text: Tensor, image: Tensor, words: Tensor, patches: Tensor, iterate: Iteration = iteration
) -> Tensor:
    """Cost of the best plan for each pair (B,) float32; 0 for a text without words.

    text (B, L, D), image (B, P, D); words (B, L), patches (B, P) bool, True = takes part.
    """
    costs = cosine_costs(text.float(), image.float()) * (words[:, :, None] & patches[:, None, :])
    plan = transport_plan(costs.detach(), words, patches, iterate=iterate)
    return (costs * plan.transpose(1, 2)).sum((1, 2))


def inner_words(mask: Tensor) -> Tensor:
    """Text mask (B, L) without the first and the last real token ([CLS] and [SEP]), as bool."""
    position = torch.arange(mask.shape[1], device=mask.device)
    last = mask.sum(1, keepdim=True) - 1
    return (position > 0) & (position < last)
