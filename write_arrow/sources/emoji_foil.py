"""Captions of scenes of embedded emoji, and the same with one thing exchanged, made from a seed, in the form of FOIL.

Two scenes go together: the second has another thing in place of one of the first. The captions of each are the foils of the
other, so that neither the caption alone nor the image alone says anything. Scenes are divided between the splits as in
`emoji_scenes`.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from write_arrow.machine.source import EmbeddedSource
from write_arrow.machine.writer import Table
from write_arrow.sources.emoji import png
from write_arrow.sources.emoji_scenes import (
    NOUNS,
    Scene,
    add_sizes,
    captions,
    draw,
    draw_scene,
    held_out_pairs,
    split_of,
    split_tables,
    sprites,
)

SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "captions": pa.list_(pa.string()),
        "labels": pa.list_(pa.int64()),  # 0 correct, 1 foil
        "caption_ids": pa.list_(pa.string()),
        "statement_types": pa.list_(pa.string()),
        "foil_words": pa.list_(pa.string()),
        "target_words": pa.list_(pa.string()),
        "objects": pa.list_(pa.string()),
        "cells": pa.list_(pa.int64()),
        "split": pa.string(),
    }
)
SIZES = {"train": 6_000, "val": 600, "test": 600, "held_out": 600}  # scenes, two of which are twins


def add_options(parser: ArgumentParser) -> None:
    add_sizes(parser, "scenes", SIZES)


def tables(arguments: Namespace) -> list[Table]:
    return split_tables("emoji_foil", SCHEMA, _rows, arguments, stream=300, together=2)


def _rows(rng: np.random.Generator, split: str, twins: int, seed: int) -> Iterator[dict[str, Any]]:
    held_out, pictures = held_out_pairs(seed), sprites()
    for number in range(twins):
        scenes, nouns = draw_twins(rng, split, held_out, seed)
        told = _differing(scenes, int(rng.integers(2**32)))
        for place, scene in enumerate(scenes):
            own, other = nouns[place], nouns[1 - place]
            yield {
                "image": png(draw(scene, pictures, rng)),
                "captions": [text for pair in told for text in pair],
                "labels": [int(place != side) for _ in told for side in (0, 1)],
                "caption_ids": [f"{split}-{number}-{place}-{caption}" for caption in range(2 * len(told))],
                "statement_types": [_kind(text) for pair in told for text in pair],
                "foil_words": ["ORIG" if place == side else other for _ in told for side in (0, 1)],
                "target_words": ["ORIG" if place == side else own for _ in told for side in (0, 1)],
                "objects": list(scene.cells.values()),
                "cells": list(scene.cells),
                "split": split,
            }


def draw_twins(
    rng: np.random.Generator, split: str, held_out: set[frozenset[str]], seed: int
) -> tuple[tuple[Scene, Scene], tuple[str, str]]:
    """Two scenes of a split that differ in one noun, and the noun of each."""
    while True:
        scene = draw_scene(rng, split, held_out, seed)
        present = list(scene.counts)
        own, other = present[rng.integers(len(present))], NOUNS[rng.integers(len(NOUNS))]
        twin = Scene({cell: other if noun == own else noun for cell, noun in scene.cells.items()})
        if other not in present and split_of(twin, held_out, seed) == split:
            return (scene, twin), (own, other)


def _differing(scenes: tuple[Scene, Scene], seed: int) -> list[tuple[str, str]]:
    """The captions of both scenes where they differ: the same draws give both scenes captions of the same form."""
    one, other = (captions(scene, np.random.default_rng(seed)) for scene in scenes)
    pairs = zip("; ".join(one).split("; "), "; ".join(other).split("; "), strict=True)
    return [pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1]]


def _kind(caption: str) -> str:
    if caption.startswith("there is"):
        return "place"
    return "relation" if " is " in caption else "list"


SOURCES = {
    "emoji_foil": EmbeddedSource(
        "captions of scenes of emoji, right and foiled (embedded, from a seed)", tables, add_options
    )
}
