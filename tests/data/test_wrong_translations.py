"""Wrong texts in the language of the right one, and wrong translations behind the sentence."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests import tiny
from tests.data.made import keys, preparation
from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.composers import COMPOSERS
from vlc.data.parts import Part, WrongTexts, WrongTranslations
from vlc.data.samples import Samples
from vlc.data.selection import Selection, select

TEXTS = {
    "en": ["the dog", "the red cat", "the dog", "two houses", "a bus"],
    "de": ["hund", "rote katze", "welpe", "rote katze", "zwei busse"],
    "fr": ["le chien", "", "", "", "un bus"],
}


def _samples(folder: Path, part: Part, pairs: tuple[str, ...] = (), *, reads_images: bool = True) -> Samples:
    there = [[language for language in TEXTS if TEXTS[language][row]] for row in range(5)]
    columns = {
        "caption": [[TEXTS[language][row] for language in own] for row, own in enumerate(there)],
        "lang": there,
        "kind": [["translation"] * len(own) for own in there],
        "sent_idx": [[0] * len(own) for own in there],
        "image": [tiny.image_bytes(row) for row in range(5)],
    }
    path = tiny.write_table(folder / "t.arrow", columns)
    source = ArrowSplit([path], CATALOG["multi30k"], "multi30k", {"image", "caption", "lang"})
    select(source, Selection({"kind": ("translation",)}, pairs), "train", "", training=True)
    prepared = replace(preparation("mae_test"), composer=COMPOSERS["pair" if pairs else "plain"])
    return Samples("train", [source], [part], prepared, training=True, seed=3, reads_images=reads_images)


def _words(samples: Samples, ids: list[int]) -> list[str]:
    """What stands between [CLS] and the [SEP]s."""
    encoder = samples.preparation.encoder
    text = " ".join(encoder.token_name(number) for number in ids if number != encoder.pad_id).replace(" ##", "")
    return [part.strip() for part in text.removeprefix("[CLS]").split("[SEP]")[:-1]]


def test_wrong_texts_are_of_the_language_of_the_right_one(tmp_path):
    samples = _samples(tmp_path, WrongTexts(3, within="lang"))
    for epoch in range(3):
        for sample in range(len(samples)):
            source, where = samples.locate(sample)
            language = source.field(where, "lang")
            wrong = samples[keys(sample, epoch=epoch)].parts["wrong_texts"].ids.tolist()
            found = {text for row in wrong for text in _words(samples, row)}
            assert found <= set(TEXTS[language]) - {source.text(where)}


def test_a_wrong_translation_stands_behind_the_sentence_in_the_language_of_the_right_one(tmp_path):
    samples = _samples(tmp_path, WrongTranslations(3), ("en-de", "de-en", "en-fr"))
    seen = set()
    for epoch in range(4):
        for sample in range(len(samples)):
            source, where = samples.locate(sample)
            own, right = source.text(where), source.field(where, "second_text")
            texts = samples[keys(sample, epoch=epoch)].parts["wrong_translations"]
            assert len(texts) == 3
            for ids, segments, mask in zip(texts.ids, texts.segments, texts.mask, strict=True):
                first, second = _words(samples, ids.tolist())
                assert first == own
                assert second in set(TEXTS[source.field(where, "second_lang")]) - {right, ""}
                behind = 2 + len(samples.preparation.encoder(own).ids) - 2
                assert segments[mask.bool()].tolist() == [0] * behind + [1] * (int(mask.sum()) - behind)
                seen.add((own, second))
    assert ("the dog", "welpe") not in seen, "another right translation of an equal sentence"
    assert ("two houses", "hund") in seen


def test_images_that_nobody_reads_are_not_decoded(tmp_path, monkeypatch):
    samples = _samples(tmp_path, WrongTranslations(1), ("en-de",), reads_images=False)
    monkeypatch.setattr("vlc.data.samples.open_image", None)
    batch = samples[keys(0, 1)]
    assert batch.images is None
    assert len(batch.text) == 2


def test_a_language_of_one_text_has_no_wrong_ones(tmp_path):
    samples = _samples(tmp_path, WrongTexts(1, within="lang"))
    sample = next(n for n in range(len(samples)) if samples.sources[0].text(samples.locate(n)[1]) == "le chien")
    assert _words(samples, samples[keys(sample)].parts["wrong_texts"].ids[0].tolist()) == ["un bus"]
    samples = _samples(tmp_path, WrongTranslations(1), ("de-fr",))
    samples.sources[0].chosen = samples.sources[0].chosen[:1]
    few = Samples("train", samples.sources, [WrongTranslations(1)], samples.preparation, training=True, seed=3)
    with pytest.raises(UserError, match="No wrong translations found for 'hund': split 'train' has too few texts"):
        few[keys(0)]
