"""GQA's official metrics: equal to the public evaluator's in every digit, from its files and from a test's records."""

import json
import shutil

import pytest

from tests.conftest import GOLDEN
from vlc.common.errors import MissingFile, UserError
from vlc.evaluation.official.__main__ import main
from vlc.tasks import TASKS
from vlc.tasks.gqa_metrics import Answered, consistency, distribution

GQA = GOLDEN / "tasks/gqa"
QUESTIONS, CHOICES = GQA / "raw/val_all_questions.json", GQA / "raw/val_choices.json"
PREDICTIONS = GQA / "expected/gqa_val_all_predictions_INPUT.json"


@pytest.fixture
def official() -> dict:
    scores = json.loads((GQA / "expected/gqa.json").read_text())["scores"]
    return {name: value for name, value in scores.items() if name != "grounding"}  # of attention maps


def _score(*words: str, questions=QUESTIONS, predictions=PREDICTIONS) -> dict:
    return dict(main(["gqa", "--questions", str(questions), "--predictions", str(predictions), *words]))


def test_every_digit_is_that_of_the_official_evaluator(official, tmp_path, capsys):
    out = tmp_path / "metrics.json"
    assert _score("--choices", str(CHOICES), "--json", str(out)) == official
    assert json.loads(out.read_text()) == official
    assert "structural/choose" in capsys.readouterr().out


def test_what_lacks_its_files_is_left_out(official, tmp_path, capsys):
    balanced = _score(questions=GQA / "raw/val_balanced_questions.json")
    assert balanced == {
        name: value for name, value in official.items() if name not in ("validity", "plausibility", "consistency")
    }
    assert "Consistency is left out" in capsys.readouterr().err


def test_questions_may_lie_in_pieces(official, tmp_path):
    (tmp_path / "pieces").mkdir()
    asked = list(json.loads(QUESTIONS.read_text()).items())
    for number, part in enumerate((asked[:10], asked[10:])):
        (tmp_path / f"pieces/val_{number}.json").write_text(json.dumps(dict(part)))
    assert _score("--choices", str(CHOICES), questions=tmp_path / "pieces") == official


def _changed(tmp_path, change) -> str:
    content = json.loads(PREDICTIONS.read_text())
    change(content)
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content.clear(), "22 of 22 balanced questions have no prediction; the first is '003040400'"),
        (
            lambda content: content[0].update(questionId=3040400),
            "should have the keys questionId and prediction, both texts",
        ),
        (lambda content: content[0].pop("prediction"), "should have the keys questionId and prediction"),
        (
            lambda content: content.append(content[0] | {"prediction": "?"}),
            "question '.*' is answered twice, '.*' and '\\?'",
        ),
    ],
)
def test_predictions_that_cannot_be_scored_are_told(change, told, tmp_path):
    with pytest.raises(UserError, match=told):
        _score(predictions=_changed(tmp_path, change))


def test_questions_that_cannot_be_scored_are_told(tmp_path):
    with pytest.raises(MissingFile, match="nowhere.json does not exist"):
        _score(questions=tmp_path / "nowhere.json")
    with pytest.raises(UserError, match="Splits without answers .* are scored by the server alone"):
        _score(questions=GQA / "raw/test_all_questions.json")
    shutil.copy(PREDICTIONS, tmp_path / "list.json")
    with pytest.raises(UserError, match="should hold a JSON object"):
        _score(questions=tmp_path / "list.json")
    (tmp_path / "empty.json").write_text("{}")
    with pytest.raises(UserError, match="None of the questions is balanced"):
        _score(questions=tmp_path / "empty.json")
    with pytest.raises(UserError, match="balanced questions have no entry among the choices"):
        _score("--choices", str(tmp_path / "empty.json"))


def test_the_records_of_a_test_give_the_same(official):
    questions = json.loads(QUESTIONS.read_text())
    predictions = {each["questionId"]: each["prediction"] for each in json.loads(PREDICTIONS.read_text())}
    records = [
        {
            "question_id": number,
            "answer": predictions[number],
            "gold_answer": question["answer"],
            "question_type": question["types"]["structural"],
            "semantic_type": question["types"]["semantic"],
            "group": question["groups"]["global"],
            "balanced": int(question["isBalanced"]),
            "entailed": question["entailed"],
        }
        for number, question in questions.items()
    ]
    report = TASKS["gqa"].report
    values = report.summary(records)
    assert values.pop("distribution") == official["distribution"]
    expected = {name: official[name] for name in ("accuracy", "binary", "open", "consistency")}
    for kind in ("structural", "semantic"):
        expected |= {f"accuracy/{kind}/{name}": percent for name, (percent, _) in official[kind].items()}
    assert values == {name: pytest.approx(value / 100, rel=1e-15) for name, value in expected.items()}
    assert json.loads(report.submission(records)[1]) == json.loads(PREDICTIONS.read_text())
    assert report.summary([{"question_id": "1", "answer": "yes"}]) == {}, "the answers are withheld"


def _answered(predicted: str, **changes) -> Answered:
    return Answered("yes", predicted, "verify", "obj", **changes)


def test_consistency_by_hand():
    """Right: a, which entails b (right) and c (wrong), and itself. Wrong: d, which entails a. Not balanced: e."""
    asked = {
        "a": _answered("yes", entailed=("a", "b", "c")),
        "b": _answered("yes", entailed=("a",)),
        "c": _answered("no"),
        "d": _answered("no", entailed=("a",)),
        "e": _answered("yes", entailed=("c",), balanced=False),
    }
    assert consistency(asked) == (1 / 2 + 1) / 2
    assert consistency(asked | {"b": _answered("yes", entailed=("x",))}) is None, "x is not there"
    assert consistency({"c": asked["c"]}) is None, "none entails another"


def test_distribution_by_hand():
    """Chi-square of the true answers: group g has 3 yes, predicted once: (1 - 3)^2 / 3, of three questions of four."""
    asked = [_answered(predicted, group="g") for predicted in ("yes", "no", "no")] + [_answered("yes", group="h")]
    assert distribution(asked) == pytest.approx((4 / 3 * 3 + 0 * 1) / 4 / 100)
    assert distribution([_answered("yes")]) is None
