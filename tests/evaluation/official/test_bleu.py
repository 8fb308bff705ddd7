"""Files of translations are scored by sacrebleu, and files that do not fit together are refused."""

import json

import pytest
import sacrebleu

from vlc.common.errors import UserError
from vlc.evaluation.official.__main__ import main

HYPOTHESES = ["Zwei Hunde laufen im Schnee.", "Ein Mann liest ein Buch."]
REFERENCES = ["Zwei Hunde rennen im Schnee.", "Ein Mann liest ein Buch."]


def _scored(folder, hypotheses, *references, more=()):
    paths = [folder / f"{number}.txt" for number in range(1 + len(references))]
    for path, lines in zip(paths, (hypotheses, *references), strict=True):
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    names = list(map(str, paths))
    return main(["bleu", "--hypotheses", names[0], "--references", *names[1:], *more])


def test_scores_are_printed_and_written_with_their_signatures(tmp_path, capsys):
    found = _scored(tmp_path, HYPOTHESES, REFERENCES, more=("--json", str(tmp_path / "out.json")))
    assert found["signature"] == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
    assert 60 < found["bleu"] < 90
    assert json.loads((tmp_path / "out.json").read_text()) == found
    assert "case:mixed" in capsys.readouterr().out
    two = _scored(tmp_path, HYPOTHESES, REFERENCES, HYPOTHESES)
    assert two["bleu"] == pytest.approx(100)
    assert two["signature"].startswith("nrefs:2")


def test_hypotheses_are_brought_into_the_form_of_tokenised_references(tmp_path):
    pytest.importorskip("sacremoses")
    tokenised = ["zwei hunde laufen im schnee .", "ein mann &quot; liest &quot; ein buch ."]
    found = _scored(tmp_path, [HYPOTHESES[0], 'Ein Mann "liest" ein Buch.'], tokenised, more=("--tok", "de"))
    assert found["bleu"] == pytest.approx(100)
    assert "tok:none" in found["signature"]


def test_files_that_do_not_fit_together_are_refused(tmp_path):
    with pytest.raises(UserError, match="2 lines of hypotheses and 1 of references"):
        _scored(tmp_path, HYPOTHESES, REFERENCES[:1])
    with pytest.raises(UserError, match="line 2 of the references is empty"):
        _scored(tmp_path, HYPOTHESES, [REFERENCES[0], " "])
    with pytest.raises(UserError, match="does not exist"):
        main(["bleu", "--hypotheses", "nowhere", "--references", "nowhere"])
