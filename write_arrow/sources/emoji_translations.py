"""Scenes of embedded emoji with a description in four languages, made from a seed, in the form of Multi30k.

A scene has a background of one of six colours, and things in two sizes. A sentence of `emoji_grammar` describes it in
English, German, French and Czech (kind "translation"). The same sentence is also there in each language with one noun
hidden (kind "hidden"): it says "thing", and only the image tells which thing is meant. This is after Caglayan et al. 2019,
"Probing the Need for Visual Context in Multimodal Machine Translation", who mask words of the source.

Scenes are divided as in `emoji_scenes`.
"""

import itertools
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from write_arrow.machine.source import EmbeddedSource
from write_arrow.machine.writer import Table
from write_arrow.sources import multi30k
from write_arrow.sources.emoji import png
from write_arrow.sources.emoji_boxes import image_id, some
from write_arrow.sources.emoji_grammar import COLORS, HIDDEN, LANGUAGES, TEMPLATES, Description, Mention, sentence
from write_arrow.sources.emoji_scenes import (
    CELL,
    SIDES,
    SPLIT_SIZES,
    Scene,
    add_sizes,
    draw_scene,
    held_out_pairs,
    split_tables,
    sprites,
)

SCHEMA = pa.schema(
    [
        *(field for field in multi30k.SCHEMA if field.name not in ("image_id", "split")),
        pa.field("hidden_noun", pa.string()),
        pa.field("objects", pa.list_(pa.string())),
        pa.field("cells", pa.list_(pa.int64())),
        pa.field("image_id", pa.int64()),
        pa.field("split", pa.string()),
    ]
)
_RGB = ((200, 90, 90), (95, 165, 95), (95, 125, 205), (205, 190, 90), (150, 95, 175), (140, 140, 140))
BACKGROUNDS = dict(zip(COLORS, _RGB, strict=True))
SPRITES = {"small": 18, "large": 30}  # pixels
SAID, SEVERAL = 0.6, 0.5  # chances that a sentence tells a size, and that it says "several" for three or more things


Told = tuple[Description, list[int]]  # with the places of the mentions whose noun the image alone would tell


def add_options(parser: ArgumentParser) -> None:
    add_sizes(parser, "scenes", SPLIT_SIZES)


def tables(arguments: Namespace) -> list[Table]:
    return split_tables("emoji_translations", SCHEMA, _rows, arguments, stream=300)


def _rows(rng: np.random.Generator, split: str, size: int, seed: int) -> Iterator[dict[str, Any]]:
    held_out, pictures = held_out_pairs(seed), sized_sprites()
    for number in range(size):
        scene = _scene_of_several_nouns(rng, split, held_out, seed)
        sizes = {noun: some(list(SPRITES), 1, rng)[0] for noun in scene.counts}
        told, hideable = describe(scene, sizes, some(COLORS, 1, rng)[0], rng)
        place = some(hideable, 1, rng)[0]
        told_by_kind = {"translation": told, "hidden": hide(told, place)}
        texts = [
            (sentence(one, language), language, kind) for kind, one in told_by_kind.items() for language in LANGUAGES
        ]
        yield {
            "image": png(draw(scene, sizes, told.color, pictures, rng)),
            "caption": [text for text, _, _ in texts],
            "lang": [language for _, language, _ in texts],
            "kind": [kind for _, _, kind in texts],
            "sent_idx": [0 for _ in texts],
            "hidden_noun": told.mentions[place].noun,
            "objects": list(scene.cells.values()),
            "cells": list(scene.cells),
            "image_id": image_id(split, number),
            "split": split,
        }


def _scene_of_several_nouns(rng: np.random.Generator, split: str, held_out: set[frozenset[str]], seed: int) -> Scene:
    while True:
        scene = draw_scene(rng, split, held_out, seed)
        if len(scene.counts) > 1:
            return scene


def describe(scene: Scene, sizes: dict[str, str], color: str, rng: np.random.Generator) -> Told:
    """A description of a scene, and the places of the mentions in it whose noun the image alone would tell.

    sizes: the size of each noun's sprites.
    color: of the background.
    """
    while True:
        template = some(list(TEMPLATES), 1, rng)[0]
        tellable = [told for told in _TOLD[template](scene, template) if told[1]]
        if tellable:
            told, hideable = some(tellable, 1, rng)[0]
            mentions = tuple(_worded(mention, sizes, rng) for mention in told.mentions)
            return replace(told, mentions=mentions, color=color), hideable


def hide(told: Description, place: int) -> Description:
    """The same description with the noun of one mention hidden."""
    mentions = list(told.mentions)
    mentions[place] = replace(mentions[place], noun=HIDDEN)
    return replace(told, mentions=tuple(mentions))


def _worded(mention: Mention, sizes: dict[str, str], rng: np.random.Generator) -> Mention:
    size = sizes[mention.noun] if rng.random() < SAID else ""
    return replace(mention, size=size, several=mention.count > 2 and rng.random() < SEVERAL)


def _list(scene: Scene, template: str) -> list[Told]:
    """All things. The image tells any of them, because the others are named."""
    mentions = tuple(Mention(noun, count) for noun, count in scene.counts.items())
    return [(Description(template, mentions), list(range(len(mentions))))]


def _places(scene: Scene, template: str) -> list[Told]:
    """Two things of different nouns and their cells, which tell either of them."""
    return [
        (Description(template, (Mention(first), Mention(second)), places=(cell, other)), [0, 1])
        for (cell, first), (other, second) in itertools.permutations(scene.cells.items(), 2)
        if first != second
    ]


def _beside(scene: Scene, template: str) -> list[Told]:
    """A thing with its cell and its neighbour on a side, all of which is told by the cell."""
    return [
        (Description(template, (Mention(first), Mention(second)), places=(cell, cell), side=side), [0, 1])
        for cell, first in scene.cells.items()
        for side in SIDES
        if (second := scene.neighbour(cell, side)) and second != first
    ]


def _relation(scene: Scene, template: str) -> list[Told]:
    """A thing that has a neighbour on a side. The other one tells it where that is the side of no further noun."""
    counts, relations = scene.counts, set(scene.relations())
    found = []
    for second, side, first in sorted(relations):
        firsts = [noun for other, one, noun in relations if (other, one) == (second, side)]
        seconds = [noun for noun, one, other in relations if (one, other) == (side, first)]
        mentions = (Mention(first, counts[first]), Mention(second, counts[second] if template == "relation" else 1))
        hideable = [place for place, nouns in enumerate((firsts, seconds)) if len(nouns) == 1]
        found.append((Description(template, mentions, side=side), hideable))
    return found


def _more(scene: Scene, template: str) -> list[Told]:
    """Two nouns of which there are unequal numbers. The other one tells it where no third noun fits."""
    counts = scene.counts
    found = []
    for first, second in itertools.permutations(counts, 2):
        if counts[first] > counts[second]:
            firsts = [noun for noun in counts if counts[noun] > counts[second]]
            seconds = [noun for noun in counts if counts[noun] < counts[first]]
            mentions = (Mention(first, counts[first]), Mention(second, counts[second]))
            hideable = [place for place, nouns in enumerate((firsts, seconds)) if len(nouns) == 1]
            found.append((Description(template, mentions), hideable))
    return found


_TOLD: dict[str, Callable[[Scene, str], list[Told]]] = {  # all that a template can tell of a scene
    **dict.fromkeys(("see", "shown", "picture"), _list),
    "places": _places,
    "beside": _beside,
    **dict.fromkeys(("relation", "neighbour"), _relation),
    "more": _more,
}


def sized_sprites() -> dict[str, dict[str, Image.Image]]:
    """Pictures (RGBA) of all nouns in each of the sizes."""
    pictures = sprites()
    return {
        size: {noun: picture.resize((side, side), Image.Resampling.LANCZOS) for noun, picture in pictures.items()}
        for size, side in SPRITES.items()
    }


def draw(
    scene: Scene,
    sizes: dict[str, str],
    color: str,
    pictures: dict[str, dict[str, Image.Image]],
    rng: np.random.Generator,
) -> Image.Image:
    """A scene's image, 64x64 pixels, each sprite shifted in its cell; sizes and color as in `describe`."""
    background = np.array(BACKGROUNDS[color]) + rng.integers(-15, 16, 3)
    image = Image.new("RGB", (scene.side * CELL, scene.side * CELL), tuple(background.tolist()))
    for cell, noun in scene.cells.items():
        picture = pictures[sizes[noun]][noun]
        right, down = rng.integers(CELL - picture.width + 1, size=2).tolist()
        image.paste(picture, (cell % scene.side * CELL + right, cell // scene.side * CELL + down), picture)
    return image


SOURCES = {
    "emoji_translations": EmbeddedSource(
        "scenes of emoji with a description in four languages (embedded, from a seed)", tables, add_options
    )
}
