"""Normalisation and soft scores of answers, against a statement of the official rules of its own.

The statement works letter by letter where ours replaces texts, and scores by leaving annotators out one by one.
"""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vlc.data.answer_text import normalize_answer
from vlc.objectives.answers import soft_targets, vqa_score
from write_arrow.sources.vqav2 import SCORES, count_votes

MARKS = frozenset(';/[]"{}()=+\\_-><@`,?!')
NUMBERS = dict(
    zip(
        "none zero one two three four five six seven eight nine ten".split(),
        "0 0 1 2 3 4 5 6 7 8 9 10".split(),
        strict=True,
    )
)
SHORT = {"dont": "don't", "isnt": "isn't", "whats": "what's", "couldntve": "couldntve", "couldn'tve": "couldn't've"}


def _official(text: str) -> str:
    """The rules: marks, periods, small letters, number words, articles, contractions, in this order."""
    digits = "0123456789"
    number = any(a in digits and b == "," and c in digits for a, b, c in zip(text, text[1:], text[2:], strict=False))
    beside_space = {a if b == " " else b for a, b in pairwise(text) if " " in (a, b)}
    letters = []
    for letter in text:
        if letter not in MARKS:
            letters.append(letter)
        elif not number and letter not in beside_space:
            letters.append(" ")
    kept = [
        letter
        for place, letter in enumerate(letters)
        if letter != "." or (place + 1 < len(letters) and letters[place + 1] in digits)
    ]
    words = [NUMBERS.get(word, word) for word in "".join(kept).lower().split()]
    return " ".join(SHORT.get(word, word) for word in words if word not in ("a", "an", "the"))


def _leave_one_out(answers: list[str], said: str) -> float:
    """Mean over the annotators of min(1, how many of the others said it / 3)."""
    others = [answers[:place] + answers[place + 1 :] for place in range(len(answers))]
    return sum(min(1.0, rest.count(said) / 3) for rest in others) / len(answers)


_WORDS = [
    *NUMBERS,
    *SHORT,
    "a",
    "an",
    "the",
    "The",
    "dogs",
    "Red",
    "3",
    "1,000",
    "2.5",
    "u.s.",
    "mr.",
    "x-ray",
    "yes/no",
]
_PIECES = st.one_of(st.sampled_from(_WORDS), st.text(sorted(MARKS) + list("ab1. "), max_size=4))
_ANSWERS = st.lists(_PIECES, max_size=5).flatmap(
    lambda pieces: st.sampled_from([" ", "", ", "]).map(lambda between: between.join(pieces))
)


@settings(max_examples=400, deadline=None)
@given(_ANSWERS)
@example("The two dogs.")
@example("1,000 x-rays")
@example("yes , no")
@example("don't")
def test_normal_forms_follow_the_official_rules(text):
    assert normalize_answer(text) == _official(text)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from("yes no two cat".split()), min_size=10, max_size=10),
    st.sampled_from("yes no two dog".split()),
)
def test_scores_are_those_of_leaving_annotators_out(annotators, said):
    """What a table of answers stores, and what a model that says one of them gets for it."""
    vocabulary = ["yes", "no", "two", "cat", "dog"]
    votes = Counter(annotators)
    labels = torch.tensor([[vocabulary.index(answer) for answer in votes]])
    scores = torch.tensor([[SCORES.get(votes[answer], 1.0) for answer in votes]])
    logits = torch.nn.functional.one_hot(torch.tensor([vocabulary.index(said)]), len(vocabulary)).float()
    total, count = vqa_score(logits, soft_targets(labels, scores, len(vocabulary)))
    assert count == 1
    assert total.item() == pytest.approx(_leave_one_out(annotators, said), abs=1e-6)


def _official_accuracy(answers: list[str], said: str) -> float:
    """The official scorer's: texts are trimmed, and normalised if the annotators differ, the model's with them."""
    answers, said = (
        [" ".join(text.replace("\t", "\n").split("\n")).strip() for text in texts] for texts in (answers, [said])
    )
    if len(set(answers)) > 1:
        answers, said = [_official(answer) for answer in answers], [_official(said[0])]
    return _leave_one_out(answers, said[0])


@settings(max_examples=300, deadline=None)
@given(st.lists(_ANSWERS, min_size=1, max_size=3), st.lists(st.integers(0, 2), min_size=10, max_size=10))
@example(["one"], [0] * 10)
@example(["The dog."], [0] * 10)
@example(["one", "1"], [0] * 9 + [1])
@example(["yes\n", "yes"], [0] * 9 + [1])
@example([" -a-b", "x"], [0] * 9 + [1])
def test_votes_give_the_official_accuracy_of_every_answer_that_is_stored(texts, chosen):
    """Where all ten say "one", a model that says "1", which is what a vocabulary of normal forms holds, gets nothing."""
    answers = [texts[number % len(texts)] for number in chosen]
    votes = count_votes(answers)
    vocabulary = {normalize_answer(text) for text in answers}
    for said in vocabulary:
        if normalize_answer(said) == said:  # as for all but a few odd ones
            written = SCORES.get(votes[said], 1.0) if said in votes else 0.0
            assert written == pytest.approx(_official_accuracy(answers, said)), (answers, said)
