"""Described scenes: deterministic, true, divided as promised, and with nouns that only the image tells."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.write_arrow.conftest import check_seed, write_embedded
from vlc.data.catalog import CATALOG
from write_arrow.sources import emoji_grammar, emoji_translations
from write_arrow.sources.emoji_scenes import NOUNS, PLACES, Scene, plural

SIZES = ["--num-train", "150", "--num-val", "15", "--num-test", "15", "--num-held-out", "15"]
NUMBERS = {"two": {2}, "three": {3}, "four": {4}, "several": {3, 4}, "a": {1}, "an": {1}}
SIDES = {"to the left of": "left of", "to the right of": "right of", "above": "above", "below": "below"}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def _write(folder: Path, *words: str) -> dict[str, list[dict]]:
    return write_embedded(emoji_translations, folder, *SIZES, *words)


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> dict[str, list[dict]]:
    return _write(tmp_path_factory.mktemp("translations"))


def _scene(row: dict) -> Scene:
    return Scene(dict(zip(row["cells"], row["objects"], strict=True)))


def _texts(row: dict, kind: str) -> dict[str, str]:
    texts = zip(row["caption"], row["lang"], row["kind"], strict=True)
    return {language: text for text, language, of in texts if of == kind}


def test_the_seed_fixes_every_byte(tmp_path):
    check_seed(lambda folder, *words: _write(folder, "--num-train", "20", *words), tmp_path)


def test_no_two_splits_share_an_arrangement(splits):
    arrangements = {name: {tuple(sorted(_scene(row).cells.items())) for row in rows} for name, rows in splits.items()}
    for name in ("val", "test", "held_out"):
        assert not arrangements["train"] & arrangements[name]
    assert not arrangements["val"] & arrangements["test"]


def test_every_held_out_scene_shows_a_pair_that_is_nowhere_else(splits):
    known = {pair for name in ("train", "val", "test") for row in splits[name] for pair in _scene(row).pairs}
    assert all(_scene(row).pairs - known for row in splits["held_out"])


def test_every_row_has_its_sentence_in_each_language_with_and_without_the_noun(splits):
    for row in splits["train"]:
        assert row["lang"] == [*emoji_grammar.LANGUAGES, *emoji_grammar.LANGUAGES]
        assert row["kind"] == ["translation"] * 4 + ["hidden"] * 4
        assert row["sent_idx"] == [0] * 8


def test_hidden_texts_lack_the_noun_in_every_language(splits):
    for rows in splits.values():
        for row in rows:
            forms = set(emoji_grammar.NOUNS[row["hidden_noun"]].values())
            for kind, lacking in (("translation", False), ("hidden", True)):
                for text in _texts(row, kind).values():
                    words = set(re.findall(r"\w+", text))
                    assert forms.isdisjoint(words) == lacking


def test_the_image_tells_the_hidden_noun(splits):
    """Of all nouns, only the hidden one makes the sentence true."""
    for row in splits["train"]:
        scene, hidden = _scene(row), _texts(row, "hidden")["en"]
        fitting = [
            noun for noun in NOUNS if _is_true(hidden.replace("things", plural(noun)).replace("thing", noun), scene)
        ]
        assert fitting == [row["hidden_noun"]]
        assert _is_true(_texts(row, "translation")["en"], scene)


def _is_true(text: str, scene: Scene) -> bool:
    """Whether an English sentence is true of a scene, worked out from its words. Sizes and colours are left out."""
    text = re.sub(r"\b(small|large) ", "", text[0].lower() + text[1:-1])
    side, place = "|".join(SIDES), "|".join(f"at the {place}" for place in PLACES)
    if found := re.fullmatch(
        r".*?(?:see|there is|there are|with) (.*) on a \w+ background|on a .* there \w+ (.*)", text
    ):
        return _lists(found[1] or found[2], scene)
    if found := re.fullmatch(r"in the picture there are more (\w+) than (\w+)", text):
        more, less = (scene.counts[_noun(words)] for words in found.groups())
        return more > less > 0
    if found := re.fullmatch(f"in the picture, (.*) is ({place}) and (.*) is ({place})", text):
        return all(scene.cells.get(_cell(found[n + 1])) == _noun(found[n]) for n in (1, 3))
    if found := re.fullmatch(f"({place}) there is (.*), and ({side}) it we see (.*)", text):
        cell = _cell(found[1])
        beside = scene.neighbour(cell, SIDES[found[3]])
        return scene.cells.get(cell) == _noun(found[2]) and beside == _noun(found[4])
    if found := re.fullmatch(f"in the picture, (.*) is ({side}) (.*)", text):
        first, second = found[3], found[1]
    else:
        found = re.fullmatch(f"({side}) (.*) we see (.*)", text)
        first, second = found[2], found[3]
    sides = [SIDES[one] for one in found.groups() if one in SIDES]
    counted = all(
        scene.counts[_noun(words)] in NUMBERS[words.split()[-2]] if words.startswith("one of") else True
        for words in (first, second)
    )
    return counted and (_noun(second), *sides, _noun(first)) in scene.relations()


def _lists(things: str, scene: Scene) -> bool:
    named = [one.split() for one in re.split(", | and ", things)]
    nouns = [_noun(noun) for _, noun in named]
    return set(nouns) == set(scene.counts) and all(
        scene.counts[noun] in NUMBERS[number] for noun, (number, _) in zip(nouns, named, strict=True)
    )


def _cell(place: str) -> int:
    return PLACES.index(place.removeprefix("at the "))


def _noun(words: str) -> str:
    last = words.split()[-1]
    return next(noun for noun in NOUNS if last in (noun, plural(noun)))


def test_pictures_show_things_in_their_cells(splits):
    for row in splits["test"]:
        pixels = np.asarray(Image.open(io.BytesIO(row["image"]))).astype(int)
        assert pixels.shape == (64, 64, 3)
        background = np.median([pixels[0, 0], pixels[0, -1], pixels[-1, 0], pixels[-1, -1]], axis=0)
        changed = (abs(pixels - background).sum(-1) > 30).reshape(2, 32, 2, 32).sum((1, 3)).flatten()
        assert {cell for cell in range(4) if changed[cell] > 20} == set(row["cells"])


def test_columns_are_those_the_catalogue_reads(splits):
    spec = CATALOG["emoji_translations"]
    assert spec.columns(frozenset(spec.fields)) <= set(splits["train"][0])
