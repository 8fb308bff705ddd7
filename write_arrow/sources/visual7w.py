"""Visual7W, pointing: which of four boxes answers a question? https://ai.stanford.edu/~yukez/visual7w (Zhu et al. 2016)

The boxes of a question stand in the order of their numbers, so that the place of the right one tells nothing. The right one
is known by its number: another box of the same shape is wrong. The annotations do not state how large the pictures are, so
boxes are cut to them when they are written.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from vlc.common.errors import UserError
from write_arrow.machine.boxes import Cutter, corners
from write_arrow.machine.conversion import Conversion
from write_arrow.machine.plans import Groups
from write_arrow.machine.source import RawSource
from write_arrow.machine.writer import PlannedTable

SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "questions": pa.list_(pa.string()),
        "boxes": pa.list_(pa.list_(pa.list_(pa.float64()))),
        "box_ids": pa.list_(pa.list_(pa.int64())),
        "answer_index": pa.list_(pa.int64()),
        "qa_id": pa.list_(pa.int64()),
        "question_types": pa.list_(pa.string()),
        "width": pa.int64(),
        "height": pa.int64(),
        "image_id": pa.int64(),
        "split": pa.string(),
    }
)
SPLITS = ("train", "val", "test")
_FILE = "dataset_v7w_pointing.json"
_CHOICES = 4
# The columns that have a value for each question.
_LISTS = ("questions", "boxes", "box_ids", "answer_index", "qa_id", "question_types")


def tables(conversion: Conversion) -> list[PlannedTable]:
    """visual7w_{train,val,test}: an image with its questions and the four boxes of each."""
    files, boxes = conversion.files("images"), conversion.groups(_boxes(conversion))
    made, num_questions = {split: conversion.plans() for split in SPLITS}, dict.fromkeys(SPLITS, 0)
    for entry in conversion.entries(_FILE, "images"):
        number, name, split, pairs = conversion.typed(
            entry, _FILE, image_id=int, filename=str, split=str, qa_pairs=list
        )
        if split not in made:
            raise UserError(f"{conversion.root.where(_FILE)}: image {number} has split {split!r}, not one of {SPLITS}")
        path = f"images/{name}"
        file, plans, usable = files.get(path), made[split], []
        if file is None:
            plans.reject(path, f"no such file; {len(pairs)} questions are about it")
            continue
        for pair in pairs:
            columns = _columns(pair, boxes, conversion)
            if isinstance(columns, str):
                plans.reject(path, columns)
            else:
                usable.append(columns)
        if usable:
            plans.append([file], **_row(usable), image_id=number, split=split)
            num_questions[split] += len(usable)
    for split, plans in made.items():
        conversion.notes.append(
            f"visual7w_{split}: {num_questions[split]:,} questions about {plans.num_planned:,} images; "
            f"{plans.num_rejected:,} images and questions were left out"
        )
    return [
        table
        for split, plans in made.items()
        for table in conversion.table(f"visual7w_{split}", SCHEMA, plans, measured=_in_picture)
    ]


def _boxes(conversion: Conversion) -> Iterator[tuple[int, list[float]]]:
    """Each box with its number."""
    for entry in conversion.entries(_FILE, "boxes"):
        (number,) = conversion.typed(entry, _FILE, box_id=int)
        sides = conversion.pick(entry, _FILE, "x", "y", "width", "height")
        yield number, corners(sides, f"{conversion.root.where(_FILE)}, box {number}")


def _columns(pair: Mapping[str, Any], boxes: Groups[int], conversion: Conversion) -> dict[str, Any] | str:
    """The values of a question, or why it cannot be asked."""
    number, text, answer, others, kind = conversion.typed(
        pair, _FILE, qa_id=int, question=str, answer=int, multiple_choices=list, type=str
    )
    if not text.strip():
        return f"question {number} has no text"
    numbers = (conversion.typed({"multiple_choices": other}, _FILE, multiple_choices=int) for other in others)
    candidates = sorted({answer, *(other for (other,) in numbers)})
    if len(candidates) != _CHOICES:
        return f"question {number} has {len(candidates)} different boxes, expected {_CHOICES}"
    found = [boxes[candidate] for candidate in candidates]
    for candidate, same in zip(candidates, found, strict=True):
        if len(same) != 1:
            return f"question {number} names box {candidate}, of which there are {len(same)}"
    return {
        "questions": text,
        "boxes": [box for (box,) in found],
        "box_ids": candidates,
        "answer_index": candidates.index(answer),
        "qa_id": number,
        "question_types": kind,
    }


def _row(questions: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The columns of a row that have a value for each of its questions."""
    return {name: [question[name] for question in questions] for name in _LISTS}


def _in_picture(values: dict[str, Any], width: int, height: int) -> tuple[dict[str, Any], list[str]]:
    """The values of a row, whose boxes are cut to its picture, and which boxes and questions are left out."""
    cutter, kept, problems = Cutter(), [], []
    for columns in zip(*(values[name] for name in _LISTS), strict=True):
        question = dict(zip(_LISTS, columns, strict=True))
        numbers, answer = question["box_ids"], question["box_ids"][question["answer_index"]]
        cut = (cutter.cut(box, width, height) for box in question["boxes"])
        boxes = {number: box for number, box in zip(numbers, cut, strict=True) if box}
        left_out = ", ".join(str(number) for number in numbers if number not in boxes)
        if answer in boxes:
            places = {"box_ids": [*boxes], "boxes": [*boxes.values()], "answer_index": [*boxes].index(answer)}
            kept.append(question | places)
        if left_out:
            what = "its boxes" if answer in boxes else "the question, as its answer is among the boxes"
            problems.append(
                f"question {question['qa_id']}: left out were {what} without area in the picture: {left_out}"
            )
    return values | _row(kept) | {"width": width, "height": height}, problems


SOURCES = {"visual7w": RawSource("Visual7W, pointing at one of four boxes", f"{_FILE}, images/v7w_*.jpg", tables)}
