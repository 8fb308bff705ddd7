"""Sentences about covered scenes: deterministic, rightly labelled, and useless without both sentence and image."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.write_arrow.conftest import check_seed, write_embedded
from vlc.data.catalog import CATALOG
from write_arrow.sources import emoji_snli_ve
from write_arrow.sources.emoji_scenes import CELL, NOUNS, Scene, held_out_pairs, plural, split_of

SIZES = ["--num-train", "90", "--num-val", "21", "--num-test", "21", "--num-held-out", "21"]


def _write(folder: Path, *words: str) -> dict[str, list[dict]]:
    return write_embedded(emoji_snli_ve, folder, *SIZES, *words)


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> dict[str, list[dict]]:
    return _write(tmp_path_factory.mktemp("scenes"))


def _label(sentence: str, things: Counter) -> int:
    """The label of a sentence about what is seen, from its words."""
    if sentence.startswith("there are at least two "):
        num_seen = min(things[next(noun for noun in NOUNS if plural(noun) == sentence.split()[-1])], 2)
    else:
        num_seen = sum(things[noun] > 0 for noun in NOUNS if noun in sentence.split())
    return num_seen


def test_the_seed_fixes_every_byte(tmp_path):
    check_seed(_write, tmp_path)


def test_sizes(splits):
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 90, "val": 21, "test": 21, "held_out": 21}


def test_labels_are_those_of_the_words(splits):
    kinds = set()
    for rows in splits.values():
        for row in rows:
            assert {*row["cells"], row["covered"]} == set(range(4))
            assert row["labels"] == [_label(text, Counter(row["objects"])) for text in row["sentences"]]
            kinds |= set(row["statement_types"])
    assert kinds == {"both", "two"}


def test_a_sentence_alone_and_an_image_alone_say_nothing(splits):
    """Every sentence has each label once among the three scenes, and every scene has each label once."""
    rows = splits["train"]
    for start in range(0, len(rows), 3):
        trio = rows[start : start + 3]
        assert len({tuple(row["sentences"]) for row in trio}) == 1
        labels = np.array([row["labels"] for row in trio])
        assert (np.sort(labels, axis=0) == [[0], [1], [2]]).all()
        assert (np.sort(labels, axis=1) == [0, 1, 2]).all()


def test_the_covered_cell_is_dark_and_no_other(splits):
    for row in splits["val"]:
        pixels = np.array(Image.open(io.BytesIO(row["image"])))
        cells = [pixels[top : top + CELL, left : left + CELL] for top in (0, CELL) for left in (0, CELL)]
        assert [bool((cell == emoji_snli_ve.COVER).all()) for cell in cells] == [
            cell == row["covered"] for cell in range(4)
        ]


def test_scenes_are_divided_as_the_other_scenes(splits):
    held_out = held_out_pairs(0)
    for split, rows in splits.items():
        for row in rows:
            scene = Scene(dict(zip(row["cells"], row["objects"], strict=True)))
            assert split_of(scene, held_out, 0) == split


def test_identifiers_are_unique_and_columns_are_those_the_catalogue_reads(splits):
    counts = Counter(name for rows in splits.values() for row in rows for name in row["pair_id"])
    assert set(counts.values()) == {1}
    spec = CATALOG["emoji_snli_ve"]
    assert spec.columns(frozenset(spec.fields)) | {"statement_types"} <= set(splits["train"][0])
