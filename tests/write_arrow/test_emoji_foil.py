"""Captions and foils of scenes: deterministic, labelled as they should be, and useless without both caption and image."""

from collections import Counter
from pathlib import Path

import pytest

from tests.write_arrow.conftest import check_seed, write_embedded
from vlc.data.catalog import CATALOG
from write_arrow.sources import emoji_foil
from write_arrow.sources.emoji_scenes import NOUNS, Scene, held_out_pairs, plural, split_of

SIZES = ["--num-train", "80", "--num-val", "20", "--num-test", "20", "--num-held-out", "20"]
LISTS = ("captions", "labels", "caption_ids", "statement_types", "foil_words", "target_words")


def _write(folder: Path, *words: str) -> dict[str, list[dict]]:
    return write_embedded(emoji_foil, folder, *SIZES, *words)


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> dict[str, list[dict]]:
    return _write(tmp_path_factory.mktemp("scenes"))


def _named(caption: str) -> set[str]:
    words = caption.replace(",", "").split()
    return {noun for noun in NOUNS if noun in words or plural(noun) in words}


def test_the_seed_fixes_every_byte(tmp_path):
    check_seed(_write, tmp_path)


def test_sizes(splits):
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 80, "val": 20, "test": 20, "held_out": 20}


def test_correct_captions_name_what_is_there_and_foils_one_thing_that_is_not(splits):
    kinds = set()
    for rows in splits.values():
        for row in rows:
            for caption, label, _, kind, foil, target in zip(*(row[name] for name in LISTS), strict=True):
                absent = _named(caption) - set(row["objects"])
                assert absent == ({foil} if label else set())
                assert (foil, target) == ("ORIG", "ORIG") if not label else target in row["objects"]
                assert label == 0 or target not in _named(caption)
                kinds.add(kind)
    assert kinds == {"list", "place", "relation"}


def test_a_caption_alone_and_an_image_alone_say_nothing(splits):
    """Twins have the same captions, each with the other label in the other's image."""
    rows = splits["train"]
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        assert one["captions"] == other["captions"]
        assert one["labels"] == [1 - label for label in other["labels"]]
        assert 2 * sum(one["labels"]) == len(one["labels"])


def test_scenes_are_divided_as_the_other_scenes(splits):
    held_out = held_out_pairs(0)
    for split, rows in splits.items():
        for row in rows:
            scene = Scene(dict(zip(row["cells"], row["objects"], strict=True)))
            assert split_of(scene, held_out, 0) == split


def test_identifiers_are_unique_and_columns_are_those_the_catalogue_reads(splits):
    counts = Counter(name for rows in splits.values() for row in rows for name in row["caption_ids"])
    assert set(counts.values()) == {1}
    spec = CATALOG["emoji_foil"]
    assert spec.columns(frozenset(spec.fields)) | {"statement_types"} <= set(splits["train"][0])
