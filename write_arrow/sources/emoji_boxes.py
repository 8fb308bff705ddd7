"""Scenes of embedded emoji in which every thing has a box: what the data sets of referring and pointing share.

A scene is 96x96 pixels: sprites on a 3x3 grid, of few nouns, so that most things are there more than once. All boxes have
the size of a sprite's square, because tight boxes would tell the nouns without the picture.
"""

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from write_arrow.sources.emoji import png
from write_arrow.sources.emoji_scenes import (
    CELL,
    NOUNS,
    OPPOSITE,
    SIDES,
    SPLIT_SIZES,
    Scene,
    add_sizes,
    split_of,
    with_article,
)

T = TypeVar("T")
SIDE = 3  # of the grid

BOXES = pa.list_(pa.list_(pa.float64()))
SCENE_SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "width": pa.int64(),
        "height": pa.int64(),
        "objects": pa.list_(pa.string()),
        "cells": pa.list_(pa.int64()),
        "image_id": pa.int64(),
        "split": pa.string(),
    }
)


SIZES = {"train": 6_000, "val": 400, "test": 400, "held_out": 400}  # scenes


def add_options(parser: ArgumentParser) -> None:
    """The options of each of these data sets."""
    add_sizes(parser, "scenes", SIZES)


class Reference(NamedTuple):
    """What tells a thing of a scene from others of its noun: the side on which it has a neighbour.

    cell: of the thing.
    place: the side with the neighbour, as in "left of an apple".
    """

    cell: int
    noun: str
    side: str
    place: str


def draw_large_scene(
    rng: np.random.Generator,
    split: str,
    held_out: set[frozenset[str]],
    seed: int,
    num_things: Sequence[int],
    num_nouns: int = 5,
) -> Scene:
    """A random scene of a split on the large grid, with one of these numbers of things, of so many nouns at the most."""
    while True:
        nouns = rng.permutation(NOUNS)[:num_nouns].tolist()
        filled = sorted(rng.permutation(SIDE**2)[: rng.choice(num_things)].tolist())
        scene = Scene({cell: nouns[rng.integers(num_nouns)] for cell in filled}, SIDE)
        if split_of(scene, held_out, seed) == split:
            return scene


def scene_columns(scene: Scene, image: Image.Image, split: str, number: int) -> dict[str, Any]:
    """The values of SCENE_SCHEMA of a scene that has this number in its split."""
    return {
        "image": png(image),
        "width": SIDE * CELL,
        "height": SIDE * CELL,
        "objects": list(scene.cells.values()),
        "cells": list(scene.cells),
        "image_id": image_id(split, number),
        "split": split,
    }


def image_id(split: str, number: int) -> int:
    """The id of a scene; ids of the splits never meet."""
    return list(SPLIT_SIZES).index(split) * 10_000_000 + number


def box_id(image: int, cell: int) -> int:
    """The id of a box in a cell of an image."""
    return image * SIDE**2 + cell


def some(values: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    """Some of the values, or all if there are fewer, in random order."""
    return [values[number] for number in rng.permutation(len(values))[:count]]


def references(scene: Scene) -> list[Reference]:
    """All references that are true of one thing of a scene, and name a noun that is there more than once."""
    counts, cells = scene.counts, dict[tuple[str, str, str], list[int]]()
    for cell, noun in scene.cells.items():
        for side in SIDES:
            other = scene.neighbour(cell, OPPOSITE[side])
            if other is not None and other != noun and counts[noun] > 1:
                cells.setdefault((noun, side, other), []).append(cell)
    return [
        Reference(found[0], noun, side, f"{side} {f'the {other}' if counts[other] == 1 else with_article(other)}")
        for (noun, side, other), found in cells.items()
        if len(found) == 1
    ]
