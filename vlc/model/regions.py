"""Regions: a feature for each box of an image, pooled from the patches under it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlc.model.segments import Segment

_BINS, _SAMPLES = 7, 2  # along each side of a box, and of a bin


class RegionPooler(nn.Module):
    """Boxes of an image -> a feature for each: the mean of RoIAlign (He et al. 2017, Mask R-CNN), plus the box's location.

    A box has 7 x 7 bins of 2 x 2 samples, which are interpolated between the centres of patches, as Detectron2 aligns
    them. The samples form a grid, so the weight of a patch in their mean is the product of its row's and its column's
    weight. One product of matrices thus gives all means. Every device computes it, and no operator of torchvision is
    needed, which some machines lack. The location enters through a linear layer, as in ViLBERT (Lu et al. 2019).
    """

    def __init__(self, width: int):
        super().__init__()
        self.location = nn.Linear(5, width)

    def forward(self, image: Segment, boxes: Tensor, sizes: Tensor, patch_size: int) -> Tensor:
        """Return (B, R, D) float32. Boxes that are padding get finite values without a meaning.

        image: the segment of the images. It has all patches, in any order.
        boxes: (B, R, 4) float32, left, top, right and bottom in pixels of the image.
        sizes: (B, 2) float32, width and height in pixels of what is shown; padding lies below and on the right.

        Raises ValueError if patches were dropped, or the segment is no image.
        """
        if image.grid is None or image.patches is not None:
            raise ValueError(f"boxes are pooled from all patches of an image, and segment {image.name!r} lacks some")
        extents = (sizes.flip(1) / patch_size).ceil()
        rows, columns = (weights.mean(2) for weights in bin_weights(boxes / patch_size, image.grid, extents, _BINS))
        weights = (rows[..., :, None] * columns[..., None, :]).flatten(2)
        if image.patch_indices is not None:
            weights = weights.gather(2, image.patch_indices[:, None].expand(-1, boxes.shape[1], -1))
        with torch.autocast(boxes.device.type, enabled=False):  # half precision would move a box by pixels
            location = F.linear(locations(boxes, sizes), self.location.weight.float(), self.location.bias.float())
            return torch.baddbmm(location, weights, image.tokens[:, 1:].float())


def bin_weights(boxes: Tensor, grid: tuple[int, int], extents: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Return the weights of rows (B, R, bins, rows) and of columns (B, R, bins, columns) in the bins of boxes.

    Bin (i, j) of RoIAlign is the sum over a grid of features, with rows[i] and columns[j] as its weights.

    boxes: (B, R, 4), in cells of the grid.
    grid: the numbers of rows and columns, with padding.
    extents: (B, 2), the numbers of rows and columns without padding. Samples beyond the centres of the outermost cells
        take the values of these.
    """
    shares = (torch.arange(bins * _SAMPLES, device=boxes.device) + 0.5) / (bins * _SAMPLES)
    weights = []
    for axis, length in enumerate(grid):
        start, end = boxes[..., 1 - axis, None], boxes[..., 3 - axis, None]
        samples = start + (end - start) * shares - 0.5  # the centre of cell i is at i
        samples = samples.clamp(min=0).minimum(extents[:, axis, None, None] - 1)
        distances = (samples[..., None] - torch.arange(length, device=boxes.device)).abs()
        weights.append((1 - distances).clamp(min=0).unflatten(2, (bins, _SAMPLES)).mean(3))
    return weights[0], weights[1]


def locations(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (B, R, 4) in images of width and height (B, 2) -> left, top, right, bottom and area as shares, (B, R, 5)."""
    shares = boxes / sizes.repeat(1, 2)[:, None]
    area = (shares[..., 2:] - shares[..., :2]).prod(-1, keepdim=True)
    return torch.cat([shares, area], dim=-1)
