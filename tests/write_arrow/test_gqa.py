"""GQA in its public layout: against the published loader, and with the mistakes that files may have."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import GOLDEN
from tests.tiny import image_bytes
from tests.write_arrow.conftest import table
from vlc.common.errors import MissingFile, UserError
from vlc.data.catalog import CATALOG

GQA = GOLDEN / "tasks/gqa"
COLUMNS = ("questions", "question_id", "answers", "answer_labels", "answer_scores")


def _expected(name: str):
    return json.loads((GQA / f"expected/{name}.json").read_text())


def _questions(path: Path) -> list[tuple]:
    """All questions of a table, each with its image."""
    rows = table(path).to_pylist()
    return [(row["image_id"], *values) for row in rows for values in zip(*(row[name] for name in COLUMNS), strict=True)]


def _published(name: str, missing: str = "2410009") -> list[tuple]:
    """Entries of the published loader, but for the image that has no file."""
    answers = _expected("gqa_label2ans_INPUT")
    entries = [entry["answer"] for entry in _expected(name)["entries"] if entry["image_id"] != missing]
    return [
        (each["image_id"], each["question"], each["question_id"], [answers[each["labels"][0]]], each["scores"])
        for each in entries
    ]


def _by_answer(questions: list[tuple]) -> list[tuple]:
    return sorted((*question[:4], question[5]) for question in questions)


@pytest.fixture
def root(tmp_path):
    shutil.copytree(GQA / "raw", tmp_path / "raw")
    return tmp_path / "raw"


def _without_n_images(root: Path) -> None:
    for split in ("train", "val"):
        path = root / f"{split}_balanced_questions.json"
        kept = {key: each for key, each in json.loads(path.read_text()).items() if not each["imageId"].startswith("n")}
        path.write_text(json.dumps(kept))


def test_questions_are_those_of_the_published_loader(root, write):
    out = write("gqa", root)
    assert _by_answer(_questions(out / "gqa_val.arrow")) == sorted(_published("gqa_val"))
    train = [question for question in _questions(out / "gqa_train.arrow") if not question[0].startswith("n")]
    assert _by_answer(train) == sorted(_published("gqa_train_without_n_images"))
    assert {row["image_id"] for row in table(out / "gqa_train.arrow").to_pylist()} >= {"n271000", "1"}
    asked = [
        (row["image_id"], *each)
        for row in table(out / "gqa_testdev.arrow").to_pylist()
        for each in zip(row["questions"], row["question_id"], strict=True)
    ]
    expected = _expected("gqa_test")["entries"]  # of the published loader, "test" is testdev
    assert [(image, text, int(number)) for image, text, number in asked] == [
        (entry["image_id"], entry["question"], entry["question_id"]) for entry in expected
    ]
    rejected = json.loads((out / "gqa_train.rejected.jsonl").read_text())
    assert rejected == {"path": "images/2410009.jpg", "reason": "no such file"}


def test_the_vocabulary_has_every_answer_of_train_and_val(root, write):
    out = write("gqa", root)
    answers = json.loads((out / "gqa_answers.json").read_text())
    assert sorted(answers) == _expected("gqa_label2ans_INPUT")
    for split in ("train", "val", "testdev"):
        for *_, words, labels, scores in _questions(out / f"gqa_{split}.arrow"):
            assert ([answers[label] for label in labels], scores) == (words, [1.0] * len(words))


def test_an_answer_outside_the_vocabulary_is_kept_without_label_and_counted(root, write, capsys):
    out = write("gqa", root, "--questions", "all")
    assert (
        "gqa_all_testdev: 16 questions about 2 images; 1 answers are not in the vocabulary" in capsys.readouterr().out
    )
    rows = table(out / "gqa_all_testdev.arrow").to_pylist()
    known = set(json.loads((out / "gqa_all_answers.json").read_text()))
    for row in rows:
        for gold, answers, labels, scores in zip(
            row["gold_answers"], row["answers"], row["answer_labels"], row["answer_scores"], strict=True
        ):
            assert (answers, len(labels), scores) == (([gold], 1, [1.0]) if gold in known else ([], 0, []))


def test_the_division_of_12_in_1(root, write):
    """The published loader failed on images with n, so that its training questions are those of a run without them."""
    out = write("gqa", root, "--questions", "trainval", "--num-minval", "6")
    assert _by_answer(_questions(out / "gqa_minval.arrow")) == sorted(_published("gqa_minval"))
    assert len(_questions(out / "gqa_trainval.arrow")) == 46 - 6 - 4  # whose image has no file
    _without_n_images(root)
    out = write("gqa", root, "--questions", "trainval", "--num-minval", "6", out="other")
    assert _by_answer(_questions(out / "gqa_trainval.arrow")) == sorted(_published("gqa_trainval_without_n_images"))


def test_3000_questions_are_held_out_in_the_order_of_texts(tmp_path, write):
    stored = np.load(GQA / "expected/held_out_by_id.npz")
    (tmp_path / "raw/images").mkdir(parents=True)
    (tmp_path / "raw/images/1.jpg").write_bytes(image_bytes())
    (template,) = list(json.loads((GQA / "raw/train_balanced_questions.json").read_text()).values())[:1]
    asked = dict.fromkeys(stored["gqa_ids"].tolist(), template | {"imageId": "1"})
    (tmp_path / "raw/train_balanced_questions.json").write_text(json.dumps(asked))
    (tmp_path / "raw/val_balanced_questions.json").write_text("{}")
    out = write("gqa", tmp_path / "raw", "--questions", "trainval")
    (row,) = table(out / "gqa_minval.arrow").to_pylist()
    assert sorted(row["question_id"]) == stored["gqa_minval_OWN"].tolist()


def test_all_questions_may_come_in_pieces(root, write):
    out = write("gqa", root, "--questions", "all")
    pieces = [
        json.loads((root / f"train_all_questions/train_all_questions_{number}.json").read_text()) for number in (0, 1)
    ]
    ids = [number for row in table(out / "gqa_all_train.arrow").to_pylist() for number in row["question_id"]]
    present = {number for piece in pieces for number, each in piece.items() if each["imageId"] != "2410009"}
    assert (len(ids), set(ids)) == (len(present), present)
    stems = {path.stem for path in out.glob("*.arrow")}
    assert stems == {f"gqa_all_{split}" for split in ("train", "val", "testdev", "test", "challenge", "submission")}


def test_what_the_official_metrics_need_stands_beside_a_question(root, write):
    out = write("gqa", root, "--questions", "all")
    raw = json.loads((root / "val_all_questions.json").read_text())
    names = ("question_id", "question_types", "semantic_types", "detailed_types", "answer_types", "groups", "entailed")
    for row in table(out / "gqa_all_val.arrow").to_pylist():
        for number, *described in zip(*(row[name] for name in names), strict=True):
            entry = raw[number]
            types = [entry["types"][kind] for kind in ("structural", "semantic", "detailed")]
            answer_type = "open" if types[0] == "query" else "binary"
            assert described == [*types, answer_type, entry["groups"]["global"], entry["entailed"]]
        assert row["is_balanced"] == [raw[number]["isBalanced"] for number in row["question_id"]]


def test_splits_without_answers_have_questions_alone(root, write):
    out = write("gqa", root, "--questions", "all")
    for split in ("test", "challenge", "submission"):
        for row in table(out / f"gqa_all_{split}.arrow").to_pylist():
            assert len(row["questions"]) == len(row["question_id"]) == len(row["is_balanced"]) > 0
            assert not any(row[name] for name in ("answers", "answer_labels", "gold_answers", "entailed", "groups"))


def test_a_split_without_file_is_told_and_train_and_val_are_required(root, write, capsys):
    (root / "challenge_balanced_questions.json").unlink()
    out = write("gqa", root)
    assert "gqa_challenge is not written: there is no challenge_balanced_questions.json" in capsys.readouterr().out
    assert not (out / "gqa_challenge.arrow").exists()
    (root / "val_balanced_questions.json").unlink()
    with pytest.raises(
        MissingFile, match=r"val_balanced_questions\.json does not exist, nor a folder .*--root should hold"
    ):
        write("gqa", root, out="other")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"entailed": [3040062]}, r"entailed holds 3040062, expected a string: a number has lost the zeros"),
        ({"imageId": None}, "imageId is 'None', expected a string"),
        ({"answer": 3}, "answer is '3', expected a string"),
        ({"isBalanced": "yes"}, "isBalanced is 'yes', expected true or false"),
        ({"types": {"structural": "query"}}, "an entry lacks structural, semantic, detailed"),
    ],
)
def test_annotations_of_other_types_are_told(change, told, root, write):
    path = root / "val_balanced_questions.json"
    asked = json.loads(path.read_text())
    asked[next(iter(asked))] |= change
    path.write_text(json.dumps(asked))
    with pytest.raises(UserError, match=rf"{path}: {told}"):
        write("gqa", root)


def test_image_ids_may_be_numbers(root, write):
    path = root / "val_balanced_questions.json"
    before = write("gqa", root)
    asked = {
        key: each | ({"imageId": int(each["imageId"])} if each["imageId"].isdigit() else {})
        for key, each in json.loads(path.read_text()).items()
    }
    path.write_text(json.dumps(asked))
    out = write("gqa", root, out="other")
    assert table(out / "gqa_val.arrow").equals(table(before / "gqa_val.arrow"))


@pytest.mark.parametrize("count", ["0", "46", "3000"])
def test_a_division_leaves_questions_on_both_sides(count, root, write):
    with pytest.raises(UserError, match=f"--num-minval {count} is not valid: there are 46 questions to divide"):
        write("gqa", root, "--questions", "trainval", "--num-minval", count)


def test_columns_are_those_the_catalogue_reads(root, write):
    for form, name in (("balanced", "gqa"), ("all", "gqa_all"), ("trainval", "gqa_trainval")):
        out = write("gqa", root, "--questions", form, "--num-minval", "6", out=form)
        spec = CATALOG[name]
        for stems in spec.tables.values():
            for stem in stems:
                names = {column.name for column in spec.fields.values()} | {"image", "questions"}
                assert names <= set(table(out / f"{stem}.arrow").column_names)
