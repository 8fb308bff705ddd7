"""Left and right change places in the texts of mirrored images."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.data.made import captions, keys, preparation
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.composers import COMPOSERS
from vlc.data.kinds import NUMBERS, TEXTS
from vlc.data.parts import Candidates, WrongTexts
from vlc.data.samples import Samples
from vlc.data.sides import exchange_sides
from vlc.data.spec import Column
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


FIELDS = {
    "history": Column("history", replace(TEXTS, several=True)),
    "caption": Column("title", TEXTS),
    "options": Column("options", replace(TEXTS, several=True)),
    "place": Column("place", NUMBERS),
}
TEXT, OTHER, HISTORY, TITLE, OPTIONS = (
    "left cup",
    "a right bus",
    ["left ?", "no"],
    "right room",
    ["left", "right", "two"],
)


def _samples(folder: Path, pipeline: str, follows_mirror: bool = True) -> Samples:
    columns = captions([TEXT], [OTHER])
    columns |= {"history": [[HISTORY], [[]]], "title": [[TITLE], [""]], "options": [[OPTIONS]] * 2, "place": [[0], [0]]}
    spec = replace(CATALOG["coco"], fields=FIELDS)
    table = tiny.write_table(folder / "t.arrow", columns)
    source = ArrowSplit([table], spec, "coco", {"image", "caption", "history", "title", "options", "place"})
    encoder = TextEncoder(load_tokenizer(str(GOLDEN / "statements")), max_text_len=40)
    prepared = replace(preparation(pipeline), text_encoder=encoder, composer=COMPOSERS["dialogue"])
    prepared = replace(prepared, follows_mirror=follows_mirror)
    parts = {Candidates("options", "place"), WrongTexts(1)}
    return Samples("train", [source], parts, prepared, training=True, seed=5)


def _tokens(encoder: TextEncoder, exchange, *more: tuple[str, int]) -> list[int]:
    sequences = [(TEXT, 0), *more]
    sequences = [(exchange(words), segment) for words, segment in sequences]
    return encoder.composed(sequences, [exchange(words) for words in (*HISTORY, TITLE)]).ids


@pytest.mark.parametrize(
    ("pipeline", "follows_mirror"), [("keep_shape_flip", True), ("mae", True), ("mae", False), ("keep_shape", True)]
)
def test_all_texts_of_a_mirrored_image_are_exchanged(tmp_path, pipeline, follows_mirror):
    samples = _samples(tmp_path, pipeline, follows_mirror)
    encoder, seen = samples.preparation.encoder, set()
    for epoch in range(12):
        (key,) = keys(0, epoch=epoch)
        rng = np.random.default_rng((samples.seed, epoch, 0))
        mirrored = samples.image(*samples.locate(0), "image", rng).mirrored
        exchange = exchange_sides if mirrored and follows_mirror else str
        batch = samples[[key]]
        text, candidates, wrong = batch.text, batch.parts["candidates"].text, batch.parts["wrong_texts"]
        assert text.ids[text.mask.bool()].tolist() == _tokens(encoder, exchange)
        for row, option in enumerate(OPTIONS):
            found = candidates.ids[row][candidates.mask[row].bool()].tolist()
            assert found == _tokens(encoder, exchange, (option, 1))
        assert wrong.ids[wrong.mask.bool()].tolist() == encoder(exchange(OTHER)).ids
        seen.add(mirrored)
    assert seen == ({False} if pipeline == "keep_shape" else {False, True})


def test_texts_about_two_images_stay(tmp_path):
    """Each of the images is mirrored or not, and a text may name them the left and the right one."""
    prepared = replace(preparation("keep_shape_flip"), follows_mirror=True)
    shown = [prepared.transform(Image.new("RGB", (8, 6)), np.random.default_rng(seed)) for seed in range(8)]
    mirrored = next(image for image in shown if image.mirrored)
    assert prepared.of([mirrored]).exchanges_sides
    assert not prepared.of([mirrored, mirrored]).exchanges_sides
