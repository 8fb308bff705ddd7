"""Boxes as tensors: overlap, the box around several, and their reduction to different ones.

A box is (left, top, right, bottom), from edge to edge.
"""

import torch
from torch import Tensor


def overlap(boxes: Tensor, others: Tensor, *, plus_one: bool = False) -> Tensor:
    """Intersection over union of boxes (..., 4) and others (..., 4), which are broadcast: (...) float32.

    plus_one: count the pixel at the end of each side, as the evaluation of 12-in-1 and VL-BERT does.
    """
    boxes, others = boxes.float(), others.float()
    more = float(plus_one)
    start, end = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    common = (end - start + more).clamp(min=0).prod(-1)
    areas = [(one[..., 2:] - one[..., :2] + more).prod(-1) for one in (boxes, others)]
    return common / (areas[0] + areas[1] - common).clamp(min=1e-9)


def enclosing(boxes: Tensor, mask: Tensor) -> Tensor:
    """The smallest boxes (B, 4) around those of (B, N, 4) where mask (B, N) is true."""
    left_top = boxes[..., :2].masked_fill(~mask[..., None], torch.inf).amin(dim=1)
    right_bottom = boxes[..., 2:].masked_fill(~mask[..., None], -torch.inf).amax(dim=1)
    return torch.cat([left_top, right_bottom], dim=1)


def different_boxes(boxes: Tensor, scores: Tensor, most: float) -> Tensor:
    """The numbers of boxes, the best first, without those that overlap a better one by more than `most`: (K,) int64.

    This is non-maximum suppression of boxes (N, 4) by their scores (N,). Torchvision's operator is not on every machine.
    """
    order = scores.argsort(descending=True, stable=True)
    kept: list[int] = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[overlap(boxes[order], boxes[best]) <= most]
    return torch.tensor(kept, dtype=torch.int64)
