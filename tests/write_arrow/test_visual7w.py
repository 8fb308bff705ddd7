"""Visual7W's pointing task: the boxes of a question, which is right, and what cannot be asked."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import GOLDEN
from tests.write_arrow.conftest import table
from vlc.common.errors import UserError
from vlc.data.tokens import TextEncoder, load_tokenizer

POINTING = GOLDEN / "tasks/pointing"
RAW = POINTING / "visual7w"
QUESTIONS = json.loads((POINTING / "expected/pointing.json").read_text())["visual7w"]
LISTS = ("questions", "boxes", "box_ids", "answer_index", "qa_id", "question_types")


@pytest.fixture
def root(tmp_path) -> Path:
    return Path(shutil.copytree(RAW, tmp_path / "raw"))


def _change(root: Path, change: Callable[[dict], None]) -> None:
    path = root / "dataset_v7w_pointing.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _questions(out: Path, split: str) -> list[dict[str, Any]]:
    return [
        dict(zip(LISTS, values, strict=True), **{name: row[name] for name in ("image_id", "split", "width", "height")})
        for row in table(out / f"visual7w_{split}.arrow").to_pylist()
        for values in zip(*(row[name] for name in LISTS), strict=True)
    ]


def _rejected(out: Path, split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (out / f"visual7w_{split}.rejected.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_questions_have_the_boxes_of_the_files(write, split):
    found = _questions(write("visual7w", RAW), split)
    expected = [one for one in QUESTIONS if one["split"] == split]
    for one, wanted in zip(found, expected, strict=True):
        assert (one["qa_id"], one["questions"], one["image_id"]) == tuple(
            wanted[name] for name in ("qa_id", "question", "image_id")
        )
        assert (one["box_ids"], one["boxes"]) == (wanted["candidates"], wanted["boxes"])
        assert (one["answer_index"], one["question_types"]) == (wanted["target"], "which")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_tokens_and_places_are_the_ones_of_the_published_loader(write, split):
    """Its target is an overlap, so that a box of the same shape as the answer is right too; ours is one place."""
    found = _questions(write("visual7w", RAW), split)
    published = np.load(POINTING / f"expected/visual7w_{split}.npz")
    encoder = TextEncoder(load_tokenizer(str(GOLDEN / "tasks/visdial/tokenizer")), 20)
    for one, tokens, mask, target in zip(
        found, *(published[name] for name in ("tokens", "input_mask", "target")), strict=True
    ):
        assert encoder(one["questions"]).ids == tokens[mask == 1].tolist()
        if target.any():
            assert target[one["answer_index"], 0] == 1


def test_a_row_has_the_picture_and_its_size(write):
    rows = table(write("visual7w", RAW) / "visual7w_train.arrow").to_pylist()
    assert [row["image"] for row in rows] == [(RAW / f"images/v7w_{row['image_id']}.jpg").read_bytes() for row in rows]
    for row in rows:
        with Image.open(io.BytesIO(row["image"])) as picture:
            assert picture.size == (row["width"], row["height"])


def test_boxes_are_cut_to_their_picture(write, root):
    """One sticks out; of two questions, one loses a wrong box, and the other one its answer."""
    before = {one["qa_id"]: one for one in _questions(write("visual7w", root, out="before"), "test")}
    first = next(iter(before.values()))
    answer, wrong = (first["box_ids"][place] for place in (first["answer_index"], (first["answer_index"] + 1) % 4))

    def change(content: dict) -> None:
        boxes = {box["box_id"]: box for box in content["boxes"]}
        boxes[answer].update(x=-2, width=1000)
        boxes[wrong].update(x=500)

    _change(root, change)
    out = write("visual7w", root)
    after = {one["qa_id"]: one for one in _questions(out, "test")}
    lost = {number for number, one in before.items() if one["box_ids"][one["answer_index"]] == wrong}
    assert after.keys() == before.keys() - lost
    found = after[first["qa_id"]]
    assert len(found["boxes"]) == len(found["box_ids"]) == 3
    assert found["box_ids"][found["answer_index"]] == answer
    left, _, right, _ = found["boxes"][found["answer_index"]]
    assert (left, right) == (0, found["width"])
    reasons = [one["reason"] for one in _rejected(out, "test")]
    concerned = [number for number, one in before.items() if wrong in one["box_ids"]]
    assert [int(reason.split(":")[0].removeprefix("question ")) for reason in reasons] == concerned
    for reason in reasons:
        assert reason.endswith(f"without area in the picture: {wrong}")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda pair: pair.update(question=" "), "has no text"),
        (lambda pair: pair["multiple_choices"].pop(), "has 3 different boxes, expected 4"),
        (lambda pair: pair.update(answer=pair["multiple_choices"][0]), "has 3 different boxes, expected 4"),
        (lambda pair: pair["multiple_choices"].__setitem__(0, 7), "names box 7, of which there are 0"),
    ],
)
def test_questions_that_cannot_be_asked_are_listed(write, root, change, reason, capsys):
    _change(root, lambda content: change(content["images"][3]["qa_pairs"][1]))
    out = write("visual7w", root)
    (found,) = _rejected(out, "test")
    assert found["path"].startswith("images/v7w_")
    assert found["reason"].endswith(reason)
    assert len(_questions(out, "test")) == 2
    assert "visual7w_test: 2 questions about 1 images; 1 images and questions were left out" in capsys.readouterr().out


def test_a_missing_image_is_listed_with_the_number_of_its_questions(write, root):
    (root / "images/v7w_2410006.jpg").unlink()
    out = write("visual7w", root)
    assert _rejected(out, "train") == [
        {"path": "images/v7w_2410006.jpg", "reason": "no such file; 3 questions are about it"}
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["images"][0].update(split="dev"), "image 2 has split 'dev', not one of"),
        (
            lambda content: content["boxes"][0].update(x="left"),
            r"box 110559: a box is \['left'.*\], expected four numbers",
        ),
        (lambda content: content["images"][0]["qa_pairs"][0].pop("answer"), "an entry lacks"),
        (
            lambda content: content["images"][0]["qa_pairs"][0].update(multiple_choices=[[1], 2, 3]),
            "multiple_choices is",
        ),
    ],
)
def test_a_wrong_entry_is_named(write, root, change, message):
    _change(root, change)
    with pytest.raises(UserError, match=message):
        write("visual7w", root)


def test_an_image_without_size_is_listed_even_unverified(write, root):
    (root / "images/v7w_2.jpg").write_bytes(b"no image")
    out = write("visual7w", root, "--no-verify")
    assert [one["path"] for one in _rejected(out, "train")] == ["images/v7w_2.jpg"]
    assert {one["image_id"] for one in _questions(out, "train")} == {2410003, 2410006}
