"""Left and right change places in the texts of mirrored images."""

import json
from pathlib import Path

import pytest

from vlc.data.sides import exchange_sides
from vlc.data.tokens import TextEncoder, load_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden/tasks"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the man on the left of two", "the man on the right of two"),
        ("Left hand, RIGHT foot; right-hand side", "Right hand, LEFT foot; left-hand side"),
        ("leftmost cup in bright light, upright", "rightmost cup in bright light, upright"),
        ("Links sitzt der rechte Mann mit linkem Arm", "Rechts sitzt der linke Mann mit rechtem Arm"),
        ("à gauche de la porte, côté droit", "à droite de la porte, côté droit"),
        ("Vlevo stojí pravý muž s levou rukou, napravo žena", "Vpravo stojí levý muž s pravou rukou, nalevo žena"),
        ("", ""),
    ],
)
def test_whole_words_change_places_and_keep_their_letters(text, expected):
    assert exchange_sides(text) == expected
    assert exchange_sides(expected) == text


def test_expressions_are_exchanged_as_vl_bert_does():
    encoder = TextEncoder(load_tokenizer(str(GOLDEN / "statements")), max_text_len=40)
    for row in json.loads((GOLDEN / "regions/mirrored_expressions.json").read_text(encoding="utf-8")):
        text = " ".join(row["tokens"])
        assert encoder(text).ids[1:-1] == row["plain"]
        assert encoder(exchange_sides(text)).ids[1:-1] == row["flipped"]
