"""GQA: questions about images of Visual Genome, made from their scene graphs. https://cs.stanford.edu/people/dorarad/gqa

`--questions` chooses which of them (Hudson & Manning 2019): `balanced`, on which accuracy is measured; `all`, which
consistency needs; or `trainval`, the balanced questions of train and val in the division of 12-in-1 (Lu et al. 2020), whose
last questions by identifier, in the order of texts, validate. A question file may also be a folder of pieces.

Identifiers stay texts, because some begin with zeros. The vocabulary has every answer of train and val.
"""

import heapq
import json
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from vlc.common.errors import MissingFile, UserError
from write_arrow.machine.conversion import Conversion, value_columns
from write_arrow.machine.plans import Files, Plans
from write_arrow.machine.source import RawSource
from write_arrow.machine.writer import PlannedTable

_TEXTS = pa.list_(pa.string())
SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "questions": _TEXTS,
        "question_id": _TEXTS,
        "answers": pa.list_(_TEXTS),
        "answer_labels": pa.list_(pa.list_(pa.int64())),
        "answer_scores": pa.list_(pa.list_(pa.float64())),
        "gold_answers": _TEXTS,  # also where the vocabulary lacks the answer
        "question_types": _TEXTS,  # structural: query, verify, choose, compare, logical
        "semantic_types": _TEXTS,
        "detailed_types": _TEXTS,
        "answer_types": _TEXTS,  # open or binary
        "groups": _TEXTS,  # the global group, whose answers are compared in distribution
        "entailed": pa.list_(_TEXTS),  # identifiers of the questions that the answer also answers
        "is_balanced": pa.list_(pa.bool_()),
        "image_id": pa.string(),
        "split": pa.string(),
    }
)
_LABELLED = ("train", "val", "testdev")
_SPLITS = {"balanced": (*_LABELLED, "test", "challenge"), "all": (*_LABELLED, "test", "challenge", "submission")}
_STEMS = {"balanced": "gqa", "all": "gqa_all", "trainval": "gqa"}
_OF_BOTH_KINDS = ("questions", "question_id", "is_balanced")  # also where the answers are withheld
_OF_A_ROW = ("image_id", "split")
MINVAL = 3000  # questions that 12-in-1 validates on

Question = dict[str, Any]  # a value for each column that is a list


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--questions",
        choices=_STEMS,
        default="balanced",
        help="balanced (default): gqa_SPLIT; all: gqa_all_SPLIT; trainval: gqa_trainval and gqa_minval, 12-in-1's division",
    )
    parser.add_argument(
        "--num-minval",
        type=int,
        metavar="N",
        default=MINVAL,
        help="of trainval, the questions that validate (default: %(default)s)",
    )


def tables(conversion: Conversion) -> list[PlannedTable]:
    """A table for each split, or gqa_trainval and gqa_minval: an image with its questions. Writes the vocabulary too."""
    form = conversion.options.questions
    files, labels = conversion.files("images"), _Labels()
    made = (_trainval if form == "trainval" else _by_split)(files, labels, conversion)
    with conversion.out.create(f"{_STEMS[form]}_answers.json") as file:
        file.write(json.dumps(list(labels.known), ensure_ascii=False).encode())
    conversion.notes.append(f"{_STEMS[form]}_answers.json: {len(labels.known):,} answers")
    return made


class _Labels:
    """The label of each answer of train and val, in the order of first appearance.

    num_unknown: how many answers of other splits have none.
    """

    def __init__(self):
        self.known: dict[str, int] = {}
        self.num_unknown = 0

    def columns(self, answer: str, *, adds: bool) -> Question:
        """The answer's columns; without label, if it is unknown. adds: enter an answer that is unknown."""
        if adds:
            self.known.setdefault(answer, len(self.known))
        known = answer in self.known
        self.num_unknown += not known
        return {
            "gold_answers": answer,
            "answers": [answer] if known else [],
            "answer_labels": [self.known[answer]] if known else [],
            "answer_scores": [1.0] if known else [],
        }


def _by_split(files: Files, labels: _Labels, conversion: Conversion) -> list[PlannedTable]:
    form, made = conversion.options.questions, []
    for split in _SPLITS[form]:
        stem, paths = f"{_STEMS[form]}_{split}", _question_files(split, form, conversion)
        if not paths:
            conversion.notes.append(f"{stem} is not written: there is no {split}_{form}_questions.json")
            continue
        unknown = labels.num_unknown
        asked = conversion.groups(_questions(split, paths, labels, conversion))
        plans = _plans(asked, split, files, conversion)
        told = f"; {labels.num_unknown - unknown:,} answers are not in the vocabulary" if split == "testdev" else ""
        _note(stem, plans, asked.num_values, conversion, told)
        made += conversion.table(stem, SCHEMA, plans)
    return made


def _trainval(files: Files, labels: _Labels, conversion: Conversion) -> list[PlannedTable]:
    """12-in-1's division. Its images are shared: an image may have questions on both sides."""
    asked, count = conversion.groups(), conversion.options.num_minval
    for split in ("train", "val"):
        for image, question in _questions(split, _question_files(split, "balanced", conversion), labels, conversion):
            asked.add(image, question)
    if not 0 < count < asked.num_values:
        raise UserError(f"--num-minval {count} is not valid: there are {asked.num_values:,} questions to divide")
    minval = set(heapq.nlargest(count, (question["question_id"] for _, found in asked for question in found)))
    made = []
    for split in ("trainval", "minval"):
        own = (
            (image, kept)
            for image, found in asked
            if (kept := [question for question in found if (question["question_id"] in minval) == (split == "minval")])
        )
        plans = _plans(own, split, files, conversion)
        _note(f"gqa_{split}", plans, count if split == "minval" else asked.num_values - count, conversion)
        made += conversion.table(f"gqa_{split}", SCHEMA, plans)
    return made


def _note(stem: str, plans: Plans, num_questions: int, conversion: Conversion, more: str = "") -> None:
    missing = f", {plans.num_rejected:,} left out" if plans.num_rejected else ""
    images = plans.num_planned + plans.num_rejected
    conversion.notes.append(f"{stem}: {num_questions:,} questions about {images:,} images{missing}{more}")


def _plans(asked: Iterable[tuple[str, list[Question]]], split: str, files: Files, conversion: Conversion) -> Plans:
    columns = value_columns(SCHEMA)
    withheld: dict[str, Any] = {}
    if split in ("test", "challenge", "submission"):
        withheld = {name: [] for name in columns if name not in (*_OF_BOTH_KINDS, *_OF_A_ROW)}
    return conversion.grouped_rows(
        asked,
        columns,
        lambda image, _: files.lookup(f"images/{image}.jpg"),
        lambda image: withheld | {"image_id": image, "split": split},
    )


def _question_files(split: str, form: str, conversion: Conversion) -> list[str]:
    """The file of a split, or the pieces in its folder, by their numbers; none if there is neither.

    Raises MissingFile where train or val, which make the vocabulary, have none.
    """
    root, name = conversion.root, f"{split}_{form}_questions"
    if root.exists(f"{name}.json"):
        return [f"{name}.json"]
    pieces = [file.path for file in root.walk(name) if file.path.endswith(".json")] if root.exists(name) else []
    if not pieces and split in ("train", "val"):
        raise MissingFile(f"{root.where(f'{name}.json')} does not exist, nor a folder {name} of pieces")
    return sorted(pieces, key=lambda path: (len(path), path))


def _questions(split: str, paths: list[str], labels: _Labels, conversion: Conversion) -> Iterator[tuple[str, Question]]:
    """Each question of a split with its image."""
    typed = conversion.typed
    for path in paths:
        for number, entry in conversion.items(path):
            text, balanced = typed(entry, path, question=str, isBalanced=bool)
            (image,) = conversion.pick(entry, path, "imageId")
            image = str(image) if isinstance(image, int) else typed(entry, path, imageId=str)[0]
            question = {"questions": text, "question_id": number, "is_balanced": balanced}
            if split in _LABELLED:
                question |= _described(entry, path, conversion)
                (answer,) = typed(entry, path, answer=str)
                question |= labels.columns(answer, adds=split != "testdev")
            yield image, question


def _described(entry: Any, path: str, conversion: Conversion) -> Question:
    """What the official metrics ask of a question."""
    types, groups, entailed = conversion.typed(entry, path, types=dict, groups=dict, entailed=list)
    structural, semantic, detailed = conversion.typed(types, path, structural=str, semantic=str, detailed=str)
    (group,) = conversion.pick(groups, path, "global")
    if numbers := [each for each in entailed if not isinstance(each, str)]:
        raise UserError(
            f"{conversion.root.where(path)}: entailed holds {numbers[0]!r:.80}, expected a string: a number has lost the "
            "zeros at its beginning, and would find no question"
        )
    return {
        "question_types": structural,
        "semantic_types": semantic,
        "detailed_types": detailed,
        "answer_types": "open" if structural == "query" else "binary",
        "groups": group,
        "entailed": entailed,
    }


SOURCES = {
    "gqa": RawSource(
        "GQA: balanced questions, or with --questions all questions, or 12-in-1's division",
        "{train,val,testdev,test,challenge}_balanced_questions.json or, for all questions, "
        "{train,val,testdev,test,challenge,submission}_all_questions.json (of each a folder of pieces will do; train and "
        "val are required), images/ID.jpg",
        tables,
        add_options,
    )
}
