"""Regions: a feature for each box of an image, pooled from the patches under it, and boxes as tokens of a pass."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlc.data.parts.regions import Regions
from vlc.model.embed import init_bert_weights
from vlc.model.segments import Segment

_BINS, _SAMPLES = 7, 2  # along each side of a box, and of a bin: SAMPLES of a box


class RegionPooler(nn.Module):
    """Boxes of an image -> a feature for each: the mean of RoIAlign (He et al. 2017, Mask R-CNN), plus the box's location.

    A box has 7 x 7 bins of 2 x 2 samples, which are interpolated between the centres of patches, as Detectron2 aligns
    them. The samples form a grid, so the weight of a patch in their mean is the product of its row's and its column's
    weight. One product of matrices thus gives all means. Every device computes it, and no operator of torchvision is
    needed, which some machines lack. Where objects have outlines, the mean is that of the samples in them. VL-BERT (Su et
    al. 2020) sets the other samples to zero instead, and keeps the mean of all. The location enters through a linear
    layer, as in ViLBERT (Lu et al. 2019).
    """

    def __init__(self, width: int):
        super().__init__()
        self.location = nn.Linear(5, width)

    def forward(
        self, image: Segment, boxes: Tensor, sizes: Tensor, patch_size: int, outlines: Tensor | None = None
    ) -> Tensor:
        """Return (B, R, D) float32. Boxes that are padding get finite values without a meaning.

        image: the segment of the images. It has all patches, in any order.
        boxes: (B, R, 4) float32, left, top, right and bottom in pixels of the image.
        sizes: (B, 2) float32, width and height in pixels of what is shown; padding lies below and on the right.
        outlines: (B, R, 14, 14) bool, which samples count, one at the least; None: all do.

        Raises ValueError if patches were dropped, or the segment is no image.
        """
        if image.grid is None or image.patches is not None:
            raise ValueError(f"boxes are pooled from all patches of an image, and segment {image.name!r} lacks some")
        weights = patch_weights(boxes / patch_size, image.grid, (sizes.flip(1) / patch_size).ceil(), outlines)
        if image.patch_indices is not None:
            weights = weights.gather(2, image.patch_indices[:, None].expand(-1, boxes.shape[1], -1))
        with torch.autocast(boxes.device.type, enabled=False):  # half precision would move a box by pixels
            location = F.linear(locations(boxes, sizes), self.location.weight.float(), self.location.bias.float())
            return torch.baddbmm(location, weights, image.tokens[:, 1:].float())


class TagLinks(nn.Module):
    """Ties words to the boxes that they name by a tag, as VL-BERT (Su et al. 2020) grounds the words of VCR.

    A tagged word gains the embedding of its tag, which the token of its box gains too, and a projection of the box's
    feature, which is zero at first. Tag k names the k-th box. Boxes beyond the last embedding have the projection alone.
    """

    def __init__(self, width: int, num_tags: int):
        super().__init__()
        self.embedding = nn.Embedding(num_tags, width)
        self.projection = nn.Linear(width, width, bias=False)

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, R, D) of boxes -> what their tokens gain (R, D), and what words gain by their tags (B, 1 + R, D).

        mask: (B, R) bool; a word that names a box which is not in the image gains the embedding alone.
        """
        weight, count = self.embedding.weight, features.shape[1]
        names = F.pad(weight, (0, 0, 0, max(count - len(weight), 0)))[:count]
        projected = self.projection(features) * mask[..., None]
        return names, F.pad(names + projected, (0, 0, 1, 0))  # tag 0 is no box


class BoxTokens(nn.Module):
    """Boxes as tokens of an encoder pass. They have no order: all get the same embedding of their type.

    A box's token starts as the feature that `RegionPooler` pools from the patches before the blocks. The patches bring
    their positions and the image's type along.

    num_tags: the number of tags that have an embedding; 0: texts have no tags.
    num_classes: the number of classes of objects that have an embedding, which the feature of a box gains, as in VL-BERT
        (Su et al. 2020); 0: classes are not read.
    """

    def __init__(self, width: int, num_tags: int, num_classes: int = 0):
        super().__init__()
        self.pooler = RegionPooler(width)
        self.type_embedding = nn.Parameter(torch.empty(width))
        self.links = TagLinks(width, num_tags) if num_tags else None
        self.classes = nn.Embedding(num_classes, width) if num_classes else None
        self.apply(init_bert_weights)
        nn.init.normal_(self.type_embedding, std=0.02)
        if self.links is not None:
            nn.init.zeros_(self.links.projection.weight)

    def pooled(self, image: Segment, given: Regions, patch_size: int) -> Segment:
        """Return the features of boxes as the segment "boxes" (B, R, D); image: its segment before the blocks."""
        features = self.pooler(image, given.boxes, given.sizes, patch_size, given.outlines)
        if self.classes is not None and given.classes is not None:
            features = features + self.classes(given.classes)
        return Segment("boxes", features.to(image.tokens.dtype), given.mask)

    def forward(self, segments: Sequence[Segment], tags: Sequence[Tensor | None]) -> list[Segment]:
        """Return the segments of a pass, with boxes as tokens and tagged words linked to them.

        segments: one of them is "boxes", with the features that `pooled` returns for B images.
        tags: of each segment, (B * n, L) int64 for n texts an image, as in `Text`; None: it has no tags.
        """
        boxes = next(segment for segment in segments if segment.name == "boxes")
        tokens, links = boxes.tokens + self.type_embedding, None
        if self.links is not None:
            assert boxes.mask is not None
            names, links = self.links(boxes.tokens, boxes.mask)
            tokens = tokens + names
        placed = []
        for segment, own in zip(segments, tags, strict=True):
            if segment is boxes:
                segment = replace(segment, tokens=tokens)
            elif own is not None and links is not None:
                places = own.view(len(links), -1, 1).expand(-1, -1, links.shape[2])
                segment = replace(segment, tokens=segment.tokens + links.gather(1, places).view_as(segment.tokens))
            placed.append(segment)
        return placed


def patch_weights(boxes: Tensor, grid: tuple[int, int], extents: Tensor, outlines: Tensor | None) -> Tensor:
    """Return the weight (B, R, P) of each patch in the mean of a box, row by row; arguments as in `bin_weights`.

    outlines: (B, R, 14, 14) bool, which samples count, one at the least; None: all do.
    """
    if outlines is None:
        rows, columns = (weights.mean(2) for weights in bin_weights(boxes, grid, extents, _BINS))
        return (rows[..., :, None] * columns[..., None, :]).flatten(2)
    rows, columns = _sample_weights(boxes, grid, extents, _BINS * _SAMPLES)
    shares = outlines.float() / outlines.sum(dim=(2, 3), keepdim=True)
    return (rows.mT @ shares @ columns).flatten(2)


def bin_weights(boxes: Tensor, grid: tuple[int, int], extents: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Return the weights of rows (B, R, bins, rows) and of columns (B, R, bins, columns) in the bins of boxes.

    Bin (i, j) of RoIAlign is the sum over a grid of features, with rows[i] and columns[j] as its weights.

    boxes: (B, R, 4), in cells of the grid.
    grid: the numbers of rows and columns, with padding.
    extents: (B, 2), the numbers of rows and columns without padding. Samples beyond the centres of the outermost cells
        take the values of these.
    """
    rows, columns = _sample_weights(boxes, grid, extents, bins * _SAMPLES)
    return rows.unflatten(2, (bins, _SAMPLES)).mean(3), columns.unflatten(2, (bins, _SAMPLES)).mean(3)


def _sample_weights(boxes: Tensor, grid: tuple[int, int], extents: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the weights of rows (B, R, count, rows) and of columns (B, R, count, columns) in the samples of boxes."""
    shares = (torch.arange(count, device=boxes.device) + 0.5) / count
    weights = []
    for axis, length in enumerate(grid):
        start, end = boxes[..., 1 - axis, None], boxes[..., 3 - axis, None]
        samples = start + (end - start) * shares - 0.5  # the centre of cell i is at i
        samples = samples.clamp(min=0).minimum(extents[:, axis, None, None] - 1)
        distances = (samples[..., None] - torch.arange(length, device=boxes.device)).abs()
        weights.append((1 - distances).clamp(min=0))
    return weights[0], weights[1]


def locations(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (B, R, 4) in images of width and height (B, 2) -> left, top, right, bottom and area as shares, (B, R, 5)."""
    shares = boxes / sizes.repeat(1, 2)[:, None]
    area = (shares[..., 2:] - shares[..., :2]).prod(-1, keepdim=True)
    return torch.cat([shares, area], dim=-1)
