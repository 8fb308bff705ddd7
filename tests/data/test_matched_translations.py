"""Pairs of texts for text-text matching: half of them are translations, and the others are of the same language."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests import tiny
from tests.data.made import ENCODER, keys, preparation
from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.composers import COMPOSERS
from vlc.data.parts import MatchedTranslations
from vlc.data.samples import Samples
from vlc.data.selection import Selection, select

TEXTS = {
    "en": ["a dog", "two cats", "the house", "the red bus"],
    "de": ["ein Hund", "zwei Katzen", "ein Hund", "der Bus"],  # one translation stands in two rows
    "cs": ["pes", "", "", "autobus"],
}


def _samples(folder: Path, pairs=("*-*",), rows: int = 4) -> Samples:
    there = [[language for language in TEXTS if TEXTS[language][row]] for row in range(rows)]
    columns = {
        "image": [tiny.image_bytes(row) for row in range(rows)],
        "caption": [[TEXTS[language][row] for language in there[row]] for row in range(rows)],
        "lang": there,
        "kind": [["translation"] * len(row) for row in there],
        "sent_idx": [[0] * len(row) for row in there],
    }
    path = tiny.write_table(folder / "t.arrow", columns)
    source = ArrowSplit([path], CATALOG["multi30k"], "multi30k", {"image", "caption"})
    select(source, Selection({}, pairs), "train", "", training=True)
    prepared = replace(preparation(), composer=COMPOSERS["pair"])
    return Samples("train", [source], [MatchedTranslations()], prepared, training=True, seed=1)


def test_a_wrong_translation_is_of_the_same_language_and_no_text_of_the_row(tmp_path):
    samples, labels = _samples(tmp_path), []
    pieces = {tuple(ENCODER(text).ids[1:]): (text, language) for language, texts in TEXTS.items() for text in texts}
    for epoch in range(12):
        batch = samples[keys(*range(len(samples)), epoch=epoch)]
        found = batch.parts["matched_texts"]
        labels += found.labels.tolist()
        for number, (ids, mask, segments, label) in enumerate(
            zip(found.text.ids, found.text.mask, found.text.segments, found.labels.tolist(), strict=True)
        ):
            source, where = samples.locate(number)
            text, language = pieces[tuple(ids[(segments == 1) & (mask == 1)].tolist())]
            assert language == source.field(where, "second_lang") or text == "ein Hund"
            assert (text == source.field(where, "second_text")) == bool(label)
            assert label or text not in source.texts(where)
            first = ids[(segments == 0) & (mask == 1)].tolist()
            assert first == ENCODER(source.text(where)).ids
    assert sum(labels) / len(labels) == pytest.approx(0.5, abs=0.1)


def test_blank_texts_stay_blank(tmp_path):
    batch = _samples(tmp_path).without_texts()[keys(0, 1, 2, 3)]
    assert (batch.parts["matched_texts"].text.mask.sum(1) == 3).all()


def test_a_language_without_another_text_is_told(tmp_path):
    samples = _samples(tmp_path, ("en-cs",), rows=1)
    with pytest.raises(UserError, match="No wrong translation found for 'a dog'.*have texts in 'cs'"):
        [samples[keys(0, epoch=epoch)] for epoch in range(20)]
