"""VCR: the three accuracies and the file for the leaderboard are those of the published scripts, byte for byte."""

import json

import numpy as np
import pytest

from tests.conftest import GOLDEN
from vlc.common.errors import UserError
from vlc.evaluation.official.__main__ import main

VCR = GOLDEN / "tasks/vcr"


def _records(numbers, answers, rationales) -> tuple[list[dict], list[dict]]:
    """The records of test questions; answers: (N, 4), rationales: (N, 4, 4)."""
    chosen = [{"annot_id": number, "probabilities": own} for number, own in zip(numbers, answers, strict=True)]
    given = [
        {"annot_id": number, "given_answer_index": place, "probabilities": values}
        for number, own in zip(numbers, rationales, strict=True)
        for place, values in enumerate(own)
    ]
    return chosen, given


@pytest.fixture
def run(tmp_path, capsys):
    def call(answers, rationales, *words: str):
        for name, content in (("qa", answers), ("qar", rationales)):
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return main(["vcr", str(tmp_path / "qa.json"), str(tmp_path / "qar.json"), *words])

    return call


def test_the_file_is_that_of_12_in_1_byte_for_byte(run, tmp_path):
    given = json.loads((VCR / "vcr_submission_12in1_INPUT.json").read_text())
    answers, rationales = ([entry["answer"] for entry in given[key]] for key in ("answer", "rationale"))
    numbers = [f"test-{entry['question_id']}" for entry in given["answer"]]
    grouped = [rationales[4 * place : 4 * place + 4] for place in range(len(answers))]
    records, of_rationales = _records(numbers, answers, grouped)
    assert run(records, of_rationales[::-1], "--csv", str(tmp_path / "out.csv")) == {}
    assert (tmp_path / "out.csv").read_bytes() == (VCR / "vcr_submission_12in1.csv").read_bytes()


def _softmax(logits: np.ndarray) -> list:
    values = np.exp(logits - logits.max(-1, keepdims=True))
    return json.loads(json.dumps((values / values.sum(-1, keepdims=True)).tolist()))


def test_the_file_has_the_order_and_the_values_of_vl_bert(run, tmp_path):
    arrays = np.load(VCR / "vcr_test_logits.npz")
    parts = _softmax(arrays["answer_logits"]), _softmax(arrays["rationale_logits"])
    run(*_records(arrays["annot_id"].tolist(), *parts), "--csv", str(tmp_path / "out.csv"))
    ours = (tmp_path / "out.csv").read_text().splitlines()
    theirs = (VCR / "vcr_test_result_Q2AR.csv").read_text().splitlines()
    assert ours[0] == theirs[0]
    assert len(ours[0].split(",")) == 21
    for own, their in zip(ours[1:], theirs[1:], strict=True):
        (number, *values), (their_number, *their_values) = own.split(","), their.split(",")
        assert number == their_number
        assert np.allclose(np.float64(values), np.float64(their_values), rtol=1e-5, atol=1e-8)
        assert np.allclose(np.float64(values).reshape(5, 4).sum(1), 1)


@pytest.fixture
def labelled() -> tuple[list[dict], list[dict]]:
    arrays = np.load(VCR / "vcr_val.npz")
    answers, rationales = _softmax(arrays["a_pred"]), _softmax(arrays["r_pred"])
    chosen = [
        {"annot_id": f"val-{number}", "label": int(label), "probabilities": own}
        for number, (own, label) in enumerate(zip(answers, arrays["answer_label"], strict=True))
    ]
    given = [
        {
            "annot_id": f"val-{number}",
            "given_answer_index": chosen[number]["label"],
            "label": int(label),
            "probabilities": own,
        }
        for number, (own, label) in enumerate(zip(rationales, arrays["rationale_label"], strict=True))
    ]
    return chosen, given


def test_accuracies_are_those_that_vl_bert_prints(run, labelled):
    printed = json.loads((VCR / "vcr_val.json").read_text())["printed"][1:]
    values = run(*labelled)
    assert [f"{name}\t{share:.1f}" for name, (share, _) in values.items()] == printed
    assert [count for _, count in values.values()] == [40] * 3


def test_equal_probabilities_are_wrong(run):
    even = [{"annot_id": "val-0", "label": 0, "probabilities": [0.25] * 4}]
    right = [{"annot_id": "val-0", "given_answer_index": 0, "label": 0, "probabilities": [0.4, 0.2, 0.2, 0.2]}]
    assert run(even, right) == {"Q->A": [0, 1], "QA->R": [100, 1], "Q->AR": [0, 1]}


def test_files_that_do_not_belong_together_are_refused(run, labelled, tmp_path):
    chosen, given = labelled
    with pytest.raises(UserError, match="1 questions, val-39 among them, are in one of"):
        run(chosen, given[:-1])
    with pytest.raises(UserError, match=r"val-0 are not given answer .*the test split has"):
        run(chosen, given, "--csv", str(tmp_path / "out.csv"))
    with pytest.raises(UserError, match="val-3 is there twice"):
        run([*chosen, chosen[3]], given)
    with pytest.raises(UserError, match="not given its right answer"):
        run(chosen, [given[0] | {"given_answer_index": (chosen[0]["label"] + 1) % 4}, *given[1:]])
    unlabelled = [{key: one[key] for key in one if key != "label"} for one in chosen]
    with pytest.raises(UserError, match="has no labels, as its split is measured by the leaderboard: pass --csv OUT"):
        run(unlabelled, given)


@pytest.mark.parametrize(
    "change", [{"probabilities": [0.5, 0.5]}, {"probabilities": [2.0, 0.0, 0.0, 0.0]}, {"annot_id": 3}, {"label": 4}]
)
def test_records_of_another_form_are_named(run, labelled, change):
    chosen, given = labelled
    with pytest.raises(UserError, match=r"qa\.json: .* should have annot_id, probabilities, as a test writes them"):
        run([chosen[0] | change, *chosen[1:]], given)
    with pytest.raises(UserError, match=r"qar\.json: .* should have annot_id, given_answer_index, probabilities"):
        run(chosen, chosen)
