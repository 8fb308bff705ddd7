"""Visual Genome questions whose answers VQA v2 knows, as further training data for it, or with --all as a task.

Usable are the questions with an answer that, normalised, is in VQA's vocabulary. As further training data, their images are
also in COCO. As a task of its own (12-in-1, Lu et al. 2020), all of them are used: the last ones by number validate.
"""

import heapq
import json
import pickle
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from vlc.common.errors import UserError
from vlc.data.answer_text import normalize_answer
from vlc.data.kinds import LABELS, MOST_LABELS
from write_arrow.machine.conversion import Conversion, value_columns
from write_arrow.machine.plans import Files, Groups, Plans
from write_arrow.machine.source import RawSource
from write_arrow.machine.writer import PlannedTable
from write_arrow.sources import vqav2

NUM_VAL = 5000  # questions that 12-in-1 validates on
_HELD_OUT = "vqav2_rest_val.arrow"
_FOLDERS = ("images", "VG_100K", "VG_100K_2")
_LABEL_FILES = ("coco_vqa_label_info.json", "coco_vqa_label_info.pkl", "vqa_labels_info.pkl")


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--keep-validation-images",
        action="store_true",
        help=f"also use images that {_HELD_OUT} validates on (it is looked for in --out)",
    )
    parser.add_argument("--all", action="store_true", help="write vgqa_all_train and vgqa_all_val, for the task vgqa")
    parser.add_argument(
        "--num-val",
        type=int,
        metavar="N",
        default=NUM_VAL,
        help="with --all, the questions that validate (default: %(default)s)",
    )


def tables(conversion: Conversion) -> list[PlannedTable]:
    """vgqa_train, or vgqa_all_train and vgqa_all_val: an image with all its usable questions."""
    if conversion.options.all and conversion.compat:
        raise UserError("--all has no published converter, which --compat would follow: pass one of them")
    labels = _labels(conversion)
    if conversion.options.all:
        return _all_tables(labels, conversion)
    held_out = _held_out(conversion)
    in_coco = conversion.groups(_coco_ids(held_out, conversion))
    usable, num_questions = _usable_questions(labels, lambda image: bool(in_coco[image]), conversion)
    plans = _plans(usable, "train", _files(conversion), conversion)
    conversion.notes.append(
        f"vgqa: {usable.num_values:,} of {num_questions:,} questions are usable, about {plans.num_planned:,} images"
    )
    return conversion.table("vgqa_train", vqav2.PUBLISHED, plans)


def _all_tables(labels: dict[str, int], conversion: Conversion) -> list[PlannedTable]:
    """The usable questions about all images; the last ones by number validate, and an image may be on both sides.

    Of questions with the same number, the first one is used.
    """
    usable, num_questions = _usable_questions(labels, lambda image: True, conversion)
    numbered = conversion.groups(
        (question["question_id"], [image, question]) for image, found in usable for question in found
    )
    questions: Groups[int] = conversion.groups()
    repeated = []
    for number, (first, *others) in numbered:
        questions.add(*first)
        repeated += [number] * len(others)
    count = conversion.options.num_val
    if not 0 < count < questions.num_values:
        raise UserError(f"--num-val {count} is not valid: there are {questions.num_values:,} questions to divide")
    conversion.notes.append(f"vgqa: {questions.num_values:,} of {num_questions:,} questions are usable")
    val, files, made = set(heapq.nlargest(count, (number for number, _ in numbered))), _files(conversion), []
    for split in ("train", "val"):
        own = (
            (image, kept)
            for image, found in questions
            if (kept := [question for question in found if (question["question_id"] in val) == (split == "val")])
        )
        plans = _plans(own, split, files, conversion)
        for number in repeated:
            if (number in val) == (split == "val"):
                plans.reject(f"question {number}", "an earlier question has the same qa_id")
        made += conversion.table(f"vgqa_all_{split}", vqav2.PUBLISHED, plans)
    return made


def _files(conversion: Conversion) -> Files:
    """All images; they may lie in `images`, or in the folders that Visual Genome distributes."""
    found = [folder for folder in _FOLDERS if conversion.root.exists(folder)]
    return conversion.files(*(found or _FOLDERS[:1]))


def _plans(questions: Iterable[tuple[int, list[dict]]], split: str, files: Files, conversion: Conversion) -> Plans:
    return conversion.grouped_rows(
        questions,
        value_columns(vqav2.PUBLISHED),
        lambda number, _: {f"images/{number}.jpg": next(iter(files.named(f"{number}.jpg")), None)},
        lambda number: {"image_id": number, "split": split},
    )


def _coco_ids(held_out: set[int], conversion: Conversion) -> Iterator[tuple[int, int]]:
    """The numbers in Visual Genome and in COCO of each image that is in both and not held out."""
    path = "image_data.json"
    for entry in conversion.entries(path):
        (image_id,) = conversion.typed(entry, path, image_id=int)
        if conversion.pick(entry, path, "coco_id") != [None]:
            (coco_id,) = conversion.typed(entry, path, coco_id=int)
            if coco_id not in held_out:
                yield image_id, coco_id


def _usable_questions(
    labels: dict[str, int], wanted: Callable[[int], bool], conversion: Conversion
) -> tuple[Groups, int]:
    """The usable questions about wanted images by image, with their normalised answers, and the number of all questions."""
    usable, num_questions, path = conversion.groups(), 0, "question_answers.json"
    for entry in conversion.entries(path):
        for question in conversion.typed(entry, path, qas=list)[0]:
            image_id, number, text, answer = conversion.typed(
                question, path, image_id=int, qa_id=int, question=str, answer=str
            )
            num_questions += 1
            answer = normalize_answer(answer)
            if answer in labels and wanted(image_id):
                columns = {"questions": text, "question_id": number, "answers": [answer]}
                usable.add(image_id, columns | {"answer_labels": [labels[answer]], "answer_scores": [1.0]})
    return usable, num_questions


def _labels(conversion: Conversion) -> dict[str, int]:
    """VQA's vocabulary: as vqav2 wrote it, as a file of the published code has it, or from VQA's annotations."""
    if not conversion.compat and (written := conversion.out.read_text(vqav2.ANSWERS_FILE)):
        path = conversion.out.where(vqav2.ANSWERS_FILE)
        answers = _loaded(json.loads, written, path)
        if not isinstance(answers, list):
            raise UserError(f"{path} should hold a list of answers: write it again (python -m write_arrow vqav2)")
        return _checked({answer: label for label, answer in enumerate(answers)}, path)
    for name in _LABEL_FILES:
        if conversion.root.exists(name):
            path = conversion.root.where(name)
            with conversion.root.open(name) as file:
                content = _loaded(json.load if name.endswith(".json") else _plain_pickle, file, path)
            return _checked(conversion.typed(content, name, ans2label=dict)[0], path)
    return vqav2.vocabulary(conversion)


def _loaded(load: Callable[[Any], Any], source: Any, path: str) -> Any:
    """What `load` makes of a source. Raises UserError where it is damaged, or a pickle that could run code."""
    try:
        return load(source)
    except Exception as error:  # a damaged pickle raises whatever its instructions meet
        raise UserError(
            f"{path} cannot be read safely ({error}): fetch or write it again, or save it as JSON"
        ) from error


def _checked(labels: dict[Any, Any], path: str) -> dict[str, int]:
    """The labels by answer. Raises UserError where they are no vocabulary: different numbers from 0."""
    answers: dict[int, Any] = {}
    for answer, label in labels.items():
        if not isinstance(answer, str) or type(label) is not int or not 0 <= label < MOST_LABELS:
            raise UserError(f"{path}: answer {answer!r:.80} has label {label!r:.80}, expected {LABELS.expected}")
        if answers.setdefault(label, answer) != answer:
            raise UserError(f"{path}: label {label} stands for {answers[label]!r:.80} and for {answer!r:.80}")
    return labels


def _held_out(conversion: Conversion) -> set[int]:
    """COCO numbers of the images that VQA is validated on."""
    if conversion.compat or conversion.options.keep_validation_images:
        return set()
    if not conversion.out.exists(_HELD_OUT):
        raise UserError(
            f"{conversion.out.where(_HELD_OUT)} does not exist, so that its images cannot be left out of training. Write "
            "it first (python -m write_arrow vqav2), or pass --keep-validation-images"
        )
    with conversion.out.open_mapped(_HELD_OUT) as file:
        reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=[_place(file, "image_id")]))
        return {
            number for batch in range(reader.num_record_batches) for number in reader.get_batch(batch)[0].to_pylist()
        }


def _place(file: BinaryIO, column: str) -> int:
    return pa.ipc.open_file(file).schema.get_field_index(column)


def _plain_pickle(file: BinaryIO) -> Any:
    """A pickle of plain containers, strings and numbers. Raises UnpicklingError if it holds more: that could run code."""
    return _PlainUnpickler(file).load()


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")


SOURCES = {
    "vgqa": RawSource(
        "Visual Genome questions with answers of VQA v2; write vqav2 first",
        "question_answers.json, image_data.json (not for --all), images/**/ID.jpg or VG_100K/ and VG_100K_2/, and, where "
        "vqav2 is not in --out, coco_vqa_label_info.json or v2_mscoco_{train2014,val2014}_annotations.json",
        tables,
        add_options,
        published=True,
    )
}
