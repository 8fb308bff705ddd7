"""VQA's official accuracies: equal to the public evaluator's, and files that cannot be scored."""

import json
import re
from argparse import ArgumentParser

import pytest

from tests.conftest import GOLDEN
from vlc.common.errors import MissingFile, UserError
from vlc.evaluation.official.__main__ import main
from vlc.evaluation.official.vqa import SCORER, accuracy, evaluate

VQA = GOLDEN / "tasks/vqa"
PREDICTED = "official_predictions_INPUT"


def _expected(name: str):
    return json.loads((VQA / f"expected/{name}.json").read_text())


@pytest.fixture
def annotations() -> list[dict]:
    files = (VQA / f"raw/v2_mscoco_{split}_annotations.json" for split in ("train2014", "val2014"))
    return [entry for file in files for entry in json.loads(file.read_text())["annotations"]]


@pytest.fixture
def predictions() -> dict[str, str]:
    return {str(entry["question_id"]): entry["answer"] for entry in _expected(PREDICTED)}


def test_accuracies_are_those_of_the_public_evaluator(annotations, predictions):
    assert evaluate(annotations, predictions) == _expected("official_accuracies")


@pytest.mark.parametrize(
    ("given", "said", "expected"),
    [
        (["yes"] * 10, "yes", 1),
        (["yes"] * 10, "Yes", 0),  # nothing is normalised where all agree
        (["yes"] * 9 + ["Yes"], "Yes.", 1),
        (["one"] * 9 + ["1"], "1", 1),
        (["red"] + ["blue"] * 9, "red", 0.3),
        (["red"] * 2 + ["blue"] * 8, "the red", 0.6),
        (["red"] * 3 + ["blue"] * 7, "red\n", 0.9),
        (["red"] * 4 + ["blue"] * 6, "red", 1),
        (["red"] * 10, "blue", 0),
    ],
)
def test_accuracy_of_one_answer(given, said, expected):
    assert accuracy(given, said) == pytest.approx(expected)


def test_a_question_without_prediction_and_a_prediction_without_question_are_told(annotations, predictions):
    number = str(annotations[3]["question_id"])
    with pytest.raises(UserError, match=f"question {number} has no prediction"):
        evaluate(annotations, {key: said for key, said in predictions.items() if key != number})
    with pytest.raises(UserError, match="question 7 is predicted, and no annotation is about it"):
        evaluate(annotations, predictions | {"7": "yes"})


def _scored(folder, annotations, predictions, *words):
    parser = ArgumentParser()
    SCORER.add_arguments(parser)
    paths = [folder / "annotations.json", folder / "predictions.json"]
    for path, content in zip(paths, (annotations, predictions), strict=True):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return SCORER.score(parser.parse_args(["--annotations", str(paths[0]), "--predictions", str(paths[1]), *words]))


def test_files_are_scored_whose_numbers_may_be_texts(annotations, tmp_path):
    listed = _expected(PREDICTED)
    texts = [entry | {"question_id": str(entry["question_id"])} for entry in listed]
    for given in (listed, texts):
        assert _scored(tmp_path, {"annotations": annotations}, given) == _expected("official_accuracies")


def test_the_command_prints_and_writes_the_accuracies(annotations, tmp_path, capsys):
    files = {"annotations": {"annotations": annotations}, "predictions": _expected(PREDICTED)}
    words = []
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
        words += [f"--{name}", str(tmp_path / name)]
    expected = _expected("official_accuracies")
    assert main(["vqa", *words, "--json", str(tmp_path / "scores.json")]) == expected
    assert json.loads((tmp_path / "scores.json").read_text()) == expected
    assert f"perAnswerType/yes/no {expected['perAnswerType']['yes/no']:.2f}" in re.sub(
        " +", " ", capsys.readouterr().out
    )


def test_a_part_of_the_questions_is_scored_alone(annotations, predictions, tmp_path):
    listed = _expected(PREDICTED)[:5]
    numbers = {entry["question_id"] for entry in listed}
    own = [entry for entry in annotations if entry["question_id"] in numbers]
    expected = evaluate(own, {number: said for number, said in predictions.items() if int(number) in numbers})
    assert _scored(tmp_path, {"annotations": annotations}, listed, "--part") == expected
    with pytest.raises(UserError, match="no question is both annotated and predicted"):
        _scored(tmp_path, {"annotations": annotations}, [{"question_id": 7, "answer": "yes"}], "--part")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{", "predictions.json cannot be read as JSON"),
        ({}, "predictions.json should hold a JSON list"),
        ([{"question_id": 1}], "should have the keys question_id, a number, and answer, a text"),
        ([{"question_id": 1.5, "answer": "yes"}], "should have the keys question_id, a number"),
        ([["yes"]], "should have the keys question_id, a number"),
        (
            [{"question_id": 1, "answer": said} for said in ("yes", "no")],
            "question 1 is answered twice, 'yes' and 'no'",
        ),
    ],
)
def test_predictions_that_cannot_be_read_are_told(given, message, annotations, tmp_path):
    with pytest.raises(UserError, match=message):
        _scored(tmp_path, {"annotations": annotations}, given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "should hold a JSON object with a list of annotations"),
        ({"annotations": []}, "should hold a JSON object with a list of annotations"),
        ({"annotations": [{"question_id": 1}]}, "is not VQA's: an annotation lacks 'answers'"),
        ({"annotations": [{"question_id": 1, "answers": []}]}, "question 1 has an annotation without answers"),
        (
            {"annotations": [{"question_id": 1, "answers": [{"answer": 3}]}]},
            "is not VQA's: an annotation has other types",
        ),
        ({"annotations": [3]}, "is not VQA's: an annotation has other types"),
    ],
)
def test_annotations_that_cannot_be_read_are_told(given, message, tmp_path):
    with pytest.raises(UserError, match=message):
        _scored(tmp_path, given, [{"question_id": 1, "answer": "yes"}])
    (tmp_path / "predictions.json").unlink()
    with pytest.raises(MissingFile, match="predictions.json does not exist"):
        SCORER.score(_arguments(tmp_path))


def _arguments(folder):
    parser = ArgumentParser()
    SCORER.add_arguments(parser)
    (folder / "annotations.json").write_text('{"annotations": [{}]}')
    return parser.parse_args(
        ["--annotations", str(folder / "annotations.json"), "--predictions", str(folder / "predictions.json")]
    )
