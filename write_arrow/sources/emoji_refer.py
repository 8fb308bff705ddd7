"""Expressions that refer to one thing in a scene of embedded emoji, made from a seed, in the form of RefCOCO.

An expression names a thing by its neighbour: "the dog left of the apple". The scene has other dogs, but none of them is
left of an apple. The candidates are all things of the scene, in random order. Scenes are divided as in `emoji_scenes`.
"""

from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from write_arrow.machine.source import EmbeddedSource
from write_arrow.machine.writer import Table
from write_arrow.sources.emoji_boxes import (
    BOXES,
    SCENE_SCHEMA,
    add_options,
    box_id,
    draw_large_scene,
    image_id,
    references,
    scene_columns,
)
from write_arrow.sources.emoji_scenes import (
    Scene,
    draw_with_boxes,
    held_out_pairs,
    split_tables,
    sprites,
)

SCHEMA = pa.schema(
    [
        *SCENE_SCHEMA,
        ("boxes", BOXES),
        ("box_ids", pa.list_(pa.int64())),
        ("expressions", pa.list_(pa.string())),
        ("target_boxes", pa.list_(BOXES)),
        ("answer_index", pa.list_(pa.int64())),
        ("ref_id", pa.list_(pa.int64())),
        ("sent_id", pa.list_(pa.int64())),
        ("ann_id", pa.list_(pa.int64())),
    ]
)
NUM_THINGS = (7, 8, 9)
MOST = 8  # expressions of a scene


def tables(arguments: Namespace) -> list[Table]:
    return split_tables("emoji_refer", SCHEMA, _rows, arguments, stream=400)


def _rows(rng: np.random.Generator, split: str, size: int, seed: int) -> Iterator[dict[str, Any]]:
    held_out, pictures = held_out_pairs(seed), sprites()
    for number in range(size):
        scene, told = draw_told_scene(rng, split, held_out, seed)
        image, boxes = draw_with_boxes(scene, pictures, rng)
        order, own = rng.permutation(list(boxes)).tolist(), image_id(split, number)
        targets = [cell for cell, _ in told]
        yield {
            **scene_columns(scene, image, split, number),
            "boxes": [boxes[cell] for cell in order],
            "box_ids": [box_id(own, cell) for cell in order],
            "expressions": [text for _, text in told],
            "target_boxes": [[boxes[cell]] for cell in targets],
            "answer_index": [order.index(cell) for cell in targets],
            "ref_id": [box_id(own, cell) for cell in targets],
            "sent_id": [own * MOST + place for place in range(len(told))],
            "ann_id": [box_id(own, cell) for cell in targets],
        }


def draw_told_scene(
    rng: np.random.Generator, split: str, held_out: set[frozenset[str]], seed: int
) -> tuple[Scene, list[tuple[int, str]]]:
    """A scene of a split, and the cells that expressions refer to, with the expressions."""
    while True:
        scene = draw_large_scene(rng, split, held_out, seed, NUM_THINGS)
        told = expressions(scene)
        if told:
            return scene, [told[place] for place in rng.permutation(len(told))[:MOST]]


def expressions(scene: Scene) -> list[tuple[int, str]]:
    """All expressions that refer to one thing of a scene by its neighbour, among others of its kind."""
    return [(found.cell, f"the {found.noun} {found.place}") for found in references(scene)]


SOURCES = {
    "emoji_refer": EmbeddedSource(
        "expressions that refer to a thing in scenes of emoji (embedded, from a seed)", tables, add_options
    )
}
