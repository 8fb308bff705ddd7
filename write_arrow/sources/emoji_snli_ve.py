"""Sentences about scenes of embedded emoji that are true, false or undecidable, made from a seed, in the form of SNLI-VE.

A scene shows three things, and its fourth cell is covered: nobody sees whether a thing is there. A sentence names two
things. If both are seen it is true. If one is seen it is undecidable, because the other may be covered. If neither is seen
it is false, because a cell has room for one thing only.

Three scenes go together: each of three sentences is true of one of them, false of another and undecidable of the third, and
each scene has one sentence of each class. So neither the sentence alone nor the image alone says anything. Scenes are
divided between the splits as in `emoji_scenes`.
"""

import itertools
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from write_arrow.machine.source import EmbeddedSource
from write_arrow.machine.writer import Table
from write_arrow.sources.emoji import png
from write_arrow.sources.emoji_scenes import (
    CELL,
    NOUNS,
    Scene,
    add_sizes,
    draw,
    held_out_pairs,
    plural,
    split_of,
    split_tables,
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
TWO = 0.3  # chance that a sentence names the same thing twice
COVER = (20, 20, 20)  # darker than any background


class Statement(NamedTuple):
    """A sentence, and the two things that it says are there."""

    kind: str
    text: str
    things: tuple[str, str]


def add_options(parser: ArgumentParser) -> None:
    add_sizes(parser, "scenes", SIZES)


def tables(arguments: Namespace) -> list[Table]:
    return split_tables("emoji_snli_ve", SCHEMA, _rows, arguments, stream=200, together=3)


def _rows(rng: np.random.Generator, split: str, trios: int, seed: int) -> Iterator[dict[str, Any]]:
    held_out, pictures = held_out_pairs(seed), sprites()
    for number in range(trios):
        scenes, told = draw_trio(rng, split, held_out, seed)
        for place, scene in enumerate(scenes):
            (covered,) = set(range(4)) - scene.cells.keys()
            image, left, top = draw(scene, pictures, rng), covered % 2 * CELL, covered // 2 * CELL
            image.paste(COVER, (left, top, left + CELL, top + CELL))
            yield {
                "image": png(image),
                "sentences": [statement.text for statement in told],
                "labels": [label_of(statement, scene) for statement in told],
                "pair_id": [f"{split}-{number}-{place}-{sentence}" for sentence in range(len(told))],
                "statement_types": [statement.kind for statement in told],
                "objects": list(scene.cells.values()),
                "cells": list(scene.cells),
                "covered": covered,
                "split": split,
            }


def draw_trio(
    rng: np.random.Generator, split: str, held_out: set[frozenset[str]], seed: int
) -> tuple[list[Scene], list[Statement]]:
    """Three scenes of a split and three statements.

    A scene shows both things of its own statement and one thing of the statement before, and nothing of the third.
    """
    while True:
        nouns = iter(rng.permutation(NOUNS).tolist())
        told = [_statement(next(nouns), None if rng.random() < TWO else next(nouns)) for _ in range(3)]
        scenes = []
        for number, own in enumerate(told):
            shared = told[number - 1].things[rng.integers(2)]
            scenes += _arranged((*own.things, shared), rng, split, held_out, seed)
        if len(scenes) == 3:
            return scenes, told


def _statement(one: str, other: str | None) -> Statement:
    if other is None:
        return Statement("two", f"there are at least two {plural(one)}", (one, one))
    return Statement("both", f"there is {with_article(one)} and {with_article(other)}", (one, other))


def _arranged(
    things: Sequence[str], rng: np.random.Generator, split: str, held_out: set[frozenset[str]], seed: int
) -> list[Scene]:
    """A scene with these things that belongs to the split; none if no arrangement does."""
    for cells in rng.permutation(list(itertools.permutations(range(4), len(things)))).tolist():
        scene = Scene(dict(sorted(zip(cells, things, strict=True))))
        if split_of(scene, held_out, seed) == split:
            return [scene]
    return []


def label_of(statement: Statement, scene: Scene) -> int:
    """The label of a statement about a scene whose empty cell is covered."""
    num_missing = (Counter(statement.things) - scene.counts).total()
    return LABELS[("entailment", "neutral", "contradiction")[num_missing]]


SOURCES = {
    "emoji_snli_ve": EmbeddedSource(
        "sentences about partly covered scenes of emoji (embedded, from a seed)", tables, add_options
    )
}
