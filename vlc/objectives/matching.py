"""Which images a batch's texts are matched with."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vlc.common.inputs import Sizes
from vlc.data.batch import Batch


@dataclass(frozen=True)
class Pairs:
    """labels (B,) int64, 1 = the text's own image; images (B, 3, H, W) and their sizes (B,), as in `Batch`."""

    labels: Tensor
    images: Tensor
    sizes: Sizes | None


def match_labels(draw: Tensor) -> Tensor:
    """Half of the batch (rounded down), the smallest draws (B,), keeps its image: labels (B,) int64, 1 = match."""
    rank = draw.argsort().argsort()
    return (rank < len(draw) // 2).long()


def pairs(batch: Batch) -> Pairs:
    """The images that go with the texts: half of them others, from the batch or from the data set.

    An example for which the batch has no other image stays a match.
    """
    labels, true, sizes = match_labels(batch.match_draw), batch.images[:, 0], batch.sizes_of(0)
    if batch.negative_images is not None:
        false = batch.negative_images[:, 0]
    else:
        false = true[batch.negative]
        alone = batch.negative == torch.arange(len(true), device=true.device)
        labels = labels | alone.long()
    if sizes is not None:
        others = sizes[batch.negative] if batch.negative_sizes is None else batch.negative_sizes[:, 0]
        sizes = Sizes(torch.where(labels.bool()[:, None], sizes.pixels, others.pixels), sizes.largest)
    return Pairs(labels, torch.where(labels.bool()[:, None, None, None], true, false), sizes)
