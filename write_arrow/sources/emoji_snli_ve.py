"""Sentences about scenes of embedded emoji that are true, false or undecidable, made from a seed, in the form of SNLI-VE.

One empty cell of each scene is covered. A sentence about a covered cell is undecidable, because nobody sees what is there.
Three scenes go together: each of three sentences is true of one of them, false of another and undecidable of the third, and
each scene has one sentence of each class. So neither the sentence alone nor the image alone says anything. Scenes are
divided between the splits as in `emoji_scenes`.
"""

import itertools
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from write_arrow.machine.source import EmbeddedSource
from write_arrow.machine.writer import Table
from write_arrow.sources.emoji import png
from write_arrow.sources.emoji_scenes import (
    CELL,
    PLACES,
    Scene,
    add_sizes,
    draw,
    draw_scene,
    held_out_pairs,
    sprites,
    with_article,
)
from write_arrow.sources.snli_ve import LABELS

SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "sentences": pa.list_(pa.string()),
        "labels": pa.list_(pa.int64()),
        "pair_id": pa.list_(pa.string()),
        "statement_types": pa.list_(pa.string()),
        "objects": pa.list_(pa.string()),
        "cells": pa.list_(pa.int64()),
        "covered": pa.int64(),
        "split": pa.string(),
    }
)
SIZES = {"train": 6_000, "val": 600, "test": 600, "held_out": 600}  # scenes, three of which go together
COVER = (20, 20, 20)  # darker than any background


class Statement(NamedTuple):
    """A sentence about cells of a scene.

    cells: the cells that have to be seen to judge it.
    is_true: takes a scene and says whether the sentence is true of it.
    """

    kind: str
    text: str
    cells: tuple[int, ...]
    is_true: Callable[[Scene], bool]


class Covered(NamedTuple):
    """A scene, and the empty cell that is covered."""

    scene: Scene
    cell: int


def add_options(parser: ArgumentParser) -> None:
    add_sizes(parser, "scenes", SIZES)


def tables(arguments: Namespace) -> list[Table]:
    made = []
    for number, split in enumerate(SIZES):
        trios = getattr(arguments, f"num_{split}") // 3
        rng = np.random.default_rng((arguments.seed, 200 + number))
        made.append(Table(f"emoji_snli_ve_{split}", SCHEMA, _rows(rng, split, trios, arguments.seed), 3 * trios))
    return made


def _rows(rng: np.random.Generator, split: str, trios: int, seed: int) -> Iterator[dict[str, Any]]:
    held_out, pictures = held_out_pairs(seed), sprites()
    for number in range(trios):
        trio, told = draw_trio(rng, split, held_out, seed)
        for place, shown in enumerate(trio):
            image = draw(shown.scene, pictures, rng)
            left, top = shown.cell % 2 * CELL, shown.cell // 2 * CELL
            image.paste(COVER, (left, top, left + CELL, top + CELL))
            yield {
                "image": png(image),
                "sentences": [statement.text for statement in told],
                "labels": [label_of(statement, shown) for statement in told],
                "pair_id": [f"{split}-{number}-{place}-{sentence}" for sentence in range(len(told))],
                "statement_types": [statement.kind for statement in told],
                "objects": list(shown.scene.cells.values()),
                "cells": list(shown.scene.cells),
                "covered": shown.cell,
                "split": split,
            }


def draw_trio(
    rng: np.random.Generator, split: str, held_out: set[frozenset[str]], seed: int
) -> tuple[list[Covered], list[Statement]]:
    """Three scenes and three statements; of each scene, each of the three labels is that of one statement."""
    while True:
        trio = [_draw_covered(rng, split, held_out, seed) for _ in range(3)]
        known = list(statements(sorted({noun for shown in trio for noun in shown.scene.counts})))
        told = []
        for first in range(3):
            order = (trio[first], trio[first - 1], trio[first - 2])
            fitting: dict[str, list[Statement]] = {}
            for statement in known:
                if [label_of(statement, shown) for shown in order] == list(LABELS.values()):
                    fitting.setdefault(statement.kind, []).append(statement)
            if fitting:
                chosen = list(fitting.values())[rng.integers(len(fitting))]
                told.append(chosen[rng.integers(len(chosen))])
        if len(told) == 3:
            return trio, told


def _draw_covered(rng: np.random.Generator, split: str, held_out: set[frozenset[str]], seed: int) -> Covered:
    """A scene with one of its empty cells. Covering a thing could make it the scene of another split."""
    while True:
        scene = draw_scene(rng, split, held_out, seed)
        empty = [cell for cell in range(4) if cell not in scene.cells]
        if empty:
            return Covered(scene, empty[rng.integers(len(empty))])


def label_of(statement: Statement, shown: Covered) -> int:
    """The label of a statement about a covered scene."""
    if shown.cell in statement.cells:
        return LABELS["neutral"]
    return LABELS["entailment" if statement.is_true(shown.scene) else "contradiction"]


def statements(nouns: list[str]) -> Iterator[Statement]:
    """All statements that speak of these nouns."""
    for cell in range(4):
        yield _nothing(cell)
        yield from (_stands(noun, cell) for noun in nouns)
    yield from (_alike(*pair) for pair in itertools.combinations(range(4), 2))


def _stands(noun: str, cell: int) -> Statement:
    text = f"there is {with_article(noun)} {PLACES[cell]}"
    return Statement("place", text, (cell,), lambda scene: scene.cells.get(cell) == noun)


def _nothing(cell: int) -> Statement:
    return Statement("nothing", f"there is nothing {PLACES[cell]}", (cell,), lambda scene: cell not in scene.cells)


def _alike(one: int, other: int) -> Statement:
    def is_true(scene: Scene) -> bool:
        return one in scene.cells and scene.cells[one] == scene.cells.get(other)

    return Statement("alike", f"the same thing is {PLACES[one]} and {PLACES[other]}", (one, other), is_true)


SOURCES = {
    "emoji_snli_ve": EmbeddedSource(
        "sentences about partly covered scenes of emoji (embedded, from a seed)", tables, add_options
    )
}
