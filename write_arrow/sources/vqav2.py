"""VQA v2: questions about COCO images with ten answers each. https://visualqa.org/download.html"""

import heapq
import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import compress
from typing import Any

import pyarrow as pa

from vlc.common.errors import UserError
from vlc.data.answer_text import as_compared, normalize_answer
from write_arrow.machine.conversion import Conversion
from write_arrow.machine.plans import Plan, Plans
from write_arrow.machine.source import RawSource, RowOrder
from write_arrow.machine.writer import PlannedTable

_TEXTS, _NESTED = pa.list_(pa.string()), (pa.string(), pa.int64(), pa.float64())
PUBLISHED = pa.schema(
    {"image": pa.binary(), "questions": _TEXTS}
    | {
        name: pa.list_(pa.list_(value))
        for name, value in zip(("answers", "answer_labels", "answer_scores"), _NESTED, strict=True)
    }
    | {"image_id": pa.int64(), "question_id": pa.list_(pa.int64()), "split": pa.string()}
)
SCHEMA = pa.schema([*PUBLISHED, ("question_types", _TEXTS), ("answer_types", _TEXTS)])
ANSWERS_FILE = "vqav2_answers.json"  # the vocabulary, beside the tables

MIN_COUNT = 9  # majority answers that occur less often are left out of the vocabulary
REST_VAL = 1000  # validation images that are not trained on
NUM_VAL = 3000  # the validation questions that 12-in-1 does not train on
SCORES = {1: 0.3, 2: 0.6, 3: 0.9}  # by the number of annotators who agree; 1 for more


@dataclass(frozen=True)
class _Split:
    name: str
    folder: str
    questions: str
    annotations: str | None = None


_SPLITS = {
    split.name: split
    for split in (
        _Split("train", "train2014", "train2014", "v2_mscoco_train2014_annotations.json"),
        _Split("val", "val2014", "val2014", "v2_mscoco_val2014_annotations.json"),
        _Split("test", "test2015", "test2015"),
        _Split("test-dev", "test2015", "test-dev2015"),
    )
}


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--validate-on",
        choices=("images", "questions"),
        default="images",
        help=f"what vqav2_rest_val holds of val2014: {REST_VAL:,} images that --seed draws (the default), or as in "
        f"12-in-1 the last {NUM_VAL:,} questions by number",
    )


def tables(conversion: Conversion) -> list[PlannedTable]:
    """vqav2_{train,trainable_val,rest_val,test,test-dev}: an image with all its questions. Writes the vocabulary too."""
    labels = vocabulary(conversion)
    if not conversion.compat:
        with conversion.out.create(ANSWERS_FILE) as file:
            file.write(json.dumps(list(labels), ensure_ascii=False).encode())
    train, val, test, test_dev = (_plans(split, labels, conversion) for split in _SPLITS.values())
    trainable, rest = _divide(val, conversion)
    made = {"train": train, "rest_val": rest, "test": test, "test-dev": test_dev}
    for name, plans in made.items():
        if not plans.num_planned:
            raise UserError(f"vqav2_{name}: no image with questions was found under {conversion.root}")
    made["trainable_val"] = trainable
    if conversion.compat:
        made["val"] = val
    return [
        PlannedTable(f"vqav2_{name}", _schema(name, plans, conversion.compat), conversion.arrange(plans))
        for name, plans in made.items()
    ]


def vocabulary(conversion: Conversion) -> dict[str, int]:
    """Answer -> label: the normalised majority answers that occur MIN_COUNT times, in the order of first appearance."""
    counts: Counter[str] = Counter()
    for split in ("train", "val"):
        path = _SPLITS[split].annotations
        for entry in conversion.entries(path, "annotations"):
            counts[normalize_answer(conversion.typed(entry, path, multiple_choice_answer=str)[0])] += 1
    frequent = (answer for answer, count in counts.items() if count >= MIN_COUNT)
    return {answer: label for label, answer in enumerate(frequent)}


_ANSWER_COLUMNS = ("answers", "answer_labels", "answer_scores", "question_types", "answer_types")
_LISTS = ("questions", "question_id", *_ANSWER_COLUMNS)


def _plans(split: _Split, labels: dict[str, int], conversion: Conversion) -> Plans:
    files, plans, left_out = conversion.files(split.folder), conversion.plans(), Counter[str]()
    questions = conversion.groups(_questions(split, labels, conversion, plans, left_out))
    without: dict[str, list] = {} if split.annotations else {name: [] for name in _ANSWER_COLUMNS}
    conversion.grouped_rows(
        questions,
        (*_LISTS, "image_id", "split"),
        lambda number, _: files.lookup(f"{split.folder}/COCO_{split.folder}_{number:012d}.jpg"),
        lambda number: without | {"image_id": number, "split": split.name},
        list_missing=not conversion.compat,
        plans=plans,
    )
    conversion.found(f"vqav2 {split.name}", files, plans, questions.num_values)
    conversion.notes += [f"vqav2 {split.name}: {count:,} {what}" for what, count in left_out.items()]
    return plans


def _questions(
    split: _Split, labels: dict[str, int], conversion: Conversion, plans: Plans, left_out: Counter[str]
) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Each question with its image; None in place of one that cannot be used.

    plans: take questions without annotation among what they reject.
    left_out: counts what is left out, by what it is.
    """
    answered = conversion.groups(_answers(split, labels, conversion)) if split.annotations else None
    # Validation keeps the questions that no known answer fits: a model must get them wrong.
    keep_all = split.name == "val" and not conversion.compat
    path, num_annotated = _question_file(split), 0
    for entry in conversion.entries(path, "questions"):
        image_id, number, text = conversion.typed(entry, path, image_id=int, question_id=int, question=str)
        answers = {} if answered is None else next(iter(answered[number]), None)
        num_annotated += answers is not None
        if answers is None:
            left_out["questions have no annotation"] += 1
            if not conversion.compat:
                plans.reject(f"question {number}", f"no annotation in {split.annotations}")
        elif not (answered is None or keep_all or answers["answers"]):
            left_out["questions have no answer that is in the vocabulary"] += 1
            answers = None
        yield image_id, None if answers is None else {"questions": text, "question_id": number} | answers
    if answered is not None and answered.num_values > num_annotated:
        left_out["annotations are about no question"] = answered.num_values - num_annotated


def _question_file(split: _Split) -> str:
    return f"v2_OpenEnded_mscoco_{split.questions}_questions.json"


def _answers(split: _Split, labels: dict[str, int], conversion: Conversion) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each annotated question's number with the answers that the vocabulary has, and the types of both."""
    path = split.annotations
    for entry in conversion.entries(path, "annotations"):
        number, answers = conversion.typed(entry, path, question_id=int, answers=list)
        texts = [conversion.typed(answer, path, answer=str)[0] for answer in answers]
        # The published converter looked the annotators' words up as they are, in a vocabulary of normalised ones.
        votes = Counter(texts) if conversion.compat else count_votes(texts)
        known = [answer for answer in votes if answer in labels]
        scores = [SCORES.get(votes[answer], 1.0) for answer in known]
        types = {name: entry.get(name.removesuffix("s")) for name in ("question_types", "answer_types")}
        yield number, {"answers": known, "answer_labels": [labels[a] for a in known], "answer_scores": scores} | types


def count_votes(answers: list[str]) -> Counter[str]:
    """How many annotators gave each answer, as the official scorer compares them."""
    return Counter(as_compared(answers))


def _divide(val: Plans, conversion: Conversion) -> tuple[Plans, Plans]:
    """The validation questions to train on, without those that no known answer fits, and the ones to validate on.

    An image of which some questions are validated on and others not is in both.
    """
    val.shuffle(conversion.options.seed)
    is_held_out = _held_out(len(val), conversion)
    trainable, rest = conversion.plans(), conversion.plans()
    for path, reason in () if conversion.compat else val.rejected():
        trainable.reject(path, reason)
    num_unanswerable = 0
    for place, plan in enumerate(val.read(0, len(val))):
        held_out = [is_held_out(place, number) for number in plan.values["question_id"]]
        trained = [bool(answers) and not held for answers, held in zip(plan.values["answers"], held_out, strict=True)]
        _append(rest, plan, held_out)
        _append(trainable, plan, trained)
        num_unanswerable += len(trained) - sum(trained) - sum(held_out)
    if num_unanswerable:
        conversion.notes.append(
            f"vqav2 trainable_val: {num_unanswerable:,} questions have no answer that is in the vocabulary"
        )
    return trainable, rest


def _held_out(num_images: int, conversion: Conversion) -> Callable[[int, int], bool]:
    """Whether a question is validated on, by the place of its image in the shuffled order and by its number."""
    if conversion.options.validate_on == "images":
        return lambda place, number: place >= num_images - REST_VAL
    path = _question_file(_SPLITS["val"])
    entries = conversion.entries(path, "questions")
    last = last_questions(number for entry in entries for number in conversion.typed(entry, path, question_id=int))
    return lambda place, number: number in last


def last_questions(numbers: Iterable[int]) -> set[int]:
    """The NUM_VAL largest numbers of questions: those that 12-in-1 (Lu et al. 2020) validates on."""
    return set(heapq.nlargest(NUM_VAL, numbers))


def _append(plans: Plans, plan: Plan, kept: list[bool]) -> None:
    """Append a row with those questions that are kept, if there are any."""
    if any(kept):
        lists = {name: list(compress(plan.values[name], kept)) for name in _LISTS}
        plans.append(plan.images, **(plan.values | lists))


def _schema(name: str, plans: Plans, compat: bool) -> pa.Schema:
    """The schema. With compat it is the published one, with the types that pandas gave to lists without content."""
    if not compat:
        return SCHEMA
    if not plans.num_planned:
        return pa.schema([(field.name, field.type if field.name == "image_id" else pa.null()) for field in PUBLISHED])
    if name.startswith("test"):
        empty = pa.list_(pa.null())
        return pa.schema(
            [(field.name, empty if field.name.startswith("answer") else field.type) for field in PUBLISHED]
        )
    return PUBLISHED


SOURCES = {
    "vqav2": RawSource(
        "VQA v2",
        "v2_OpenEnded_mscoco_{train2014,val2014,test2015,test-dev2015}_questions.json, "
        "v2_mscoco_{train2014,val2014}_annotations.json, train2014/*.jpg, val2014/*.jpg, test2015/*.jpg",
        tables,
        add_options,
        order=RowOrder.SHUFFLED,
        published=True,
    )
}
