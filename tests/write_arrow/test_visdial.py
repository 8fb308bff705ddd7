"""VisDial as it is distributed: what a row holds, and what is said of files that are not as they should be."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import GOLDEN
from tests.write_arrow.conftest import table
from vlc.common.errors import UserError

RAW = GOLDEN / "tasks/visdial"


@pytest.fixture
def root(tmp_path) -> Path:
    return Path(shutil.copytree(RAW, tmp_path / "raw"))


def _change(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_rows_hold_what_the_files_say(write, split):
    raw = json.loads((RAW / f"visdial_1.0_{split}.json").read_text())["data"]
    rows = table(write("visdial", RAW) / f"visdial_{split}.arrow").to_pylist()
    assert [row["image_id"] for row in rows] == [dialogue["image_id"] for dialogue in raw["dialogs"]]
    for row, dialogue in zip(rows, raw["dialogs"], strict=True):
        turns = dialogue["dialog"]
        asked = [number for number, turn in enumerate(turns) if "answer_options" in turn]
        assert row["round_id"] == [1 + number for number in asked]
        assert row["caption"] == dialogue["caption"]
        assert row["questions"] == [raw["questions"][turns[number]["question"]] for number in asked]
        assert row["options"] == [[raw["answers"][a] for a in turns[number]["answer_options"]] for number in asked]
        assert row["answer_index"] == ([] if split == "test" else [turns[number]["gt_index"] for number in asked])
        for number, history in zip(asked, row["history"], strict=True):
            said = [(raw["questions"][turn["question"]], raw["answers"][turn["answer"]]) for turn in turns[:number]]
            assert history == [words for turn in said for words in turn]


def test_each_split_has_images_of_its_own_folder(write):
    out = write("visdial", RAW)
    names = {
        "train": "train2014/COCO_train2014_000000110107",
        "test": "VisualDialog_test2018/VisualDialog_test2018_000000720000",
    }
    for split, name in (names | {"val": "VisualDialog_val2018/VisualDialog_val2018_000000710000"}).items():
        assert table(out / f"visdial_{split}.arrow")["image"][0].as_py() == (RAW / f"{name}.jpg").read_bytes()
    images = table(out / "visdial_train.arrow")["image"].to_pylist()
    assert images[2] == (RAW / "val2014/COCO_val2014_000000115000.jpg").read_bytes(), "train has images of both folders"


@pytest.mark.parametrize(("split", "key"), [("train", "relevance"), ("val", "gt_relevance")])
def test_relevances_stand_beside_their_round(write, split, key):
    dense = json.loads((RAW / f"visdial_1.0_{split}_dense_annotations.json").read_text())
    wanted = {(entry["image_id"], entry["round_id"]): entry[key] for entry in dense}
    for row in table(write("visdial", RAW) / f"visdial_{split}.arrow").to_pylist():
        for number, relevance in zip(row["round_id"], row["relevance"], strict=True):
            assert relevance == wanted.get((row["image_id"], number), [])


def test_dense_annotations_may_be_missing(write, root):
    (root / "visdial_1.0_train_dense_annotations.json").unlink()
    rows = table(write("visdial", root) / "visdial_train.arrow").to_pylist()
    assert all(not any(row["relevance"]) for row in rows)


def test_a_dialogue_without_its_image_is_listed(write, root):
    (root / "val2014/COCO_val2014_000000115000.jpg").unlink()
    out = write("visdial", root)
    assert json.loads((out / "visdial_train.rejected.jsonl").read_text()) == {
        "path": "train2014/COCO_train2014_000000115000.jpg",
        "reason": "no such file, nor val2014/COCO_val2014_000000115000.jpg",
    }
    assert table(out / "visdial_train.arrow")["image_id"].to_pylist() == [110107, 110142]


def test_the_keys_may_stand_in_any_order(write, root):
    expected = table(write("visdial", RAW) / "visdial_val.arrow")

    def turn_round(content: dict) -> None:
        content["data"] = {key: content["data"][key] for key in ("dialogs", "answers", "questions")}
        content["about"] = content.pop("version")

    _change(root / "visdial_1.0_val.json", turn_round)
    assert table(write("visdial", root, out="other") / "visdial_val.arrow").equals(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda turn: turn["answer_options"].pop(), "image 710000, round 3 has 99 options, expected 100"),
        (
            lambda turn: turn.update(gt_index=100),
            "image 710000, round 3 has gt_index 100, expected a number from 0 to 99",
        ),
        (lambda turn: turn.update(question=30), "image 710000, round 3 names text 30, but there are 30"),
        (lambda turn: turn.update(answer=-1), "image 710000, round 3 names text -1, but there are 130"),
        (lambda turn: turn.pop("gt_index"), r"visdial_1\.0_val\.json: an entry lacks gt_index"),
    ],
)
def test_a_wrong_round_is_named(write, root, change, message):
    _change(root / "visdial_1.0_val.json", lambda content: change(content["data"]["dialogs"][0]["dialog"][2]))
    with pytest.raises(UserError, match=message):
        write("visdial", root)


def test_relevances_of_another_number_are_named(write, root):
    _change(root / "visdial_1.0_val_dense_annotations.json", lambda content: content[0]["gt_relevance"].pop())
    with pytest.raises(UserError, match="image 710000, round 4 has 99 relevances, expected 100"):
        write("visdial", root)


def test_a_text_that_is_none_is_named(write, root):
    _change(root / "visdial_1.0_val.json", lambda content: content["data"]["answers"].__setitem__(7, 3))
    with pytest.raises(UserError, match=r"visdial_1\.0_val\.json: entry 7 of data\.answers is '3', expected a text"):
        write("visdial", root)
