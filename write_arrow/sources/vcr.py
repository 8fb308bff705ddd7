"""VCR: questions about scenes of films, with answers and rationales to choose from. https://visualcommonsense.com

Zellers et al. 2019, "From Recognition to Cognition". A row is an image with all questions about it. The annotations name
objects by their numbers. In our texts, persons have first names that do not tell the gender, and other objects are named by
their category. A tag for each word tells its box: 0 none, and k box k - 1. A person has the same name throughout an
annotation, and no other person has it there.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from vlc.data.objects import class_of, outline_problem
from vlc.data.references import BadReference, called_by, rendered
from write_arrow.machine.boxes import Cutter
from write_arrow.machine.conversion import Conversion
from write_arrow.machine.plans import Files, Plans
from write_arrow.machine.source import RawSource
from write_arrow.machine.writer import PlannedTable

SPLITS = ("train", "val", "test")
CHOICES = 4  # answers, and rationales, of a question
_TEXT, _TAGS = pa.string(), pa.list_(pa.int64())
SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        # A question with its answers.
        "questions": pa.list_(_TEXT),
        "question_tags": pa.list_(_TAGS),
        "answers": pa.list_(pa.list_(_TEXT)),
        "answer_tags": pa.list_(pa.list_(_TAGS)),
        "answer_index": pa.list_(pa.int64()),
        "annot_id": pa.list_(_TEXT),
        # A question with its right answer, or in the test split with each of its answers, and the rationales.
        "given_questions": pa.list_(_TEXT),
        "given_question_tags": pa.list_(_TAGS),
        "given_answers": pa.list_(_TEXT),
        "given_answer_tags": pa.list_(_TAGS),
        "given_answer_index": pa.list_(pa.int64()),
        "rationales": pa.list_(pa.list_(_TEXT)),
        "rationale_tags": pa.list_(pa.list_(_TAGS)),
        "rationale_index": pa.list_(pa.int64()),
        "given_annot_id": pa.list_(_TEXT),
        # The objects of the image.
        "boxes": pa.list_(pa.list_(pa.float64())),
        "box_ids": pa.list_(pa.int64()),  # their numbers in the annotations
        "box_names": pa.list_(_TEXT),
        "box_scores": pa.list_(pa.float64()),
        "segms": _TEXT,  # JSON: the polygons of each box
        "width": pa.int64(),
        "height": pa.int64(),
        "movie": _TEXT,
        "image_id": _TEXT,
        "split": _TEXT,
    }
)


class Unusable(Exception):
    """The reason why an image or a question is left out."""


class Objects(NamedTuple):
    """What an image shows.

    values: the values of its columns.
    tags: the tag of each object, 0 where it has no box in the image.
    num_without_outline: how many have no polygon.
    num_other: how many are of none of COCO's categories, so that their class is 0.
    """

    values: dict[str, Any]
    tags: list[int]
    num_without_outline: int
    num_other: int


def tables(conversion: Conversion) -> list[PlannedTable]:
    """vcr_{train,val,test}: an image with its objects, and all questions about it."""
    files = conversion.files("vcr1images")
    return [
        one for split in SPLITS for one in conversion.table(f"vcr_{split}", SCHEMA, _plans(split, files, conversion))
    ]


def _plans(split: str, files: Files, conversion: Conversion) -> Plans:
    path, plans, cutter = f"vcr1annots/{split}.jsonl", conversion.plans(), Cutter()
    num_questions = num_without_outline = num_other = 0
    for _, found in conversion.groups(_annotations(path, conversion)):
        (name, metadata, movie, number, names) = conversion.typed(
            found[0], path, img_fn=str, metadata_fn=str, movie=str, img_id=str, objects=list
        )
        image, described = (files.get(f"vcr1images/{one}") for one in (name, metadata))
        if image is None or described is None:
            plans.reject(f"vcr1images/{name if image is None else metadata}", "no such file")
            continue
        try:
            objects = _objects(described.path, names, conversion, cutter)
        except Unusable as error:
            plans.reject(described.name, str(error))
            continue
        values: dict[str, list[Any]] = {}
        for entry in found:
            try:
                for column, cells in text_columns(entry, names, objects.tags, labelled=split != "test").items():
                    values.setdefault(column, []).extend(cells)
            except (Unusable, BadReference) as error:
                plans.reject(f"{path}, {entry['annot_id']}", str(error))
        if values:
            plans.append([image], **values, **objects.values, movie=movie, image_id=number, split=split)
            num_questions += len(values["questions"])
            num_without_outline += objects.num_without_outline
            num_other += objects.num_other
    conversion.notes.append(
        f"vcr_{split}: {plans.num_planned:,} images, {num_questions:,} questions; {plans.num_rejected:,} images or "
        f"questions were left out. {num_without_outline:,} objects have no outline, and {num_other:,} none of the "
        f"80 categories. {cutter.note('Boxes')}"
    )
    return plans


def _annotations(path: str, conversion: Conversion) -> Iterator[tuple[str, dict]]:
    """Each annotation with the name of its image, without the keys that are not read."""
    for entry in conversion.lines(path):
        conversion.typed(
            entry, path, annot_id=str, img_fn=str, question=list, answer_choices=list, rationale_choices=list
        )
        yield entry["img_fn"], {key: value for key, value in entry.items() if key in _READ}


_READ = {
    *("annot_id", "img_fn", "img_id", "metadata_fn", "movie", "objects"),
    *("question", "answer_choices", "rationale_choices", "answer_label", "rationale_label"),
}


def _objects(path: str, names: Sequence[str], conversion: Conversion, cutter: Cutter) -> Objects:
    """The objects of an image, out of its metadata. Raises Unusable where these do not fit the annotations."""
    with conversion.root.open(path) as file:
        try:
            metadata = json.load(file)
            width, height, boxes = int(metadata["width"]), int(metadata["height"]), metadata["boxes"]
            outlines = metadata.get("segms") or [[]] * len(boxes)
            edges = [tuple(map(float, box[:4])) for box in boxes]
            scores = [float(box[4]) for box in boxes]
            found = f"{len(boxes)} boxes and {len(outlines)} outlines"
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            raise Unusable(f"no metadata of an image ({type(error).__name__}: {error})") from error
    if not len(boxes) == len(outlines) == len(names) == sum(isinstance(name, str) for name in names):
        raise Unusable(f"{found}, but the annotations name {len(names)} objects")
    if problem := outline_problem(outlines):
        raise Unusable(problem)
    inside = [cutter.cut(box, width, height) for box in edges]
    places = [number for number, box in enumerate(inside) if box is not None]
    tags = [places.index(number) + 1 if number in places else 0 for number in range(len(boxes))]
    values = {
        "boxes": [inside[number] for number in places],
        "box_ids": places,
        "box_names": [names[number] for number in places],
        "box_scores": [scores[number] for number in places],
        "segms": json.dumps([outlines[number] for number in places]),
        "width": width,
        "height": height,
    }
    num_other = sum(class_of(names[number]) == 0 for number in places)
    return Objects(values, tags, sum(not outlines[number] for number in places), num_other)


def text_columns(
    entry: dict[str, Any], names: Sequence[str], tags: Sequence[int], *, labelled: bool
) -> dict[str, list[Any]]:
    """What a question adds to the columns of its row. Raises Unusable or BadReference where it cannot be shown."""
    question, answers, rationales = (entry[key] for key in ("question", "answer_choices", "rationale_choices"))
    if not len(answers) == len(rationales) == CHOICES:
        raise Unusable(f"{len(answers)} answers and {len(rationales)} rationales, expected {CHOICES} of each")
    labels = [[entry.get(f"{kind}_label")] if labelled else [] for kind in ("answer", "rationale")]
    if any(type(label) is not int or not 0 <= label < CHOICES for label in (*labels[0], *labels[1])):
        raise Unusable(
            f"the right answer and rationale are {labels[0][0]} and {labels[1][0]}, expected numbers from 0 to 3"
        )
    called = called_by(entry["annot_id"], names)
    (asked, asked_tags), *choices = (rendered(text, called, tags) for text in (question, *answers, *rationales))
    answers, answer_tags = [text for text, _ in choices[:CHOICES]], [own for _, own in choices[:CHOICES]]
    given = labels[0] or range(CHOICES)
    return {
        "questions": [asked],
        "question_tags": [asked_tags],
        "answers": [answers],
        "answer_tags": [answer_tags],
        "answer_index": labels[0],
        "annot_id": [entry["annot_id"]],
        "given_questions": [asked] * len(given),
        "given_question_tags": [asked_tags] * len(given),
        "given_answers": [answers[place] for place in given],
        "given_answer_tags": [answer_tags[place] for place in given],
        "given_answer_index": [*given],
        "rationales": [[text for text, _ in choices[CHOICES:]]] * len(given),
        "rationale_tags": [[own for _, own in choices[CHOICES:]]] * len(given),
        "rationale_index": labels[1],
        "given_annot_id": [entry["annot_id"]] * len(given),
    }


SOURCES = {
    "vcr": RawSource(
        "VCR, choice of answers and of rationales",
        "vcr1annots/{train,val,test}.jsonl, vcr1images/MOVIE/*.jpg, vcr1images/MOVIE/*.json",
        tables,
    )
}
