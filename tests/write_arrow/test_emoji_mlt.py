"""Ambiguous words: deterministic, divided as promised, and translated by what the image shows."""

from pathlib import Path

import pytest

from tests.write_arrow.conftest import check_seed, write_embedded
from vlc.data.catalog import CATALOG
from write_arrow.sources import emoji_mlt
from write_arrow.sources.emoji import packaged
from write_arrow.sources.emoji_mlt import OTHERS, senses
from write_arrow.sources.emoji_scenes import PLACES, Scene

SIZES = ["--num-train", "300", "--num-val", "20", "--num-test", "20", "--num-held-out", "20"]
OF_TEXTS = (
    "caption",
    "words",
    "word_places",
    "target_lang",
    "translation",
    "acceptable",
    "candidates",
    "most_frequent",
)


def _write(folder: Path, *words: str) -> dict[str, list[dict]]:
    return write_embedded(emoji_mlt, folder, *SIZES, *words)


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> dict[str, list[dict]]:
    return _write(tmp_path_factory.mktemp("words"))


def _texts(row: dict) -> list[dict]:
    return [dict(zip(OF_TEXTS, values, strict=True)) for values in zip(*(row[name] for name in OF_TEXTS), strict=True)]


def test_the_seed_fixes_every_byte(tmp_path):
    check_seed(lambda folder, *words: _write(folder, "--num-train", "20", *words), tmp_path)


def test_no_two_splits_share_an_arrangement(splits):
    arrangements = {
        name: {tuple(zip(row["cells"], row["objects"], strict=True)) for row in rows} for name, rows in splits.items()
    }
    for name in ("val", "test", "held_out"):
        assert not arrangements["train"] & arrangements[name]
    assert not arrangements["val"] & arrangements["test"]


def test_senses_have_pictures_and_are_told_apart_by_their_translations():
    names = {caption[0] for caption in packaged()["caption_en"].to_pylist()}
    assert len(senses()) >= 12
    for word, known in senses().items():
        assert len(known) in emoji_mlt.SHARES, word
        assert names.issuperset(picture for sense in known for picture in sense.pictures), word
        assert len({tuple(sense.translations.values()) for sense in known}) == len(known), word
        assert len({sense.translations["de"] for sense in known}) == len(known), word


@pytest.mark.parametrize(
    ("word", "picture", "translations"),
    [
        ("bat", "bat", {"de": "fledermaus", "fr": "chauve-souris", "cs": "netopýr"}),
        ("bat", "cricket game", {"de": "schläger", "fr": "batte", "cs": "pálka"}),
        ("umbrella", "umbrella on ground", {"de": "sonnenschirm", "fr": "parasol", "cs": "slunečník"}),
    ],
)
def test_translations_are_those_of_what_is_shown(word, picture, translations):
    assert [sense.translations for sense in senses()[word] if picture in sense.pictures] == [translations]


def test_images_tell_the_translations(splits):
    ambiguous = 0
    for row in (row for rows in splits.values() for row in rows):
        for text in _texts(row):
            assert text["acceptable"] == [text["translation"]]
            assert text["translation"] in text["candidates"]
            assert text["most_frequent"] == text["candidates"][0]
            assert text["caption"].split()[text["word_places"]] == text["words"]
            shown = [
                sense.translations[text["target_lang"]]
                for sense in senses().get(text["words"], [])
                if set(sense.pictures) & set(row["objects"])
            ]
            if text["words"] in OTHERS:
                assert len(text["candidates"]) == 1
                assert text["words"] in row["objects"]
            else:
                ambiguous += 1
                assert shown == [text["translation"]]
        assert row["lang"] == ["en"] * len(row["caption"])
    assert ambiguous == 3 * sum(map(len, splits.values()))


def test_sentences_do_not_depend_on_the_sense(splits):
    """Around the word stand only places, and names that every scene may have."""
    plain = {word for text in (*OTHERS, *PLACES) for word in text.split()}
    plain |= set("look at we see the picture shows and with on above below .".split())
    for row in splits["train"]:
        for text in _texts(row):
            assert {word for word in text["caption"].split() if word not in senses()} <= plain


def test_sentences_are_true(splits):
    for row in splits["train"]:
        scene = Scene(dict(zip(row["cells"], row["objects"], strict=True)))
        for text in _texts(row):
            words = text["caption"].removesuffix(" .").split(f"the {text['words']} ")[1]
            cell = next(cell for cell, name in scene.cells.items() if _is_called(name, text["words"]))
            if words.startswith("at the "):
                assert PLACES[cell] == words.removeprefix("at the ")
            else:
                _, _, other, *side = words.split()
                sides = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
                there = [scene.neighbour(cell, sides[side[-1]])] if side else list(scene.cells.values())
                assert any(_is_called(name, other) for name in there)


def _is_called(picture: str, word: str) -> bool:
    return picture == word if word in OTHERS else any(picture in sense.pictures for sense in senses()[word])


def test_the_most_frequent_sense_is_right_in_about_six_of_ten(splits):
    texts = [text for row in splits["train"] for text in _texts(row) if len(text["candidates"]) > 1]
    right = sum(text["translation"] == text["most_frequent"] for text in texts) / len(texts)
    assert 0.53 < right < 0.67


def test_columns_are_those_the_catalogue_reads(splits):
    spec = CATALOG["emoji_mlt"]
    assert spec.columns(frozenset(spec.fields)) <= set(splits["train"][0])
