"""Normalisation of VQA answers, after which answers are compared as texts.

The rules are those of the official VQA scorer as ViLT and VLC apply them to annotations, oddities included, because
answer vocabularies and published scores depend on them.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_MAX_PERIODS = 32  # the scorer passes a flag where the number of replacements stands
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS)} | {"none": "0"}

# Words that get their apostrophe back: full form, from the form without it (of two apostrophes, without either one).
_ONE_APOSTROPHE = """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't
    it'd it'll ma'am might've mightn't must've mustn't needn't not've o'clock oughtn't shan't should've
    shouldn't somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're
    there's they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd
    where's where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're
    you've
"""
_TWO_APOSTROPHES = """
    couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've
    something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've
"""
# Entries of the scorer's list that follow no rule; it restores neither "i'm", "i've" nor "let's".
_IRREGULAR = {
    "'ow'sat": "'ow's'at",
    "'ows'at": "'ow's'at",
    "ow's'at": "'ow's'at",
    "somebody'd": "somebodyd",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
}


def _without(text: str, position: int) -> str:
    return text[:position] + text[position + 1 :]


_CONTRACTIONS = (
    {form.replace("'", ""): form for form in _ONE_APOSTROPHE.split()}
    | {_without(form, form.index("'")): form for form in _TWO_APOSTROPHES.split()}
    | {_without(form, form.rindex("'")): form for form in _TWO_APOSTROPHES.split()}
    | _IRREGULAR
)


@lru_cache(maxsize=100_000)  # annotators repeat themselves
def normalize_answer(text: str) -> str:
    """An annotator's answer in its canonical form: "The two dogs." -> "2 dogs".

    Punctuation goes (or becomes a space, inside words), periods stay only before digits, letters become small, number
    words digits, articles are dropped, and contractions get their apostrophe.
    """
    anywhere = _COMMA_IN_NUMBER.search(text) is not None
    result = text
    for mark in _PUNCTUATION:
        at_edge = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if anywhere or at_edge else " ")
    result = _PERIOD.sub("", result, count=_MAX_PERIODS)
    words = (_DIGITS.get(word, word) for word in result.lower().split())
    words = (_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
    return " ".join(words).replace(",", "")


def as_compared(annotators: Sequence[str], *others: str) -> list[str]:
    """The annotators' answers to a question and then other ones, as the official VQA scorer compares them.

    It puts spaces for line breaks and tabs and trims, and normalises answers only where annotators differ: where all ten
    say "one.", a model that says "1" is wrong.
    """
    trimmed = [text.replace("\n", " ").replace("\t", " ").strip() for text in (*annotators, *others)]
    return trimmed if len(set(trimmed[: len(annotators)])) == 1 else [normalize_answer(text) for text in trimmed]
