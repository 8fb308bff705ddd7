"""Own data sets whose values are lists and numbers; test_your_own_task.py writes texts and names of classes."""

import json
import sys

import pyarrow as pa
import pytest

from tests.tiny import image_bytes
from vlc.common.errors import UserError
from vlc.configuration import own_tasks
from vlc.data.catalog import CATALOG
from vlc.tasks import TASKS
from write_arrow.__main__ import main

FILE = """
from vlc.data.kinds import ANSWERS, BOXES, LABELS, NUMBERS, SCORES, one_of
from vlc.data.spec import Column, DatasetSpec
from vlc.tasks.task import Task

FIELDS = {
    "width": Column("width", NUMBERS, per_text=False),
    "height": Column("height", NUMBERS, per_text=False),
    "target_boxes": Column("boxes", BOXES),
    "answer_labels": Column("numbers", LABELS),
    "answer_scores": Column("scores", SCORES, beside="numbers"),
    "answers": Column("names", ANSWERS, beside="numbers"),
    "label": Column("label", one_of(3)),
}
LABELLED = {"label": Column("label", one_of(3), per_text=False)}
DATASETS = {
    "listed": DatasetSpec("table", {"train": ("listed",)}, "text", fields=FIELDS, validation=(), test=()),
    "alone": DatasetSpec("table", {"train": ("alone",)}, fields=LABELLED, labelled=True, validation=(), test=()),
}
TASKS = {"listed_task": Task({"itc": 1}, ("listed",))}
"""


@pytest.fixture
def file(tmp_path):
    kept = [(registry, dict(registry)) for registry in (TASKS, CATALOG, own_tasks._OWN)]
    path = list(sys.path)
    (tmp_path / "rows_with_lists.py").write_text(FILE)
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(image_bytes(number))
    yield tmp_path / "rows_with_lists.py"
    for registry, rows in kept:
        registry.clear()
        registry.update(rows)
    sys.path[:] = path
    sys.modules.pop("rows_with_lists", None)


def _row(number: int, **changes) -> dict:
    values = {"boxes": [[1, 2, 30, 20.5]], "numbers": [2, 0], "scores": [1, 0.5], "names": ["a", "b"]}
    row = {"image": f"{number // 2}.jpg", "text": f"text {number}", "label": number, "width": 40, "height": 30}
    return {**row, **values, "split": "train", **changes}


def _written(file, rows, dataset="listed"):
    (file.parent / "table.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = ["table", "--dataset", f"{file}:{dataset}", "--table", str(file.parent / "table.jsonl")]
    main([*words, "--root", str(file.parent), "--out", str(file.parent / "out"), "--workers", "1"])
    with pa.memory_map(str(file.parent / f"out/{dataset}.arrow")) as source:
        return pa.ipc.open_file(source).read_all().drop_columns(["image"]).to_pylist()


def test_lists_and_numbers(file):
    as_json = {name: json.dumps(value) for name, value in _row(2).items() if isinstance(value, list)}  # as in a CSV
    first, second = _written(file, [_row(0), _row(1, numbers=[], scores=[], names=[]), _row(2, label="2", **as_json)])
    assert first["text"] == ["text 0", "text 1"]
    assert first["boxes"] == [[[1, 2, 30, 20.5]]] * 2
    assert first["numbers"] == [[2, 0], []]
    assert (first["width"], first["label"]) == (40, [0, 1])
    assert second["label"] == [2]
    assert {name: second[name] for name in as_json} == {name: [_row(2)[name]] for name in as_json}


def test_images_without_texts(file):
    rows = [{"image": f"{number}.jpg", "label": number, "split": "train"} for number in range(2)]
    assert _written(file, rows, "alone") == [{"label": 0}, {"label": 1}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": "1 2 3 4"}, "line 1: column boxes holds '1 2 3 4', expected boxes .*, as JSON"),
        ({"boxes": [[1, 2, 50, 20]]}, "boxes holds .*50.*"),
        ({"label": 3}, "label holds 3, expected a whole number from 0 to 2"),
        ({"numbers": [1]}, "2 scores and 1 numbers for one text"),
    ],
)
def test_values_that_are_not_understood(file, change, message):
    with pytest.raises(UserError, match=message):
        _written(file, [_row(0, **change)])
