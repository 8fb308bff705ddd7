"""VisDial 1.0: dialogues about images, with 100 options for each answer. https://visualdialog.org

A row is an image with its dialogue. Rounds without options, as test dialogues have them before their last one, are history.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from vlc.common.errors import UserError
from write_arrow.machine.conversion import Conversion
from write_arrow.machine.plans import Files, Groups, Plans, is_valid_unicode
from write_arrow.machine.source import RawSource
from write_arrow.machine.storage import StoredFile
from write_arrow.machine.writer import PlannedTable

OPTIONS = 100  # of each round
SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "questions": pa.list_(pa.string()),
        "options": pa.list_(pa.list_(pa.string())),
        "answer_index": pa.list_(pa.int64()),
        "relevance": pa.list_(pa.list_(pa.float64())),  # of each option; empty where a round has no dense annotation
        "history": pa.list_(pa.list_(pa.string())),  # question, answer, question, ... of the rounds before
        "round_id": pa.list_(pa.int64()),
        "caption": pa.string(),
        "image_id": pa.int64(),
        "split": pa.string(),
    }
)
_IMAGES = {
    "train": ("train2014/COCO_train2014", "val2014/COCO_val2014"),
    "val": ("VisualDialog_val2018/VisualDialog_val2018",),
    "test": ("VisualDialog_test2018/VisualDialog_test2018",),
}
_STRINGS_AT_ONCE = 10_000


def tables(conversion: Conversion) -> list[PlannedTable]:
    """visdial_{train,val,test}: an image with the questions of its dialogue, their options and the rounds before them."""
    made = []
    for split, places in _IMAGES.items():
        files = conversion.files(*(place.partition("/")[0] for place in places))
        plans = _plans(split, files, conversion)
        made += conversion.table(f"visdial_{split}", SCHEMA, plans)
    return made


def _plans(split: str, files: Files, conversion: Conversion) -> Plans:
    path = f"visdial_1.0_{split}.json"
    rounds = _Rounds(path, conversion, _dense(split, conversion), labelled=split != "test")
    plans, num_questions = conversion.plans(), 0
    for entry in conversion.entries(path, "data.dialogs"):
        number, caption, turns = conversion.typed(entry, path, image_id=int, caption=str, dialog=list)
        paths = [f"{place}_{number:012d}.jpg" for place in _IMAGES[split]]
        image = _first(files, paths)
        if image is None:
            plans.reject(paths[0], "no such file" if len(paths) == 1 else f"no such file, nor {paths[1]}")
            continue
        values = rounds.of(number, turns)
        plans.append([image], caption=caption, image_id=number, split=split, **values)
        num_questions += len(values["questions"])
    conversion.notes.append(
        f"visdial_{split}: {plans.num_planned:,} dialogues, {num_questions:,} questions, {rounds.num_dense:,} of them with "
        f"relevances; {plans.num_rejected:,} dialogues were left out, as their image has no file"
    )
    return plans


def _first(files: Files, paths: Sequence[str]) -> StoredFile | None:
    return next((file for path in paths if (file := files.get(path)) is not None), None)


def _dense(split: str, conversion: Conversion) -> Groups[int]:
    """The rounds of each image that have dense annotations, with the relevances of their options."""
    path = f"visdial_1.0_{split}_dense_annotations.json"
    annotated: Groups[int] = conversion.groups()
    for entry in conversion.entries(path) if conversion.root.exists(path) else ():
        number, turn = conversion.typed(entry, path, image_id=int, round_id=int)
        key = "relevance" if "relevance" in entry else "gt_relevance"  # of the training and of the validation split
        (relevance,) = conversion.typed(entry, path, **{key: list})
        annotated.add(number, {"round_id": turn, "relevance": relevance})
    return annotated


class _Rounds:
    """The rounds of the dialogues of a file, with their texts.

    All questions and answers of the file are in memory, as a column of Arrow: about 20 MB for the training split.
    """

    def __init__(self, path: str, conversion: Conversion, dense: Groups[int], *, labelled: bool):
        self.path, self.conversion, self.dense, self.labelled = path, conversion, dense, labelled
        self.questions, self.answers = (self._strings(f"data.{key}") for key in ("questions", "answers"))
        self.num_dense = 0

    def _strings(self, key: str) -> pa.Array:
        entries = self._valid(self.conversion.entries(self.path, key), key)
        chunks = iter(lambda: list(islice(entries, _STRINGS_AT_ONCE)), [])
        return pa.concat_arrays([pa.array(chunk, pa.string()) for chunk in chunks] or [pa.array([], pa.string())])

    def _valid(self, entries: Iterator[Any], key: str) -> Iterator[str]:
        for number, text in enumerate(entries):
            if not isinstance(text, str) or not is_valid_unicode(text):
                raise self._mistake(f"entry {number} of {key} is {str(text)[:80]!r}, expected a text")
            yield text

    def of(self, image: int, turns: list[Any]) -> dict[str, list[Any]]:
        """The values of an image's row that have an entry for each round with options."""
        values: dict[str, list[Any]] = {name: [] for name in ("questions", "options", "history", "round_id")}
        labels: list[int] = []
        history: list[str] = []
        relevances = {found["round_id"]: found["relevance"] for found in self.dense[image]}
        for number, turn in enumerate(turns, start=1):
            where = f"image {image}, round {number}"
            (question,) = self._texts(self.questions, self.conversion.pick(turn, self.path, "question"), where)
            if "answer_options" in turn:
                values["questions"].append(question)
                values["options"].append(self._options(turn, where))
                values["history"].append(list(history))
                values["round_id"].append(number)
                labels += self._label(turn, where) if self.labelled else []
            if number < len(turns):
                history += [
                    question,
                    *self._texts(self.answers, self.conversion.pick(turn, self.path, "answer"), where),
                ]
        relevance = [relevances.get(number, []) for number in values["round_id"]] if self.labelled else []
        for number, found in zip(values["round_id"], relevance, strict=False):
            if len(found) not in (0, OPTIONS):
                raise self._mistake(f"image {image}, round {number} has {len(found)} relevances, expected {OPTIONS}")
        self.num_dense += sum(map(bool, relevance))
        return values | {"answer_index": labels, "relevance": relevance}

    def _options(self, turn: dict, where: str) -> list[str]:
        (numbers,) = self.conversion.typed(turn, self.path, answer_options=list)
        if len(numbers) != OPTIONS:
            raise self._mistake(f"{where} has {len(numbers)} options, expected {OPTIONS}")
        return self._texts(self.answers, numbers, where)

    def _label(self, turn: dict, where: str) -> list[int]:
        (label,) = self.conversion.typed(turn, self.path, gt_index=int)
        if not 0 <= label < OPTIONS:
            raise self._mistake(f"{where} has gt_index {label}, expected a number from 0 to {OPTIONS - 1}")
        return [label]

    def _texts(self, texts: pa.Array, numbers: Sequence[Any], where: str) -> list[str]:
        """The texts that numbers of the file stand for."""
        for number in numbers:
            if type(number) is not int or not 0 <= number < len(texts):
                raise self._mistake(f"{where} names text {number!r}, but there are {len(texts):,}, counted from 0")
        return texts.take(pa.array(numbers, pa.int64())).to_pylist()

    def _mistake(self, problem: str) -> UserError:
        return UserError(f"{self.conversion.root.where(self.path)}: {problem}")


SOURCES = {
    "visdial": RawSource(
        "VisDial 1.0",
        "visdial_1.0_{train,val,test}.json, visdial_1.0_{train,val}_dense_annotations.json (which may be missing), "
        "train2014/*.jpg, val2014/*.jpg, VisualDialog_val2018/*.jpg, VisualDialog_test2018/*.jpg",
        tables,
    )
}
