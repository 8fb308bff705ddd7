"""All questions of Visual Genome that VQA's vocabulary answers, as a task: against the published loader."""

import json
import shutil

import numpy as np
import pytest

from tests.conftest import GOLDEN
from tests.tiny import image_bytes
from tests.write_arrow.conftest import table
from vlc.common.errors import UserError
from vlc.data.catalog import CATALOG

VGQA = GOLDEN / "tasks/vgqa"
COLUMNS = ("questions", "question_id", "answer_labels", "answer_scores")


def _expected(name: str):
    return json.loads((VGQA / f"expected/{name}.json").read_text())


@pytest.fixture
def out(tmp_path):
    """A folder with VQA's vocabulary."""
    (tmp_path / "out").mkdir()
    shutil.copy(VGQA / "expected/vqa_label2ans_INPUT.json", tmp_path / "out/vqav2_answers.json")
    return tmp_path / "out"


def test_questions_are_those_of_the_published_loader(out, write, capsys):
    write("vgqa", VGQA / "raw", "--all", "--num-val", "7")
    for split in ("train", "val"):
        rows = table(out / f"vgqa_all_{split}.arrow").to_pylist()
        ours = [(row["image_id"], *each) for row in rows for each in zip(*(row[name] for name in COLUMNS), strict=True)]
        entries = [entry["answer"] for entry in _expected(f"vgqa_{split}")["entries"] if entry["image_id"] != 2410009]
        theirs = {
            (each["image_id"], each["question"], each["question_id"], *map(tuple, (each["labels"], each["scores"])))
            for each in entries
        }
        assert len(entries) - len(theirs) == (split == "train"), "one question stands twice"
        assert len(ours) == len(theirs)
        assert {(*each[:3], *map(tuple, each[3:])) for each in ours} == theirs
        answers = _expected("vqa_label2ans_INPUT")
        for row in rows:
            assert row["answers"] == [[answers[label] for label in labels] for labels in row["answer_labels"]]
    rejected = [json.loads(line) for line in (out / "vgqa_all_train.rejected.jsonl").read_text().splitlines()]
    assert rejected == [
        {"path": "images/2410009.jpg", "reason": "no such file"},
        {"path": "question 1490022", "reason": "an earlier question has the same qa_id"},
    ]
    assert "vgqa: 36 of 48 questions are usable" in capsys.readouterr().out


def test_5000_questions_are_held_out_by_number(tmp_path, out, write):
    stored = np.load(VGQA / "expected/held_out_by_id.npz")
    (tmp_path / "raw/images").mkdir(parents=True)
    (tmp_path / "raw/images/1.jpg").write_bytes(image_bytes())
    asked = [
        {"qa_id": number, "image_id": 1, "question": "Is it?", "answer": "Yes."} for number in stored["vg_ids"].tolist()
    ]
    (tmp_path / "raw/question_answers.json").write_text(json.dumps([{"id": 1, "qas": asked}]))
    write("vgqa", tmp_path / "raw", "--all")
    for split in ("train", "val"):
        (row,) = table(out / f"vgqa_all_{split}.arrow").to_pylist()
        assert sorted(row["question_id"]) == stored[f"vg_{split}"].tolist()


def test_a_division_leaves_questions_on_both_sides(out, write):
    with pytest.raises(UserError, match="--num-val 36 is not valid: there are 36 questions to divide"):
        write("vgqa", VGQA / "raw", "--all", "--num-val", "36")


def test_there_is_no_published_file_of_all_questions(out, write):
    with pytest.raises(UserError, match="--all has no published converter"):
        write("vgqa", VGQA / "raw", "--all", "--compat")


def test_columns_are_those_the_catalogue_reads(out, write):
    write("vgqa", VGQA / "raw", "--all", "--num-val", "7")
    spec = CATALOG["vgqa_all"]
    for (stem,) in spec.tables.values():
        assert spec.columns(frozenset({"answer_labels", "answer_scores", "question_id"})) <= set(
            table(out / f"{stem}.arrow").column_names
        )
