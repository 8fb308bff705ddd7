"""The kinds of tasks that a labelled table can describe: what their rows need, and the file of the task that is made.

The file is one as docs/your_own_task.md shows it, so that every later step is a command about it.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pprint import pformat
from typing import Any

from vlc.common.errors import UserError
from vlc.configuration.values import check_known
from vlc.tasks import HEADS
from vlc.workflows.fit.columns import Roles
from vlc.workflows.fit.items import Item
from vlc.workflows.fit.pictures import Picture
from vlc.workflows.fit.rows import Table

MOST_ANSWERS = 3129  # of a vocabulary, as in VQA v2; the most frequent ones
_MOST_CLASSES = 1000


@dataclass(frozen=True)
class Model:
    """What the row of a task says that depends on the model.

    max_text_len: tokens.
    transforms: image pipelines of training and of evaluation.
    learning_rate, batch_size: of the run.
    """

    max_text_len: int
    transforms: tuple[str, str]
    learning_rate: float
    batch_size: int = 32


class _Code(str):
    """An expression of the file that is made."""

    def __repr__(self) -> str:
        return str(self)


_CLASSES = _Code("CLASSES")
_INPUTS = {"inputs": 0}  # a test also leaves out the text, and shows other images
Values = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of task.

    about: what is learnt.
    roles: that each row needs, beside the image; `text` and `answer` stand for whatever they are called.
    metric: of a test, by which the task is judged.
    fields: the fields of the data set, as expressions; SIZE stands for the number of classes.
    task: makes the values of the task's row, from the name of the task and the names of answers or classes.
    several: the roles of which a row may have more than one value.
    reads_text: whether examples have texts.
    """

    about: str
    roles: tuple[str, ...]
    metric: str
    fields: dict[str, str]
    task: Callable[[str, Sequence[str]], Values]
    several: tuple[str, ...] = ()
    reads_text: bool = True


def _classified(images: int) -> Callable[[str, Sequence[str]], Values]:
    def task(name: str, names: Sequence[str]) -> Values:
        options = {"classes": {"names": _CLASSES, "images": images}}
        return _row("classes", heads={"classes": name}, options=options, evaluators=_INPUTS)

    return task


def _answered(name: str, names: Sequence[str]) -> Values:
    # Answers that compete are learnt faster from few rows, and have probabilities.
    options = {"answers": {"num_answers": max(len(names), 2), "loss": "cross_entropy"}}
    return _row("answers", heads=_usual_heads("answers"), options=options, evaluators=_INPUTS)


def _ranked(name: str, names: Sequence[str]) -> Values:
    return _row("itc", "itm", options={"itm": {"alignment_weight": 0.0}}, evaluators={"ranking": 0})


def _grounded(name: str, names: Sequence[str]) -> Values:
    identified = {"ids": ("identifier",)}
    options = {"pointing": {"candidates": "grid", **identified}, "regress": identified}
    heads = _usual_heads("pointing", "regress")
    return _row("pointing", "regress", heads=heads, options=options, evaluators=_INPUTS)


def _sorted(name: str, names: Sequence[str]) -> Values:
    options = {"image_classes": {"num_classes": len(names)}}
    return _row("image_classes", heads={"image_classes": name}, options=options, image_only=True)


def _usual_heads(*kinds: str) -> dict[str, str]:
    """The heads of the suite's own tasks by objective, so that a checkpoint that has been trained on them goes on."""
    return {kind: next(name for name, head in HEADS.items() if head.kind == kind) for kind in kinds}


def _row(*objectives: str, **others: Any) -> Values:
    return {"objectives": dict.fromkeys(objectives, 1), **others}


_OF_CLASSES = {"labels": 'Column("answer", one_of(CLASSES))', "identifier": 'Column("id", IDENTIFIERS)'}
KINDS = {
    "pairs": Kind(
        "a statement about two images has a label",
        ("image2", "text", "answer"),
        "accuracy",
        _OF_CLASSES,
        _classified(2),
    ),
    "questions": Kind(
        "a question about an image has an answer",
        ("text", "answer"),
        "score",
        {
            "answer_labels": 'Column("answer_labels", LABELS)',
            "answer_scores": 'Column("answer_scores", SCORES, beside="answer_labels")',
            "answers": 'Column("answers", ANSWERS, beside="answer_labels")',
            "question_id": 'Column("id", IDENTIFIERS)',
        },
        _answered,
        several=("answer",),
    ),
    "statements": Kind(
        "a statement about an image has a label",
        ("text", "answer"),
        "accuracy",
        _OF_CLASSES,
        _classified(1),
    ),
    "phrases": Kind(
        "a phrase means a box of an image",
        ("text", "box"),
        "accuracy",
        {
            "width": 'Column("width", NUMBERS, per_text=False)',
            "height": 'Column("height", NUMBERS, per_text=False)',
            "target_boxes": 'Column("target_boxes", BOXES)',
            "identifier": 'Column("id", IDENTIFIERS)',
        },
        _grounded,
    ),
    "captions": Kind("images and captions find each other", ("text",), "ir_r1", {}, _ranked, several=("text",)),
    "labels": Kind(
        "an image has a label",
        ("answer",),
        "acc1",
        {
            "label": 'Column("label", one_of(SIZE), per_text=False)',
            "class_name": 'Column("class_name", TEXTS, per_text=False)',
        },
        _sorted,
        reads_text=False,
    ),
}


def kind_of(table: Table, roles: Roles, asked: str) -> str:
    """Return the name of the kind that the columns describe, or the one that is asked for.

    Raises UserError where a column is missing.
    """
    if asked:
        check_known([asked], KINDS, "kind in fit.task")
    name = asked or _described(roles)
    wanted = ("image", *KINDS[name].roles) if name else ("image",)
    lacking = [
        role for role in wanted if not (role in roles.found or {"text": roles.text, "answer": roles.answer}.get(role))
    ]
    if not name or lacking:
        missing = " and ".join(lacking or ["text or label"])
        raise UserError(
            f"{table.path} has no column that is taken for the {missing}; it has {', '.join(table.columns)}. Name it: "
            f"fit.columns.{(lacking or ['question'])[0]}=COLUMN"
        )
    return name


def _described(roles: Roles) -> str:
    if "image2" in roles.found:
        return "pairs"
    if "box" in roles.found and roles.text:
        return "phrases"
    if roles.text and roles.answer:
        stated = roles.text == "statement" or (roles.text != "question" and roles.answer == "label")
        return "statements" if stated else "questions"
    return "captions" if roles.text else "labels" if roles.answer else ""


def wanted_roles(kind: Kind, roles: Roles) -> list[str]:
    """The roles that a row needs, as they are called in the table."""
    called = {"text": roles.text, "answer": roles.answer}
    return ["image", *(called.get(role, role) for role in kind.roles)]


def names_of(name: str, items: Sequence[Item], table: Table) -> tuple[list[str], list[str]]:
    """Return the names of the answers or classes, and lines about them. The items have their splits.

    Raises UserError where the labels cannot be learnt.
    """
    if "answer" not in KINDS[name].roles:
        return [], []
    trained = Counter(answer for item in items if item.split == "train" for answer in dict.fromkeys(item.answers))
    everywhere = Counter(answer for item in items for answer in dict.fromkeys(item.answers))
    if len(everywhere) == 1:
        raise UserError(f"All rows of {table.path} have the answer {min(everywhere)!r}: there is nothing to learn")
    if name == "questions":
        return _vocabulary(trained, items)
    if len(everywhere) > min(_MOST_CLASSES, len(items) / 2):
        raise UserError(
            f"{table.path} has {len(everywhere):,} different labels in {len(items):,} rows, such as {min(everywhere)!r}: "
            "these are no classes. "
            + ("Pass fit.task=questions" if KINDS[name].reads_text else "Name the column of the labels")
        )
    said = [f"{len(everywhere)} classes: " + ", ".join(f"{one} {count:,}" for one, count in everywhere.most_common(8))]
    if once := [one for one, count in everywhere.items() if count == 1]:
        said.append(
            f"{len(once)} of them stand in one row alone, such as {once[0]!r}: they cannot be learnt and tested too"
        )
    if untrained := sorted(everywhere.keys() - trained.keys()):
        said.append(f"{len(untrained)} of them are in no row of training, such as {untrained[0]!r}")
    return sorted(everywhere), said


def _vocabulary(trained: Counter[str], items: Sequence[Item]) -> tuple[list[str], list[str]]:
    names = [answer for answer, _ in trained.most_common(MOST_ANSWERS)]
    said = [f"{len(names):,} answers: " + ", ".join(f"{one} {count:,}" for one, count in trained.most_common(8))]
    known, tested = set(names), [item for item in items if item.split == "test"]
    if unknown := [item for item in tested if not known & {*item.answers}]:
        said.append(
            f"{len(unknown):,} of {len(tested):,} test questions have answers that no row of training has, such as "
            f"{unknown[0].answers[0]!r}: they count as wrong"
        )
    return names, said


def normalised(name: str, items: Sequence[Item]) -> list[Item]:
    """Return the examples with answers in one spelling: answers to questions in small letters, as in VQA."""
    lower = str.lower if name == "questions" else str
    return [replace(item, answers=tuple(map(lower, item.answers))) for item in items]


def record(name: str, item: Item, names: Sequence[str], pictures: Sequence[Picture]) -> dict[str, Any]:
    """Return the values of an example by the columns that the data set of its kind has; images are left out."""
    values: dict[str, Any] = {"split": item.split, "id": item.identifier}
    if KINDS[name].reads_text:
        values["text"] = item.text
    if name == "questions":
        labels = {answer: label for label, answer in enumerate(names)}
        votes = Counter(item.answers)
        known = [answer for answer in votes if answer in labels]
        enough = min(3, len(item.answers))  # annotators that make an answer right, as in VQA
        scores = [min(1.0, votes[answer] / enough) for answer in known]
        return values | {
            "answers": known,
            "answer_labels": [labels[answer] for answer in known],
            "answer_scores": scores,
        }
    if name == "phrases":
        picture = pictures[0]
        return values | {"width": picture.width, "height": picture.height, "target_boxes": [list(item.box or ())]}
    if name == "labels":
        return values | {"label": names.index(item.answers[0]), "class_name": item.answers[0]}
    return values | ({"answer": item.answers[0]} if item.answers else {})


def task_file(kind_name: str, task: str, names: Sequence[str], model: Model) -> str:
    """Return the content of the Python file with the rows of the task and its data set."""
    kind = KINDS[kind_name]
    columns = [f'            "{field}": {column},' for field, column in kind.fields.items()]
    read = "\n".join(columns).replace("SIZE", str(len(names)))
    imported = [word for word in _KINDS_OF_VALUES if re.search(rf"\b{word}\b", read)]
    values = kind.task(task, names) | {
        "datasets": (task,),
        "max_text_len": model.max_text_len,
        "transforms": model.transforms,
        "batch_size": model.batch_size,
        "learning_rate": model.learning_rate,
    }
    spec = [
        '        "table",  # python -m write_arrow table writes it',
        f'        {{split: (f"{task}_{{split}}",) for split in ("train", "val", "test")}},',
        f"        images={images_of(kind)!r},",
        *(['        text="text",', "        unique_texts=False,"] if kind.reads_text else ["        labelled=True,"]),
        *(["        fields={", read, "        },"] if columns else []),
        "        own_images=True,",
    ]
    lines = [
        f'"""Made by run.py fit: {kind.about}."""',
        "",
        *([f"from vlc.data.kinds import {', '.join(imported)}"] if imported else []),
        f"from vlc.data.spec import {'Column, ' if columns else ''}DatasetSpec",
        "from vlc.tasks.task import Task",
        "",
        *([f"CLASSES = {pformat(tuple(names), compact=True)}", ""] if "CLASSES" in read else []),
        *("DATASETS = {", f'    "{task}": DatasetSpec(', *spec, "    )", "}", ""),
        *("TASKS = {", f'    "{task}": Task('),
        *(f"        {key}={value!r}," for key, value in values.items()),
        *("    )", "}"),
    ]
    return "\n".join(lines) + "\n"


_KINDS_OF_VALUES = ("ANSWERS", "BOXES", "IDENTIFIERS", "LABELS", "NUMBERS", "SCORES", "TEXTS", "one_of")


def images_of(kind: Kind) -> tuple[str, ...]:
    """The image columns of the data set."""
    return ("image_0", "image_1") if "image2" in kind.roles else ("image",)
