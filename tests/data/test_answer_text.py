"""Normalisation of answers, against the published one."""

import json

from vlc.data.answer_text import normalize_answer


def test_published_cases(golden):
    cases = json.loads((golden / "text/normalize_word.json").read_text())
    assert len(cases) > 700
    wrong = [(text, expected, normalize_answer(text)) for text, expected in cases if normalize_answer(text) != expected]
    assert not wrong


def test_normal_forms_stay_as_they_are():
    for text in ("2 dogs", "don't know", "0", "red white and blue", "5:30pm"):
        assert normalize_answer(text) == text
