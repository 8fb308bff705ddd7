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
    choice, (own, sizes) = batch.parts["wrong_images"], batch.images.at(0)
    labels = match_labels(choice.keeps_own_image)
    if choice.images is not None:
        wrong, wrong_sizes = choice.images.at(0)
    else:
        wrong, wrong_sizes = own[choice.rows], None if sizes is None else sizes[choice.rows]
        alone = choice.rows == torch.arange(len(own), device=own.device)
        labels = labels | alone.long()
    if sizes is not None:
        sizes = Sizes(torch.where(labels.bool()[:, None], sizes.pixels, wrong_sizes.pixels), sizes.largest)
    return Pairs(labels, torch.where(labels.bool()[:, None, None, None], own, wrong), sizes)
