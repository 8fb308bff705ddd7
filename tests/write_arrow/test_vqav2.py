"""VQA v2 in its public layout: against targets of VL-BERT and splits of 12-in-1, and with mistakes that files may have."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import GOLDEN
from tests.write_arrow.conftest import table
from vlc.common.errors import UserError
from vlc.data.answer_text import normalize_answer
from write_arrow.sources import vqav2

VQA = GOLDEN / "tasks/vqa"
STEMS = ("vqav2_train", "vqav2_trainable_val", "vqav2_rest_val")


def _expected(name: str):
    return json.loads((VQA / f"expected/{name}.json").read_text())


def _annotators() -> dict[int, list[str]]:
    """The ten answers to each question."""
    entries = []
    for split in ("train2014", "val2014"):
        entries += json.loads((VQA / f"raw/v2_mscoco_{split}_annotations.json").read_text())["annotations"]
    return {entry["question_id"]: [answer["answer"] for answer in entry["answers"]] for entry in entries}


def _questions(out: Path, *stems: str) -> dict[int, dict]:
    """The questions of tables by number, each with its image and what belongs to it."""
    questions = {}
    for row in (row for stem in stems for row in table(out / f"{stem}.arrow").to_pylist()):
        for place, number in enumerate(row["question_id"]):
            assert number not in questions, "a question is in one table alone"
            answers = row["answers"][place] if row["answers"] else []
            scores = dict(zip(answers, row["answer_scores"][place], strict=True)) if answers else {}
            questions[number] = {"image": row["image_id"], "question": row["questions"][place], "scores": scores}
    return questions


def _with_vocabulary(monkeypatch: pytest.MonkeyPatch, answers: list[str]) -> None:
    """Few questions make a vocabulary of few answers: this one is taken in its place."""
    monkeypatch.setattr(vqav2, "vocabulary", lambda conversion: {answer: label for label, answer in enumerate(answers)})


def test_scores_are_the_soft_targets_of_vlbert_where_nothing_is_normalised(monkeypatch, write):
    """VL-BERT compares the annotators' words as they are: "Yes" and "a circle" count for us, and not there."""
    published = _expected("vqa_soft_targets")
    vocabulary, annotators = published["vocabulary"], _annotators()
    _with_vocabulary(monkeypatch, sorted(set(vocabulary)))
    ours = _questions(write("vqav2", VQA / "raw"), *STEMS)
    compared = normalised = 0
    for number, target in published["soft_targets"].items():
        if int(number) not in ours:  # no file of its image, or no known answer in training
            assert number.startswith("110191") or not target
            continue
        theirs = {vocabulary[int(label)]: score for label, score in target.items()}
        scores = ours[int(number)]["scores"]
        changed = {normalize_answer(text) for text in annotators[int(number)] if normalize_answer(text) != text}
        for answer in theirs.keys() | scores.keys():
            compared += answer not in changed
            normalised += answer in changed
            if answer in changed:
                assert scores.get(answer, 0) >= theirs.get(answer, 0) - 1e-6
            else:
                assert scores.get(answer, 0) == pytest.approx(theirs.get(answer, 0), abs=1e-6)
    assert compared > 200
    assert normalised > 20


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("yes no 2 red".split()), min_size=10, max_size=10))
def test_votes_of_ten_give_the_leave_one_out_average(annotators):
    for answer, votes in vqav2.count_votes(annotators).items():
        others = [annotators[:place] + annotators[place + 1 :] for place in range(10)]
        expected = sum(min(1, rest.count(answer) / 3) for rest in others) / 10
        assert vqav2.SCORES.get(votes, 1.0) == pytest.approx(expected)
    assert _expected("vqa_soft_targets")["count_to_score"] == [
        [votes, pytest.approx(vqav2.SCORES.get(votes, min(votes, 1)))] for votes in range(11)
    ]


def test_the_division_by_questions_is_that_of_12_in_1(monkeypatch, write):
    monkeypatch.setattr(vqav2, "NUM_VAL", 5)
    vocabulary = _expected("vqa_label2ans_INPUT")
    _with_vocabulary(monkeypatch, vocabulary)
    out = write("vqav2", VQA / "raw", "--validate-on", "questions")
    trained, validated = _questions(out, *STEMS[:2]), _questions(out, STEMS[2])
    expected, without_answer = {}, set()
    for entry in _expected("vqa_trainval")["entries"]:
        answer = entry["answer"]
        if not answer["labels"]:
            without_answer.add(entry["question_id"])
        elif entry["image_id"] != 110191:
            scores = {vocabulary[label]: score for label, score in zip(answer["labels"], answer["scores"], strict=True)}
            own = {"image": entry["image_id"], "question": entry["question"], "scores": pytest.approx(scores)}
            expected[entry["question_id"]] = own
    assert trained == expected
    numbers = sorted(number for number in _annotators() if number > 2_000_000)
    assert sorted(validated) == numbers[-5:]
    assert without_answer
    # An image of which some questions are on either side.
    shared = {question["image"] for question in trained.values()} & {q["image"] for q in validated.values()}
    assert len(shared) == 1


def test_the_last_questions_are_those_of_12_in_1():
    stored = np.load(VQA / "expected/held_out_by_id.npz")
    last = vqav2.last_questions(stored["vqa_val_ids"].tolist())
    assert last == set(stored["vqa_minval"].tolist())
    assert {*stored["vqa_train_ids"].tolist(), *stored["vqa_val_ids"].tolist()} - last == set(
        stored["vqa_trainval"].tolist()
    )


def test_test_questions_are_those_of_12_in_1(write):
    found = _questions(write("vqav2", VQA / "raw"), "vqav2_test")
    expected = _expected("vqa_test")["entries"]
    assert {number: (q["image"], q["question"]) for number, q in found.items()} == {
        entry["question_id"]: (entry["image_id"], entry["question"]) for entry in expected
    }


@pytest.fixture
def root(tmp_path) -> Path:
    shutil.copytree(VQA / "raw", tmp_path / "raw")
    return tmp_path / "raw"


def _change(path: Path, change) -> None:
    content = json.loads(path.read_text())
    (key,) = content.keys() & {"questions", "annotations"}
    content[key] = change(content[key])
    path.write_text(json.dumps(content))


QUESTIONS, ANNOTATIONS = "v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json"


@pytest.mark.parametrize("file", [QUESTIONS, ANNOTATIONS])
def test_numbers_may_be_spelled_as_texts_in_one_of_the_files(file, root, write):
    _change(root / file, lambda entries: [entry | {"question_id": str(entry["question_id"])} for entry in entries])
    for path in (ours := write("vqav2", root)).iterdir():
        if path.suffix == ".arrow":
            assert table(path).equals(table(write("vqav2", VQA / "raw", out="as_numbers") / path.name))
    assert _questions(ours, "vqav2_train")


@pytest.mark.parametrize("number", ["0110000", "+1", " 1", "1.0", "١", "9" * 30])
def test_texts_that_spell_a_number_in_another_way_are_told(number, root, write):
    _change(root / QUESTIONS, lambda entries: [entries[0] | {"question_id": number}, *entries[1:]])
    with pytest.raises(UserError, match=r"questions\.json: question_id is .*expected an integer"):
        write("vqav2", root)


def _rejected(out: Path, stem: str) -> list[tuple[str, str]]:
    lines = (out / f"{stem}.rejected.jsonl").read_text().splitlines()
    return [(entry["path"], entry["reason"]) for entry in map(json.loads, lines)]


def test_annotated_images_without_a_file_are_listed(write):
    out = write("vqav2", VQA / "raw")
    missing = "train2014/COCO_train2014_000000110191.jpg"
    assert _rejected(out, "vqav2_train") == [(missing, "no such file")]
    assert not any(number // 10 == 110191 for number in _questions(out, "vqav2_train"))


def test_validation_images_without_a_file_are_listed(root, write):
    path = next((root / "val2014").iterdir())
    path.unlink()
    assert _rejected(write("vqav2", root), "vqav2_trainable_val") == [(f"val2014/{path.name}", "no such file")]


def test_questions_and_annotations_without_each_other_are_counted_and_listed(root, write, capsys):
    _change(root / ANNOTATIONS, lambda entries: entries[1:])
    _change(root / QUESTIONS, lambda entries: entries[:-2])
    first = json.loads((VQA / f"raw/{ANNOTATIONS}").read_text())["annotations"][0]["question_id"]
    out = write("vqav2", root)
    assert (f"question {first}", f"no annotation in {ANNOTATIONS}") in _rejected(out, "vqav2_train")
    told = capsys.readouterr().out
    assert "vqav2 train: 1 questions have no annotation" in told
    assert "vqav2 train: 2 annotations are about no question" in told


def test_answers_outside_the_vocabulary_are_no_labels(monkeypatch, write, capsys):
    _with_vocabulary(monkeypatch, ["yes"])
    out = write("vqav2", VQA / "raw")
    trained = _questions(out, *STEMS[:2])
    assert {answer for question in trained.values() for answer in question["scores"]} == {"yes"}
    told = capsys.readouterr().out
    known = [number for number, answers in _annotators().items() if "yes" in map(normalize_answer, answers)]
    assert len([number for number in known if number // 10 != 110191 and number < 2_000_000]) == len(trained)
    assert "questions have no answer that is in the vocabulary" in told
