"""Boxes in an image: candidates to point at, and what is meant."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlc.common.errors import UserError
from vlc.common.inputs import Tensors, mapped
from vlc.data.geometry import Placement, grid_boxes
from vlc.data.objects import Polygon, class_of, inside, read_outlines
from vlc.data.parts.part import Part
from vlc.data.sample import Sample, SampleSet

SAMPLES = 14  # along each side of a box, where its feature is read
GRID, WHOLE_IMAGE = "grid", "whole_image"  # boxes that no field of the data holds


class PlacedBoxes(NamedTuple):
    """The boxes of one example, (N, 4) float64 in pixels of the image and of the picture.

    classes: (N,) int64, the class of the object in each (`vlc.data.objects.class_of`); None: it is not read.
    outlines: (N, 14, 14) bool, which samples of each box lie in the outline of its object; None: they are not read.
    """

    boxes: np.ndarray
    stored: np.ndarray
    placement: Placement
    classes: np.ndarray | None = None
    outlines: np.ndarray | None = None


@dataclass(frozen=True)
class Regions(Tensors):
    """Boxes (left, top, right, bottom) of B examples, R for each.

    boxes: (B, R, 4) float32, in pixels of the image that is shown, and cut to it.
    stored: (B, R, 4) float32, in pixels of the stored picture.
    mask: (B, R) bool, whether a box is in the image; padding is not, nor is a box that a crop has left out.
    sizes: (B, 2) float32, width and height of what is shown, without padding.
    to_stored: (B, 2, 3) float32, the map from points of the image to points of the picture.
    classes: (B, R) int64, the classes of the objects (`vlc.data.objects.class_of`); None: they are not read.
    outlines: (B, R, 14, 14) bool, which samples of a box, by row and column, count; None: all do.
    """

    boxes: Tensor
    stored: Tensor
    mask: Tensor
    sizes: Tensor
    to_stored: Tensor
    classes: Tensor | None = None
    outlines: Tensor | None = None

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
    names: the field with the name of the object in each box, of a single field; empty: its class is not read.
    outlines: the field with the outline of the object in each box, of a single field; empty: it is not read.
    """

    name: str = "regions"
    fields: tuple[str, ...] = ("boxes",)
    tested: tuple[str, ...] = ()
    presence: str = "always"
    given: bool = False
    names: str = ""
    outlines: str = ""
    needs_placements: bool = True

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({*self.fields, *self.tested, self.names, self.outlines} - {GRID, WHOLE_IMAGE, ""})

    def of(self, sample: Sample, samples: SampleSet) -> PlacedBoxes:
        fields = self.fields if samples.training or not self.tested else self.tested
        given = {name: sample.source.field(sample.where, name) for name in fields if name not in (GRID, WHOLE_IMAGE)}
        placement = sample.placements[0]
        assert placement is not None  # the start of the run refuses pipelines that do not know it
        placed = joined([placed_boxes(name, given.get(name), placement) for name in fields])
        names, outlines = (
            sample.source.field(sample.where, name) if name else None for name in (self.names, self.outlines)
        )
        try:
            return with_objects(placed, names, None if outlines is None else read_outlines(outlines))
        except ValueError as error:
            raise UserError(f"split {samples.name!r}: {self.outlines} of a row: {error}") from error

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


def with_objects(
    placed: PlacedBoxes, names: Sequence[str] | None, outlines: Sequence[Sequence[Polygon]] | None
) -> PlacedBoxes:
    """Boxes with the objects in them: their names, and their outlines in pixels of the picture, a list of polygons each.

    Of an object without an outline, or whose outline has none of the samples, all of the box counts. Raises ValueError
    where there are not as many as boxes.
    """
    classes = shown = None
    for found in filter(None, (names, outlines)):
        if len(found) != len(placed.boxes):
            raise ValueError(f"{len(found)} objects for {len(placed.boxes)} boxes")
    if names is not None:
        classes = np.array([class_of(name) for name in names], dtype=np.int64)
    if outlines is not None:
        shares = (np.arange(SAMPLES) + 0.5) / SAMPLES
        start, extent = placed.boxes[:, None, :2], placed.boxes[:, None, 2:] - placed.boxes[:, None, :2]
        x, y = np.moveaxis(start + extent * shares[:, None], 2, 0)  # (N, 14) each
        points = np.stack(np.broadcast_arrays(x[:, None, :], y[:, :, None], 1.0), axis=-1)
        points = points @ placed.placement.inverse().T  # of the picture, as a mirrored image has mirrored outlines
        shown = np.zeros(points.shape[:-1], dtype=bool)
        for own, where, polygons in zip(shown, points, outlines, strict=True):
            own[:] = inside(where, polygons)
            own |= not own.any()
    return placed._replace(classes=classes, outlines=shown)


def joined(parts: Sequence[PlacedBoxes]) -> PlacedBoxes:
    """The boxes of several fields of an example, one after the other."""
    boxes, stored = (np.concatenate(found) for found in zip(*(part[:2] for part in parts), strict=True))
    return PlacedBoxes(boxes, stored, parts[0].placement)


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
    classes = None if cells[0].classes is None else torch.zeros(*shape, dtype=torch.int64)
    outlines = None if cells[0].outlines is None else torch.ones(*shape, SAMPLES, SAMPLES, dtype=torch.bool)
    for row, cell in enumerate(cells):
        if classes is not None and cell.classes is not None:
            classes[row, : len(cell.classes)] = torch.from_numpy(cell.classes)
        if outlines is not None and cell.outlines is not None:
            outlines[row, : len(cell.outlines)] = torch.from_numpy(cell.outlines)
    return Regions(boxes, stored, mask, sizes, to_stored, classes, outlines)
