"""Games of yes and no about scenes of embedded emoji, made from a seed, in the form of GuessWhat?!.

A game means one thing of a scene. Questions ask for its noun until that is found, and then for its place ("is it at the
top") until no other thing fits. The nouns need the picture and the dialogue, and the place needs the boxes, which are
those of all things in random order. Scenes are divided as in `emoji_scenes`.
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
    SIDE,
    add_options,
    box_id,
    draw_large_scene,
    image_id,
    scene_columns,
)
from write_arrow.sources.emoji_scenes import (
    Scene,
    draw_with_boxes,
    held_out_pairs,
    split_tables,
    sprites,
    with_article,
)

SCHEMA = pa.schema(
    [
        *SCENE_SCHEMA,
        ("questions", pa.list_(pa.string())),  # the last one of each game
        ("dialogue", pa.list_(pa.list_(pa.string()))),
        ("boxes", pa.list_(BOXES)),
        ("box_ids", pa.list_(pa.list_(pa.int64()))),
        ("answer_index", pa.list_(pa.int64())),
        ("game_id", pa.list_(pa.int64())),
        ("status", pa.list_(pa.string())),
    ]
)
NUM_THINGS = (7, 8, 9)
GAMES = 4  # of a scene
EDGES = {  # the cells of the places that questions ask for
    "at the top": range(SIDE),
    "at the bottom": range(SIDE**2 - SIDE, SIDE**2),
    "on the left": range(0, SIDE**2, SIDE),
    "on the right": range(SIDE - 1, SIDE**2, SIDE),
}


def tables(arguments: Namespace) -> list[Table]:
    return split_tables("emoji_guess", SCHEMA, _rows, arguments, stream=600)


def _rows(rng: np.random.Generator, split: str, size: int, seed: int) -> Iterator[dict[str, Any]]:
    held_out, pictures = held_out_pairs(seed), sprites()
    for number in range(size):
        scene = draw_large_scene(rng, split, held_out, seed, NUM_THINGS)
        image, boxes = draw_with_boxes(scene, pictures, rng)
        own, meant = image_id(split, number), rng.permutation(list(scene.cells))[:GAMES].tolist()
        shown = [rng.permutation(list(scene.cells)).tolist() for _ in meant]
        games = [dialogue(scene, cell, rng) for cell in meant]
        yield {
            **scene_columns(scene, image, split, number),
            "questions": [game[-2] for game in games],
            "dialogue": games,
            "boxes": [[boxes[cell] for cell in cells] for cells in shown],
            "box_ids": [[box_id(own, cell) for cell in cells] for cells in shown],
            "answer_index": [cells.index(cell) for cells, cell in zip(shown, meant, strict=True)],
            "game_id": [own * GAMES + place for place in range(GAMES)],
            "status": ["success" for _ in meant],
        }


def dialogue(scene: Scene, meant: int, rng: np.random.Generator) -> list[str]:
    """Questions and answers until one thing of a scene fits."""
    said: list[str] = []
    for noun in rng.permutation(list(scene.counts)):
        said += [f"is it {with_article(noun)}", _yes(noun == scene.cells[meant])]
        if noun == scene.cells[meant]:
            break
    fitting = {cell for cell, noun in scene.cells.items() if noun == scene.cells[meant]}
    for place in rng.permutation(list(EDGES)):
        inside = fitting.intersection(EDGES[place])
        if inside and inside != fitting:
            said += [f"is it {place}", _yes(meant in inside)]
            fitting = inside if meant in inside else fitting - inside
    return said


def _yes(true: bool) -> str:
    return "yes" if true else "no"


SOURCES = {
    "emoji_guess": EmbeddedSource(
        "games of yes and no about a thing in scenes of emoji (embedded, from a seed)", tables, add_options
    )
}
