"""Boxes in an image: candidates to point at, and what is meant."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlc.common.inputs import Tensors, mapped
from vlc.data.geometry import Placement, grid_boxes
from vlc.data.parts.part import Part
from vlc.data.sample import Sample, SampleSet

GRID, WHOLE_IMAGE = "grid", "whole_image"  # boxes that no field of the data holds


class PlacedBoxes(NamedTuple):
    """The boxes of one example, (N, 4) float64 in pixels of the image and of the picture."""

    boxes: np.ndarray
    stored: np.ndarray
    placement: Placement


@dataclass(frozen=True)
class Regions(Tensors):
    """Boxes (left, top, right, bottom) of B examples, R for each.

    boxes: (B, R, 4) float32, in pixels of the image that is shown, and cut to it.
    stored: (B, R, 4) float32, in pixels of the stored picture.
    mask: (B, R) bool, whether a box is in the image; padding is not, nor is a box that a crop has left out.
    sizes: (B, 2) float32, width and height of what is shown, without padding.
    to_stored: (B, 2, 3) float32, the map from points of the image to points of the picture.
    """

    boxes: Tensor
    stored: Tensor
    mask: Tensor
    sizes: Tensor
    to_stored: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def at(self, rows: slice) -> "Regions":
        """The boxes of the examples at these rows."""
        return mapped(self, Tensor, lambda tensor: tensor[rows])


@dataclass(frozen=True)
class Boxes(Part):
    """`Regions`: the boxes of some fields in their order, those of the first field first.

    name: of the part.
    fields: fields of the catalogue's row; GRID stands for boxes all over the image, and WHOLE_IMAGE for one around it.
    tested: the fields in evaluation, where they are others.
    presence: see `Part`.
    given: a text is about these boxes; otherwise they are candidates, or what is meant.
    """

    name: str = "regions"
    fields: tuple[str, ...] = ("boxes",)
    tested: tuple[str, ...] = ()
    presence: str = "always"
    given: bool = False
    needs_placements: bool = True

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({*self.fields, *self.tested} - {GRID, WHOLE_IMAGE})

    def of(self, sample: Sample, samples: SampleSet) -> PlacedBoxes:
        fields = self.fields if samples.training or not self.tested else self.tested
        given = {name: sample.source.field(sample.where, name) for name in fields if name not in (GRID, WHOLE_IMAGE)}
        placement = sample.placements[0]
        assert placement is not None  # the start of the run refuses pipelines that do not know it
        return joined([placed_boxes(name, given.get(name), placement) for name in fields])

    def collate(self, cells: list[PlacedBoxes], samples: SampleSet) -> Regions:
        return padded_regions(cells)


def placed_boxes(name: str, given: Sequence[Sequence[float]] | None, placement: Placement) -> PlacedBoxes:
    """The boxes of a field of this name, whose value in pixels of the picture is given, or those of GRID or WHOLE_IMAGE."""
    width, height = placement.size
    if name in (GRID, WHOLE_IMAGE):
        boxes = grid_boxes(width, height) if name == GRID else np.array([[0.0, 0, width, height]])
        return PlacedBoxes(boxes, placement.stored(boxes), placement)
    stored = np.array([] if given is None else given, dtype=np.float64).reshape(-1, 4)
    return PlacedBoxes(placement.boxes(stored), stored, placement)


def joined(parts: Sequence[PlacedBoxes]) -> PlacedBoxes:
    """The boxes of several fields of an example, one after the other."""
    boxes, stored, placements = zip(*parts, strict=True)
    return PlacedBoxes(np.concatenate(boxes), np.concatenate(stored), placements[0])


def padded_regions(cells: Sequence[PlacedBoxes]) -> Regions:
    """The boxes of several examples, padded to equally many, with one at the least."""
    shape = len(cells), max(1, *(len(cell.boxes) for cell in cells))
    boxes, stored, mask = torch.zeros(*shape, 4), torch.zeros(*shape, 4), torch.zeros(*shape, dtype=torch.bool)
    for row, cell in enumerate(cells):
        count = len(cell.boxes)
        boxes[row, :count] = torch.from_numpy(cell.boxes)
        stored[row, :count] = torch.from_numpy(cell.stored)
        mask[row, :count] = torch.from_numpy((cell.boxes[:, 2:] > cell.boxes[:, :2]).all(axis=1))
    sizes = torch.tensor([cell.placement.size for cell in cells], dtype=torch.float32)
    to_stored = torch.stack([torch.from_numpy(cell.placement.inverse()).float() for cell in cells])
    return Regions(boxes, stored, mask, sizes, to_stored)
