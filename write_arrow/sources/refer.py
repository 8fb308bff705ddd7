"""Referring expressions: RefCOCO, RefCOCO+, RefCOCOg and RefClef, as REFER distributes them. https://github.com/lichengunc/refer

A row is an image with its expressions (`raw`, as they were typed). The candidates (`boxes`) are all annotated boxes of the
image. `--by` chooses the division. A test label with several letters, such as testAB of RefClef, belongs to each of their
tables. `--detections FILE` adds the boxes of a detector: the list that MAttNet published.

The pickle of expressions is read without running code in it. Boxes are cut to their image. An expression without text, or
whose box has no size in the image, is left out and listed; so is an image of another size than instances.json states.
"""

import os
from argparse import ArgumentParser
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vlc.common.errors import UserError
from write_arrow.machine import pickled
from write_arrow.machine.boxes import Cutter, corners
from write_arrow.machine.conversion import Conversion, value_columns
from write_arrow.machine.plans import Files, Groups, Plans
from write_arrow.machine.source import RawSource
from write_arrow.machine.storage import StoredFile
from write_arrow.machine.writer import PlannedTable

_BOX = pa.list_(pa.float64())
_NUMBERS = pa.list_(pa.int64())
SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "expressions": pa.list_(pa.string()),
        "sent_id": _NUMBERS,
        "ref_id": _NUMBERS,  # an object that is referred to, often by several expressions
        "ann_id": _NUMBERS,
        "target_boxes": pa.list_(pa.list_(_BOX)),
        "answer_index": _NUMBERS,  # the place of the target among `boxes`
        "boxes": pa.list_(_BOX),
        "box_ids": _NUMBERS,  # the ann_id of each
        "width": pa.int64(),
        "height": pa.int64(),
        "image_id": pa.int64(),
        "split": pa.string(),
    }
)
_DETECTIONS = (pa.field("proposal_boxes", pa.list_(_BOX)), pa.field("proposal_scores", pa.list_(pa.float64())))
_COCO = "images/mscoco/images/train2014"
_OVERLAPPING = ("refcocog", "google")


@dataclass(frozen=True)
class DataSet:
    """One of REFER's data sets.

    name: the folder of its annotations.
    stem: with which its tables begin.
    summary: a line for the list of commands.
    images: the folder of its images.
    divisions: the splits of each division; the first one is the usual division.
    """

    name: str
    stem: str
    summary: str
    images: str
    divisions: dict[str, tuple[str, ...]]

    @property
    def usual(self) -> str:
        return next(iter(self.divisions))

    def table_stem(self, by: str, split: str) -> str:
        return "_".join((self.stem, *([] if by == self.usual else [by]), split))

    def source(self) -> RawSource:
        def add_options(parser: ArgumentParser) -> None:
            _add_options(parser, self)

        def tables(conversion: Conversion) -> list[PlannedTable]:
            """A table for each split: an image with its expressions, their boxes, and all boxes of the image."""
            return _tables(self, conversion)

        by = self.usual if len(self.divisions) == 1 else f"{{{','.join(self.divisions)}}}"
        layout = f"{self.name}/refs({by}).p, {self.name}/instances.json, {self.images}/*.jpg"
        return RawSource(self.summary, layout, tables, add_options)


DATA_SETS = {
    one.name: one
    for one in (
        DataSet(
            "refcoco",
            "refcoco",
            "RefCOCO: expressions that refer to an object of an image",
            _COCO,
            {"unc": ("train", "val", "testA", "testB"), "google": ("train", "val", "test")},
        ),
        DataSet(
            "refcoco+",
            "refcoco_plus",
            "RefCOCO+: referring expressions without words of place",
            _COCO,
            {"unc": ("train", "val", "testA", "testB")},
        ),
        DataSet(
            "refcocog",
            "refcocog",
            "RefCOCOg: longer referring expressions",
            _COCO,
            {"umd": ("train", "val", "test"), "google": ("train", "val")},
        ),
        DataSet(
            "refclef",
            "refclef",
            "RefClef: referring expressions of ReferItGame",
            "images/saiapr_tc-12",
            {"unc": ("train", "val", "testA", "testB", "testC"), "berkeley": ("train", "val", "test")},
        ),
    )
}


def _add_options(parser: ArgumentParser, data_set: DataSet) -> None:
    parser.add_argument(
        "--by", choices=data_set.divisions, default=data_set.usual, help="the division (default: %(default)s)"
    )
    if data_set.name == _OVERLAPPING[0]:
        parser.add_argument(
            "--allow-overlap",
            action="store_true",
            help=f"write --by {_OVERLAPPING[1]}, whose training images are also in validation",
        )
    parser.add_argument(
        "--detections",
        metavar="FILE",
        help="JSON list of boxes of a detector, as detections/NAME_BY/res101_coco_minus_refer_notime_dets.json",
    )


def _tables(data_set: DataSet, conversion: Conversion) -> list[PlannedTable]:
    by = conversion.options.by
    if (data_set.name, by) == _OVERLAPPING and not conversion.options.allow_overlap:
        raise UserError(
            f"{data_set.name} --by {by} has training images in validation too, so that its accuracy says little: leave "
            "--by out, or pass --allow-overlap"
        )
    pictures = _Pictures(data_set.name, conversion)
    splits = {split: _Split(conversion) for split in data_set.divisions[by]}
    path = f"{data_set.name}/refs({by}).p"
    for reference in _references(path, conversion):
        for name in _memberships(reference, path, splits, conversion):
            splits[name].add(reference, path, pictures, conversion)
    conversion.notes += pictures.notes
    files, made = conversion.files(data_set.images), []
    for split, found in splits.items():
        stem = data_set.table_stem(by, split)
        if not found.expressions.num_values and not found.plans.num_rejected:
            conversion.notes.append(f"{stem} is not written: {path} has no expression of it")
            continue
        plans = _plans(split, found, pictures, files, data_set.images, conversion)
        conversion.notes.append(f"{stem}: {plans.num_planned:,} images, {found.expressions.num_values:,} expressions")
        made += conversion.table(stem, pictures.schema, plans)
    return made


class _Pictures:
    """The images of instances.json with their boxes, and the boxes of a detector if there are any."""

    def __init__(self, name: str, conversion: Conversion):
        path = f"{name}/instances.json"
        self._sizes: Groups[int] = conversion.groups()
        for entry in conversion.entries(path, "images"):
            number, file_name, width, height = conversion.typed(
                entry, path, id=int, file_name=str, width=int, height=int
            )
            self._sizes.add(number, {"file_name": file_name, "width": width, "height": height})
        self.notes: list[str] = []
        cutter = Cutter()
        self._boxes: Groups[int] = conversion.groups(self._annotated(path, cutter, conversion))
        self.notes.append(cutter.note(f"{self._boxes.num_values:,} annotated boxes"))
        self._detected: Groups[int] | None = None
        if conversion.options.detections:
            cutter, self._num_elsewhere = Cutter(), 0
            self._detected = conversion.groups(self._detections(conversion.options.detections, cutter, conversion))
            told = cutter.note(f"{self._detected.num_values:,} detected boxes")
            self.notes.append(f"{told}, and {self._num_elsewhere:,} are in images that {path} lacks")

    @property
    def schema(self) -> pa.Schema:
        return SCHEMA if self._detected is None else pa.schema([*SCHEMA, *_DETECTIONS])

    def _annotated(self, path: str, cutter: Cutter, conversion: Conversion) -> Iterator[tuple[int, Any]]:
        for entry in conversion.entries(path, "annotations"):
            number, image, box = conversion.typed(entry, path, id=int, image_id=int, bbox=list)
            where = f"{conversion.root.where(path)}: annotation {number}"
            picture = self.get(image)
            if picture is None:
                raise UserError(f"{where} is of image {image}, which the file lacks: fetch it again")
            cut = cutter.cut(corners(box, where), picture["width"], picture["height"])
            if cut is not None:
                yield image, (number, cut)

    def _detections(self, path: str, cutter: Cutter, conversion: Conversion) -> Iterator[tuple[int, Any]]:
        path = conversion.named(path)
        for entry in conversion.entries(path):
            image, box = conversion.typed(entry, path, image_id=int, box=list)
            (score,) = conversion.pick(entry, path, "score")
            picture = self.get(image)
            if picture is None:
                self._num_elsewhere += 1
                continue
            where = f"{conversion.root.where(path)}: a detection in image {image}"
            cut = cutter.cut(corners(box, where), picture["width"], picture["height"])
            if cut is not None:
                yield image, (cut, score)

    def get(self, image: int) -> dict[str, Any] | None:
        """File name, width and height of an image; None if instances.json lacks it."""
        return next(iter(self._sizes[image]), None)

    def boxes(self, image: int) -> dict[int, list[float]]:
        """The boxes of an image by their ann_id."""
        return dict(self._boxes[image])

    def values(self, image: int) -> dict[str, Any]:
        """The values of an image's row that are the same for all its expressions."""
        picture, boxes = self.get(image), self.boxes(image)
        assert picture is not None, "expressions about other images are rejected"
        same = {"boxes": list(boxes.values()), "box_ids": list(boxes), "image_id": image}
        if self._detected is not None:
            detected = self._detected[image]
            same |= {
                "proposal_boxes": [box for box, _ in detected],
                "proposal_scores": [score for _, score in detected],
            }
        return same | {"width": picture["width"], "height": picture["height"]}


class _Split:
    """The expressions of a split by their images, and the plans, which list what is left out."""

    def __init__(self, conversion: Conversion):
        self.expressions: Groups[int] = conversion.groups()
        self.plans: Plans = conversion.plans()

    def add(self, reference: dict, path: str, pictures: _Pictures, conversion: Conversion) -> None:
        """Add the expressions of a reference."""
        number, annotation, image, file_name, sentences = conversion.typed(
            reference, path, ref_id=int, ann_id=int, image_id=int, file_name=str, sentences=list
        )
        boxes = pictures.boxes(image)
        for sentence in sentences:
            sent_id, text = conversion.typed(sentence, path, sent_id=int, raw=str)
            if not text.strip():
                self.plans.reject(file_name, f"the expression {sent_id} has no text")
            elif annotation not in boxes:
                problem = f"refers to the annotation {annotation}, which has no box of positive size in the image"
                self.plans.reject(file_name, f"the expression {sent_id} {problem}")
            else:
                target = {"target_boxes": [boxes[annotation]], "answer_index": list(boxes).index(annotation)}
                ids = {"sent_id": sent_id, "ref_id": number, "ann_id": annotation}
                self.expressions.add(image, {"expressions": text} | ids | target)


def _references(path: str, conversion: Conversion) -> Iterator[Any]:
    with conversion.root.open(path) as file:
        yield from pickled.elements(file, conversion.root.where(path))


def _memberships(reference: Any, path: str, splits: Collection[str], conversion: Conversion) -> list[str]:
    """The splits that a reference belongs to: its label, or those of each letter of a test label such as testAB."""
    number, label = conversion.typed(reference, path, ref_id=int, split=str)
    names = [label] if label in splits else [f"test{letter}" for letter in label[4:] if label.startswith("test")]
    if not names or not all(name in splits for name in names):
        where = conversion.root.where(path)
        raise UserError(f"{where}: the reference {number} is of split {label!r}, not of {', '.join(splits)}")
    return names


def _plans(split: str, found: _Split, pictures: _Pictures, files: Files, folder: str, conversion: Conversion) -> Plans:
    def images(image: int, _: list[dict]) -> dict[str, StoredFile | None]:
        name = pictures.get(image)["file_name"]
        return {f"{folder}/{name}": _file(files, folder, name)}

    return conversion.grouped_rows(
        found.expressions,
        value_columns(pictures.schema),
        images,
        lambda image: pictures.values(image) | {"split": split},
        plans=found.plans,
    )


def _file(files: Files, folder: str, name: str) -> StoredFile | None:
    """The file of an image; SAIAPR TC-12 may lie in sub-folders, as ImageCLEF distributes it."""
    same_name = files.named(os.path.basename(name))
    return files.get(f"{folder}/{name}") or (same_name[0] if len(same_name) == 1 else None)


SOURCES = {name: one.source() for name, one in DATA_SETS.items()} | {"refcoco_plus": DATA_SETS["refcoco+"].source()}
