"""Translations of ambiguous words are scored as tokens, or as the public scorer counts them."""

import json
import shutil

import pytest

from tests.conftest import GOLDEN
from vlc.common.errors import MissingFile, UserError
from vlc.evaluation.official.__main__ import main
from vlc.evaluation.official.mlt import hits
from vlc.evaluation.official.scorer import read_lines

MLT = GOLDEN / "tasks/mlt"
EXPECTED = json.loads((MLT / "expected/mlt.json").read_text())
OUTPUTS = [(system, language) for system in "AB" for language in ("de", "fr")]


def _files(system, language):
    references = MLT / f"2018evaluation/MLTreferences/EN{language.upper()}_MLTD_test2018.txt"
    return references, MLT / f"2018evaluation/hyp_{system}.{language}.lc.norm.tok"


@pytest.mark.parametrize(("system", "language"), OUTPUTS)
def test_tokens_are_counted_as_an_independent_computation_counts_them(system, language):
    expected = EXPECTED["own_token_rule"][f"hyp_{system}.{language}"]
    references, hypotheses = _files(system, language)
    assert hits(read_lines(references), read_lines(hypotheses)) == list(map(bool, expected["hits"]))
    found = main(["mlt", "--references", str(references), "--hypotheses", str(hypotheses)])
    accuracy = [100 * expected["correct"] / expected["total"], expected["total"]]
    assert found == {"accuracy": accuracy, "correct": expected["correct"]}


@pytest.mark.parametrize(("system", "language"), OUTPUTS)
def test_compat_counts_as_the_public_scorer(system, language, tmp_path):
    references, hypotheses = _files(system, language)
    correct, total = EXPECTED["published"][hypotheses.name]
    words = ["mlt", "--references", str(references), "--hypotheses", str(hypotheses), "--compat"]
    assert main(words) == {"accuracy": [100 * correct / total, total], "correct": correct}
    words[2] = str(shutil.copy(references, tmp_path / "references.txt"))
    with pytest.raises(UserError, match=r"which references\.txt does not say: pass --language"):
        main(words)
    assert main([*words, "--language", language])["correct"] == correct


@pytest.mark.parametrize(
    ("reference", "hypothesis", "right"),
    [
        ("top oben auf_dem_Kopf 0", "der hund leckt auf dem kopf .", True),
        ("top oben auf_dem_Kopf 0", "auf kopf dem", False),
        ("hat Mütze 0", "die mu\u0308tze", True),
        ("hat mütze 0", "eine schirmmütze", False),
        ("back Back pack = rucksack 0", "back pack", False),
        ("ten zehn 0", "0 hunde", False),
        ("tie 0", "0", False),
    ],
)
def test_a_translation_is_a_sequence_of_words_in_any_case(reference, hypothesis, right):
    assert hits([reference], [hypothesis]) == [right]


def test_files_that_cannot_be_scored_are_told(tmp_path):
    references, hypotheses = tmp_path / "ende.txt", tmp_path / "output.de"
    words = ["mlt", "--references", str(references), "--hypotheses", str(hypotheses)]
    with pytest.raises(MissingFile, match=r"ende\.txt does not exist"):
        main(words)
    references.write_text("wall wand 0\nwall wand 2\n")
    hypotheses.write_text("eine wand\nein tor\n")
    with pytest.raises(UserError, match=r"line 2 of the references is about line 2 of the output .* has 2 lines"):
        main(words)
    references.write_text("wall wand 0\nwall wand\n")
    with pytest.raises(UserError, match=r"line 2 of the references is 'wall wand', expected WORD TRANSLATION"):
        main(words)
    hypotheses.write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"output\.de cannot be read as UTF-8 text"):
        main(words)
