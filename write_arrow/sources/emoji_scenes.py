"""Scenes of embedded emoji with captions and questions, made from a seed.

A scene is 64x64 pixels on a plain background: one to four sprites of NOUNS, each in a cell of a 2x2 grid. Captions list
the sprites and tell one relation; questions ask for a count, a presence, a place, a neighbour or the total.

No two splits share an arrangement (what stands where): each belongs to one of them by its hash. Pairs of nouns are
divided beforehand: the scenes of `held_out` each show a pair that no other split ever shows together.
"""

import itertools
import zlib
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from write_arrow.machine.source import EmbeddedSource
from write_arrow.machine.writer import Table
from write_arrow.sources.emoji import open_sprite, packaged, png

NOUNS = (
    "airplane balloon banana bear bicycle bus butterfly cactus carrot cat cow crab crown dog duck egg guitar horse "
    "house key lemon monkey mushroom octopus owl panda penguin pig pizza rocket sailboat snail sunflower taxi tomato "
    "tractor turtle umbrella watermelon whale"
).split()
PLURALS = {
    "bus": "buses",
    "butterfly": "butterflies",
    "cactus": "cactuses",
    "octopus": "octopuses",
    "tomato": "tomatoes",
}
PLACES = ("top left", "top right", "bottom left", "bottom right")  # of cells 0 to 3
REPEAT = 0.45  # chance that a sprite is one already there: counting should be worth learning
NUMBERS = ("zero", "one", "two", "three", "four")
ANSWERS = (*NOUNS, *PLACES, "1", "2", "3", "4", "yes", "no")
ANSWER_TYPES = {"count": "number", "total": "number", "exists": "yes/no", "where": "other", "relation": "other"}
SIDES = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}  # columns and rows to the neighbour
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

SPLIT_SIZES = {"train": 12_000, "val": 1_000, "test": 1_000, "held_out": 1_000}
HELD_OUT_SHARE = 0.15  # of all pairs of nouns
ARRANGEMENTS = {"train": 0.8, "val": 0.1, "test": 0.1}  # share of all arrangements
CELL, SPRITE = 32, 30  # pixels

SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "caption": pa.list_(pa.string()),
        "questions": pa.list_(pa.string()),
        "question_id": pa.list_(pa.int64()),
        "question_types": pa.list_(pa.string()),
        "answer_types": pa.list_(pa.string()),
        "answers": pa.list_(pa.list_(pa.string())),
        "answer_labels": pa.list_(pa.list_(pa.int64())),
        "answer_scores": pa.list_(pa.list_(pa.float64())),
        "objects": pa.list_(pa.string()),
        "cells": pa.list_(pa.int64()),
        "image_id": pa.int64(),
        "split": pa.string(),
    }
)


@dataclass(frozen=True)
class Scene:
    """Which noun stands in which cell of a square grid. Cells are numbered row by row from the top left."""

    cells: dict[int, str]
    side: int = 2  # of the grid, in cells

    @property
    def counts(self) -> Counter:
        return Counter(self.cells.values())

    @property
    def pairs(self) -> set[frozenset[str]]:
        """Pairs of different nouns shown together."""
        return {frozenset(pair) for pair in itertools.combinations(set(self.cells.values()), 2)}

    def beside(self, cell: int, side: str) -> int | None:
        """The cell on that side of a cell; None outside the grid."""
        (row, column), (right, down) = divmod(cell, self.side), SIDES[side]
        row, column = row + down, column + right
        return row * self.side + column if 0 <= row < self.side and 0 <= column < self.side else None

    def neighbour(self, cell: int, side: str) -> str | None:
        """The noun on that side of a cell, if any."""
        other = self.beside(cell, side)
        return None if other is None else self.cells.get(other)

    def relations(self) -> list[tuple[str, str, str]]:
        """All (noun, side, other) with "noun is side other", in the order of the cells."""
        return [
            (noun, side, other)
            for cell, noun in sorted(self.cells.items())
            for side in SIDES
            if (other := self.neighbour(cell, OPPOSITE[side])) and other != noun
        ]


def add_options(parser: ArgumentParser) -> None:
    add_sizes(parser, "scenes", SPLIT_SIZES)


def add_sizes(parser: ArgumentParser, what: str, sizes: Mapping[str, int]) -> None:
    """Add an option for the number of rows of each split, and one for the seed.

    what: what a row shows, in the plural.
    sizes: the default number of rows by split.
    """
    for split, size in sizes.items():
        name = split.replace("_", "-")
        parser.add_argument(f"--num-{name}", type=int, default=size, help=f"{what} in {split} (default: {size})")
    parser.add_argument("--seed", type=int, default=0, help="seed of all splits (default: 0)")


def split_tables(
    name: str,
    schema: pa.Schema,
    rows: Callable[[np.random.Generator, str, int, int], Iterator[dict[str, Any]]],
    arguments: Namespace,
    *,
    stream: int,
    together: int = 1,
) -> list[Table]:
    """A table for each split, with the number of rows that the options of `add_sizes` say.

    rows: makes the rows of a split from a generator, the split's name, the number of groups of rows, and the seed.
    stream: the number of the first split's generator; the other splits have the next ones.
    together: the rows of a group.
    """
    made = []
    for number, split in enumerate(SPLIT_SIZES):
        groups = getattr(arguments, f"num_{split}") // together
        rng = np.random.default_rng((arguments.seed, stream + number))
        made.append(Table(f"{name}_{split}", schema, rows(rng, split, groups, arguments.seed), together * groups))
    return made


def tables(arguments: Namespace) -> list[Table]:
    return split_tables("emoji_scenes", SCHEMA, _rows, arguments, stream=1)


def held_out_pairs(seed: int) -> set[frozenset[str]]:
    """Pairs of nouns that only held_out shows together."""
    pairs = list(itertools.combinations(NOUNS, 2))
    chosen = np.random.default_rng((seed, 0)).permutation(len(pairs))[: round(HELD_OUT_SHARE * len(pairs))]
    return {frozenset(pairs[number]) for number in chosen}


def _rows(rng: np.random.Generator, split: str, size: int, seed: int) -> Iterator[dict[str, Any]]:
    held_out, pictures = held_out_pairs(seed), sprites()
    offset = list(SPLIT_SIZES).index(split) * 10_000_000  # ids of the splits never meet
    for number in range(size):
        scene = draw_scene(rng, split, held_out, seed)
        asked = questions(scene, rng)
        image_id = offset + number
        yield {
            "image": png(draw(scene, pictures, rng)),
            "caption": captions(scene, rng),
            "questions": [question for _, question, _ in asked],
            "question_id": [image_id * 10 + place for place in range(len(asked))],
            "question_types": [kind for kind, _, _ in asked],
            "answer_types": [ANSWER_TYPES[kind] for kind, _, _ in asked],
            "answers": [[answer] for _, _, answer in asked],
            "answer_labels": [[ANSWERS.index(answer)] for _, _, answer in asked],
            "answer_scores": [[1.0] for _ in asked],
            "objects": list(scene.cells.values()),
            "cells": list(scene.cells),
            "image_id": image_id,
            "split": split,
        }


def draw_scene(rng: np.random.Generator, split: str, held_out: set[frozenset[str]], seed: int) -> Scene:
    """A random scene of a split. Scenes of held_out show a held-out pair; others show none, and are divided by hash."""
    while True:
        cells: dict[int, str] = {}
        size = int(rng.integers(1, 5))
        for cell in sorted(rng.permutation(4)[:size].tolist()):
            repeat = cells and rng.random() < REPEAT
            pool = list(cells.values()) if repeat else NOUNS
            cells[cell] = pool[rng.integers(len(pool))]
        scene = Scene(cells)
        if split == split_of(scene, held_out, seed):
            return scene


def split_of(scene: Scene, held_out: set[frozenset[str]], seed: int) -> str:
    """The split that a scene belongs to: held_out if it shows a held-out pair, otherwise one by its hash."""
    if scene.pairs & held_out:
        return "held_out"
    hashed = zlib.crc32(f"{seed} {sorted(scene.cells.items())}".encode()) / 2**32
    for split, share in ARRANGEMENTS.items():
        hashed -= share
        if hashed < 0:
            return split
    return split


def captions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """The list of sprites with a relation where two are neighbours; the place of one; another relation alone."""
    counts = scene.counts
    listed = [
        with_article(noun) if count == 1 else f"{NUMBERS[count]} {plural(noun)}" for noun, count in counts.items()
    ]
    whole = f"{', '.join(listed[:-1])} and {listed[-1]}" if len(listed) > 1 else listed[0]
    cell, noun = list(scene.cells.items())[rng.integers(len(scene.cells))]
    place = f"there is {with_article(noun)} {PLACES[cell]}"
    relations = scene.relations()
    told = [
        f"{_named(first, counts)} is {side} {_named(second, counts)}"
        for first, side, second in (relations[number] for number in rng.permutation(len(relations))[:2])
    ]
    return [f"{whole}; {told[0]}", place, told[1]] if told else [whole, place]


def questions(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """One question of each type that the scene can answer: (type, question, answer).

    Without question marks: they would carry nothing, and lengthen the sequence.
    """
    counts = scene.counts
    present = list(counts)
    asked = []
    noun = max(present, key=lambda noun: counts[noun] + rng.random())  # favours the noun there are more of
    asked.append(("count", f"how many {plural(noun)} are there", str(counts[noun])))
    if rng.random() < 0.5:
        asked.append(("exists", f"is there {with_article(present[rng.integers(len(present))])}", "yes"))
    else:
        absent = [noun for noun in NOUNS if noun not in counts]
        asked.append(("exists", f"is there {with_article(absent[rng.integers(len(absent))])}", "no"))
    single = [(cell, noun) for cell, noun in scene.cells.items() if counts[noun] == 1]
    if single:
        cell, noun = single[rng.integers(len(single))]
        asked.append(("where", f"where is the {noun}", PLACES[cell]))
    related = [(noun, side, other) for cell, noun in single for side in SIDES if (other := scene.neighbour(cell, side))]
    if related:
        noun, side, other = related[rng.integers(len(related))]
        asked.append(("relation", f"what is {side} the {noun}", other))
    asked.append(("total", "how many things are there", str(len(scene.cells))))
    return asked


def with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    return PLURALS.get(noun, f"{noun}s")


def _named(noun: str, counts: Counter) -> str:
    return f"the {noun}" if counts[noun] == 1 else with_article(noun)


def sprites(wanted: Sequence[str] = NOUNS) -> dict[str, Image.Image]:
    """Pictures (RGBA) by their English names."""
    table = packaged()
    names = {caption[0]: number for number, caption in enumerate(table["caption_en"].to_pylist())}
    return {
        name: open_sprite(table["image"][names[name]].as_py()).resize((SPRITE, SPRITE), Image.Resampling.LANCZOS)
        for name in wanted
    }


def draw(scene: Scene, pictures: dict[str, Image.Image], rng: np.random.Generator) -> Image.Image:
    """A scene's image, 32 pixels a cell, each sprite shifted a little in its cell."""
    return draw_with_boxes(scene, pictures, rng)[0]


def draw_with_boxes(
    scene: Scene, pictures: dict[str, Image.Image], rng: np.random.Generator
) -> tuple[Image.Image, dict[int, list[float]]]:
    """A scene's image, and the box [left, top, right, bottom] of the sprite in each cell, in pixels."""
    image = Image.new("RGB", (scene.side * CELL, scene.side * CELL), tuple(rng.integers(90, 160, 3).tolist()))
    boxes = {}
    for cell, noun in scene.cells.items():
        boxes[cell] = cell_box(cell, scene.side, rng)
        left, top, *_ = map(int, boxes[cell])
        image.paste(pictures[noun], (left, top), pictures[noun])
    return image, boxes


def cell_box(cell: int, side: int, rng: np.random.Generator) -> list[float]:
    """The box of a sprite that is shifted a little in its cell. Boxes of all sprites are squares of one size."""
    shift_x, shift_y = rng.integers(CELL - SPRITE + 1, size=2).tolist()
    left, top = float(cell % side * CELL + shift_x), float(cell // side * CELL + shift_y)
    return [left, top, left + SPRITE, top + SPRITE]


SOURCES = {
    "emoji_scenes": EmbeddedSource(
        "scenes of emoji with captions and questions (embedded, from a seed)", tables, add_options
    )
}
