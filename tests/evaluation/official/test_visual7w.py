"""Results of pointing are scored as the public toolkit scores them, and a question without result counts as wrong."""

import json

import pytest

from tests.conftest import GOLDEN
from vlc.common.errors import UserError
from vlc.evaluation.official.__main__ import main
from vlc.evaluation.official.visual7w import evaluate
from vlc.tasks.grounding import pointing_file

POINTING = GOLDEN / "tasks/pointing"
DATASET = POINTING / "visual7w/dataset_v7w_pointing.json"
IMAGES = json.loads(DATASET.read_text())["images"]


def _results(split: str) -> list[dict]:
    return json.loads((POINTING / f"expected/visual7w_result_{split}_INPUT.json").read_text())


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_whole_file_has_the_published_accuracy(split):
    expected = json.loads((POINTING / "expected/visual7w.json").read_text())[split]
    found = evaluate(IMAGES, _results(split), split)
    accuracy = [100 * expected["correct"] / expected["n"], expected["n"]]
    assert found == {"accuracy": accuracy, "by_type": {"which": accuracy}, "unanswered": 0}


def test_a_question_without_result_is_wrong_and_named(tmp_path, capsys):
    (tmp_path / "results.json").write_text(json.dumps(_results("test")[:-1]))
    found = main(["visual7w", "--dataset", str(DATASET), "--results", str(tmp_path / "results.json")])
    assert found["accuracy"] == [pytest.approx(200 / 3), 3]
    assert "1 questions have no result, and count as wrong" in capsys.readouterr().err


def test_the_file_of_a_test_is_scored():
    """It has the form of the public toolkit: a list of candidates, of which ours has one."""
    records = [
        {"qa_id": one["qa_id"], "question": one["question"], "box_id": 5, "right": False} for one in _results("val")
    ]
    suffix, text = pointing_file(records)
    assert suffix == "json"
    assert json.loads(text)[0].keys() == _results("val")[0].keys()
    assert evaluate(IMAGES, json.loads(text), "val")["accuracy"] == [0, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda results: results.append(results[0]), "question 110509 is answered twice"),
        (lambda results: results[1].update(qa_id=7), "question 7 is answered, and split 'test' has no such question"),
        (lambda results: results[1].pop("qa_id"), "is no list of results: KeyError 'qa_id'"),
    ],
)
def test_files_that_cannot_be_scored_are_refused(change, message, tmp_path):
    results = _results("test")
    change(results)
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match=message):
        main(["visual7w", "--dataset", str(DATASET), "--results", str(tmp_path / "results.json")])
