"""Scores of written texts equal those of the public code."""

import json
import re

import pytest
import sacrebleu

from tests.conftest import GOLDEN
from vlc.evaluation.text_scores import bleu_and_chrf, cider

CASES = json.loads((GOLDEN / "tasks/bleu/bleu.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("name", CASES)
def test_bleu_and_chrf_are_those_of_sacrebleu(name):
    case = CASES[name]
    references = list(zip(*case["refs"], strict=True)) if "refs" in case else [[one] for one in case["ref"]]
    found = bleu_and_chrf(case["hyp"], references)
    ours = {
        "bleu": "bleu",
        "bp": "brevity_penalty",
        "signature": "signature",
        "chrf": "chrf",
        "chrf_pp": "chrf++",
        "bleu_lc": "bleu_lowercased",
    }
    expected = {our: case[their] for their, our in ours.items() if their in case}
    for order, precision in enumerate(case.get("precisions", ()), start=1):
        expected[f"precision_{order}"] = precision
    if "signature" in expected:  # it ends with the version that is installed
        expected["signature"] = re.sub(r"version:\S+", f"version:{sacrebleu.__version__}", expected["signature"])
    for key, value in expected.items():
        assert found[key] == (value if isinstance(value, str) else pytest.approx(value, abs=1e-9)), key
    if "bleu_tok_none" in case:
        assert bleu_and_chrf(case["hyp"], references, "none")["bleu"] == pytest.approx(case["bleu_tok_none"], abs=1e-9)


def test_hypotheses_may_have_unequally_many_references():
    hypotheses, references = ["a red dog is here now", "two cats"], [["a dog", "a red dog is here now"], ["two cats"]]
    assert bleu_and_chrf(hypotheses, references)["bleu"] == pytest.approx(100)


def test_cider_is_that_of_the_public_code():
    """The value is of pycocoevalcap 1.2 for the same words."""
    hypotheses = ["A dog on a red house.", "Two cats"]
    references = [["a dog is on the red house", "the red house"], ["two cats left of the sun", "it is two cats"]]
    assert cider(hypotheses, references) == pytest.approx(252.69685379885152, abs=1e-9)
    assert cider(["a b c d e", "f g h i"], [["a b c d e"], ["f g h i"]]) == pytest.approx(1000)
    assert cider(["", "x"], [["a b"], ["c"]]) == 0
