"""English words whose translation only the image tells, with scenes of embedded emoji from a seed, in the form of MLT.

A scene shows a thing with an ambiguous name, such as a bat, beside other things. Sentences name it ("look at the bat at
the top left ."), and it is to be translated into German, French and Czech: Fledermaus or Schläger, netopýr or pálka. The
words and their senses are in `vlc/data/assets/emoji/senses.csv`, the most frequent sense of a word first. Other sentences
name one of the other things, which has only one translation. Texts are tokenised and in small letters, as in MLT.

Scenes are divided as in `emoji_scenes`, and the pairs of nouns that only `held_out` shows are pairs of the other things.
"""

import csv
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from write_arrow.machine.source import EmbeddedSource
from write_arrow.machine.writer import Table
from write_arrow.sources import mlt
from write_arrow.sources.emoji import png
from write_arrow.sources.emoji_boxes import image_id, some
from write_arrow.sources.emoji_grammar import NOUNS as FORMS
from write_arrow.sources.emoji_scenes import (
    PLACES,
    SIDES,
    Scene,
    add_sizes,
    draw,
    held_out_pairs,
    split_of,
    split_tables,
    sprites,
)

SCHEMA = pa.schema(
    [
        *(field for field in mlt.SCHEMA if field.name not in ("image_id", "split")),
        pa.field("objects", pa.list_(pa.string())),
        pa.field("cells", pa.list_(pa.int64())),
        pa.field("image_id", pa.int64()),
        pa.field("split", pa.string()),
    ]
)
SIZES = {"train": 8_000, "val": 500, "test": 1_000, "held_out": 500}  # scenes
LANGUAGES = {"de": "de", "fr": "fr", "cs": "cs_nom"}  # with their columns in the table of nouns
SHARES = {2: (0.6, 0.4), 3: (0.6, 0.25, 0.15)}  # of the senses of a word
OTHERS = (  # none of them could pass for an ambiguous word
    "airplane banana bear cat cow dog guitar horse house lemon monkey octopus owl panda penguin pig rocket sailboat tomato "
    "turtle watermelon whale"
).split()


@dataclass(frozen=True)
class Sense:
    """What a word may mean: names of pictures that show it, and its translations by language."""

    pictures: tuple[str, ...]
    translations: dict[str, str]


@cache
def senses() -> dict[str, list[Sense]]:
    """The senses of every ambiguous word, the most frequent one first."""
    table = (files("vlc") / "data/assets/emoji/senses.csv").read_text(encoding="utf-8")
    found: dict[str, list[Sense]] = {}
    for row in csv.DictReader(table.splitlines()):
        translations = {language: row[language].lower() for language in LANGUAGES}
        found.setdefault(row["word"], []).append(Sense(tuple(row["pictures"].split("|")), translations))
    return found


@cache
def _pictures() -> dict[str, Image.Image]:
    return sprites([*OTHERS, *(name for known in senses().values() for sense in known for name in sense.pictures)])


def add_options(parser: ArgumentParser) -> None:
    add_sizes(parser, "scenes", SIZES)


def tables(arguments: Namespace) -> list[Table]:
    return split_tables("emoji_mlt", SCHEMA, _rows, arguments, stream=400)


def _rows(rng: np.random.Generator, split: str, size: int, seed: int) -> Iterator[dict[str, Any]]:
    held_out, pictures = held_out_pairs(seed), _pictures()
    for number in range(size):
        word = some(list(senses()), 1, rng)[0]
        known = senses()[word]
        sense = known[rng.choice(len(known), p=SHARES[len(known)])]
        scene, cell = _draw_scene(some(sense.pictures, 1, rng)[0], rng, split, held_out, seed)
        said = {**scene.cells, cell: word}
        other = some([one for one in said if one != cell], 1, rng)[0]
        plain = _of_noun(said[other])
        texts = [
            *_texts(_sentence(scene, said, cell, rng), word, sense.translations, [one.translations for one in known]),
            *_texts(_sentence(scene, said, other, rng), said[other], plain, [plain]),
        ]
        yield {
            "image": png(draw(scene, pictures, rng)),
            **{name: [text[name] for text in texts] for name in texts[0]},
            "objects": list(scene.cells.values()),
            "cells": list(scene.cells),
            "image_id": image_id(split, number),
            "split": split,
        }


def _draw_scene(
    picture: str, rng: np.random.Generator, split: str, held_out: set[frozenset[str]], seed: int
) -> tuple[Scene, int]:
    """A scene of a split that shows a picture beside one to three of OTHERS, and the cell of the picture."""
    while True:
        cells = rng.permutation(4)[: rng.integers(2, 5)].tolist()
        shown = dict(zip(cells, [picture, *some(OTHERS, len(cells) - 1, rng)], strict=True))
        scene = Scene(dict(sorted(shown.items())))
        if split_of(scene, held_out, seed) == split:
            return scene, cells[0]


def _sentence(scene: Scene, said: dict[int, str], cell: int, rng: np.random.Generator) -> str:
    """A sentence that names the thing in a cell; said: what the thing in each cell is called."""
    beginnings = ("look at", "we see", "the picture shows")
    endings = [f"at the {PLACES[cell]}"]
    endings += [f"and the {other}" for place, other in said.items() if place != cell]
    endings += [
        f"with the {said[other]} {_SIDES[side]}" for side in SIDES if (other := scene.beside(cell, side)) in said
    ]
    return f"{some(beginnings, 1, rng)[0]} the {said[cell]} {some(endings, 1, rng)[0]} ."


_SIDES = {"left of": "on the left", "right of": "on the right", "above": "above", "below": "below"}


def _texts(sentence: str, word: str, translations: dict[str, str], known: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The values of a text for each language into which its word is to be translated.

    translations: of the word, by language.
    known: the translations of all senses of the word, the most frequent one first.
    """
    texts = []
    for language, translation in translations.items():
        candidates = list(dict.fromkeys(one[language] for one in known))  # two senses may share a translation
        texts.append(
            {
                "caption": sentence,
                "lang": "en",
                "words": word,
                "word_places": sentence.split().index(word),
                "target_lang": language,
                "translation": translation,
                "acceptable": [translation],
                "candidates": candidates,
                "most_frequent": candidates[0],
            }
        )
    return texts


def _of_noun(noun: str) -> dict[str, str]:
    """The translations of one of OTHERS."""
    return {language: FORMS[noun][column].lower() for language, column in LANGUAGES.items()}


SOURCES = {
    "emoji_mlt": EmbeddedSource(
        "ambiguous words about scenes of emoji in the form of MLT (embedded, from a seed)", tables, add_options
    )
}
