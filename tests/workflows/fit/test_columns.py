import pytest

from tests.workflows.fit.tables import images, questions, read, written
from vlc.common.errors import UserError
from vlc.workflows.fit.columns import Roles, box_of, understood
from vlc.workflows.fit.kinds import kind_of


def _roles(folder, rows, **given) -> Roles:
    table = read(written(folder, rows))
    return understood(table, {role: (name,) for role, name in given.items()}, folder)


def _kind(folder, rows, asked="", **given) -> str:
    table = read(written(folder, rows))
    return kind_of(table, understood(table, {role: (name,) for role, name in given.items()}, folder), asked)


def _captions(number: int) -> str:
    return f"a dog of number {number} runs"


ROWS = {
    "questions": lambda name, n: {"img_path": name, "Question": "what is it", "answer": str(n % 3)},
    "statements": lambda name, n: {"file": name, "sentence": "it is red", "gold_label": n % 2 == 0},
    "pairs": lambda name, n: {"image_0": name, "image_1": name, "text": "both are red", "label": n % 2},
    "captions": lambda name, n: {"image": name, "caption": [_captions(n)], "licence": "free"},
    "phrases": lambda name, n: {"image": name, "expression": "the dog", "bbox": [1, 2, 3, 4]},
    "labels": lambda name, n: {"filename": name, "class": ("cat", "dog")[n % 2], "width": n},
}


@pytest.mark.parametrize("kind", ROWS)
def test_usual_names(tmp_path, kind):
    rows = [ROWS[kind](name, number) for number, name in enumerate(images(tmp_path, 8))]
    assert _kind(tmp_path, rows) == kind


CONTENTS = {
    "statements": lambda name, n: {"a": name, "statement": f"it is number {n}", "b": ("yes", "no")[n % 2], "n": n / 7},
    "captions": lambda name, n: {"a": name, "b": _captions(n)},
    "phrases": lambda name, n: {"a": name, "b": f"dog number {n}", "c": f"[{n}, 2, 30.5, 4]"},
    "labels": lambda name, n: {"a": name, "b": ("cat", "dog")[n % 2], "c": n + 0.5},
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_contents_tell_what_names_do_not(tmp_path, kind):
    rows = [CONTENTS[kind](name, number) for number, name in enumerate(images(tmp_path, 8))]
    assert _kind(tmp_path, rows) == kind


def test_a_caption_needs_no_label(tmp_path):
    rows = [{"image": name, "caption": _captions(n), "source": "web"} for n, name in enumerate(images(tmp_path, 8))]
    rows[0]["source"] = "book"
    roles = _roles(tmp_path, rows)
    assert set(roles.found) == {"image", "caption"}
    assert roles.unused == ["source"]


def test_columns_that_belong_together(tmp_path):
    (name,) = images(tmp_path, 1)
    row = {"image": name, "caption_1": "a dog", "caption_2": "a cat", "xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}
    roles = _roles(tmp_path, [row])
    assert roles.found["caption"].columns == ("caption_1", "caption_2")
    assert roles.found["box"].columns == ("xmin", "ymin", "xmax", "ymax")
    assert roles.boxes == "xyxy"


def test_given_names_win(tmp_path):
    rows = [{**row, "other": "why so"} for row in questions(tmp_path, 6)]
    roles = _roles(tmp_path, rows, question="other")
    assert roles.found["question"].columns == ("other",)
    assert roles.unused == ["question"]
    assert _kind(tmp_path, rows, "statements") == "statements"


@pytest.mark.parametrize(
    ("extra", "given", "message"),
    [
        ({}, {"question": "qestion"}, "Unknown column in fit.columns.question .* Did you mean question"),
        ({}, {"quest": "question"}, "Unknown role in fit.columns 'quest'. Did you mean question"),
        ({"questions": "why"}, {}, "question, questions may each be the question: fit.columns.question=question"),
        ({"caption": "a dog"}, {}, r"question \(question\) and caption \(caption\), and one is wanted"),
        ({"label": "a"}, {}, "fit.columns.answer=answer or fit.columns.label=label decides"),
    ],
)
def test_what_the_user_decides(tmp_path, extra, given, message):
    with pytest.raises(UserError, match=message):
        _roles(tmp_path, [{**row, **extra} for row in questions(tmp_path, 6)], **given)


def test_two_columns_of_images_are_not_guessed(tmp_path):
    rows = [{"a": name, "b": name, "question": "why so", "answer": "yes"} for name in images(tmp_path, 4)]
    with pytest.raises(UserError, match="a, b hold names of images that exist, and each may be the image"):
        _roles(tmp_path, rows)


def test_columns_that_are_missing(tmp_path):
    rows = questions(tmp_path, 6)
    with pytest.raises(UserError, match="no column that is taken for the box; it has picture, question, answer"):
        _kind(tmp_path, rows, "phrases")
    with pytest.raises(UserError, match="no column that is taken for the image"):
        _kind(tmp_path, [{"question": "why so", "answer": "yes"}])
    with pytest.raises(UserError, match="Unknown kind in fit.task 'question'. Did you mean questions"):
        _kind(tmp_path, rows, "question")


@pytest.mark.parametrize(
    ("cell", "box"),
    [
        ("[1, 2.5, 3, 4]", (1, 2.5, 3, 4)),
        ("1 2 3 4", (1, 2, 3, 4)),
        ([[1, 2, 3, 4]], (1, 2, 3, 4)),
        (["1", "2", "3", "4"], (1, 2, 3, 4)),
        ("1,2,3", None),
        ("left 1 2 3 4", None),
        ([1, 2, 3, True], None),
        (None, None),
    ],
)
def test_cells_with_boxes(cell, box):
    assert box_of(cell) == box
