"""Dialogues about scenes of embedded emoji, made from a seed, in the form of VisDial.

A dialogue starts with a caption that names a thing, and goes on to where *it* is, to what is beside *it*, and to whether
there are other things. Only the rounds before tell what *it* is, and only the image tells the answer. Options are all
answers of a question's type with other things. Scenes have four different things, and are divided as in `emoji_scenes`.
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
    PLACES,
    SIDES,
    SPLIT_SIZES,
    Scene,
    draw,
    draw_scene,
    held_out_pairs,
    sprites,
    with_article,
)

SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "questions": pa.list_(pa.string()),
        "options": pa.list_(pa.list_(pa.string())),
        "answer_index": pa.list_(pa.int64()),
        "question_types": pa.list_(pa.string()),
        "history": pa.list_(pa.list_(pa.string())),
        "round_id": pa.list_(pa.int64()),
        "caption": pa.string(),
        "image_id": pa.int64(),
        "objects": pa.list_(pa.string()),
        "cells": pa.list_(pa.int64()),
        "split": pa.string(),
    }
)
SIZES = {"train": 8_000, "val": 200, "test": 400, "held_out": 400}  # dialogues
OPTIONS, ROUNDS = 5, 4
WHERE, BESIDE, EXISTS = 0.7, 0.4, 0.7  # chances of "where is it", "what is left of it", and of things that are there

Turn = tuple[str, str, str]  # type, question, answer


def add_options(parser: ArgumentParser) -> None:
    for split, size in SIZES.items():
        name = split.replace("_", "-")
        parser.add_argument(f"--num-{name}", type=int, default=size, help=f"dialogues in {split} (default: {size})")
    parser.add_argument("--seed", type=int, default=0, help="seed of all splits (default: 0)")


def tables(arguments: Namespace) -> list[Table]:
    made = []
    for number, split in enumerate(SPLIT_SIZES):
        size = getattr(arguments, f"num_{split}")
        rng = np.random.default_rng((arguments.seed, 200 + number))
        made.append(Table(f"emoji_visdial_{split}", SCHEMA, _rows(rng, split, size, arguments.seed), size))
    return made


def _rows(rng: np.random.Generator, split: str, size: int, seed: int) -> Iterator[dict[str, Any]]:
    held_out, pictures = held_out_pairs(seed), sprites()
    offset = list(SPLIT_SIZES).index(split) * 10_000_000  # ids of the splits never meet
    for number in range(size):
        scene = _scene_of_different_things(rng, split, held_out, seed)
        caption, turns = dialogue(scene, rng)
        options = [_options(answer, scene, rng) for _, _, answer in turns]
        said = [words for _, question, answer in turns for words in (question, answer)]
        yield {
            "image": png(draw(scene, pictures, rng)),
            "questions": [question for _, question, _ in turns],
            "options": options,
            "answer_index": [own.index(answer) for own, (_, _, answer) in zip(options, turns, strict=True)],
            "question_types": [kind for kind, _, _ in turns],
            "history": [said[: 2 * place] for place in range(len(turns))],
            "round_id": [1 + place for place in range(len(turns))],
            "caption": caption,
            "image_id": offset + number,
            "objects": list(scene.cells.values()),
            "cells": list(scene.cells),
            "split": split,
        }


def _scene_of_different_things(rng: np.random.Generator, split: str, held_out: set[frozenset[str]], seed: int) -> Scene:
    while True:
        scene = draw_scene(rng, split, held_out, seed)
        if len(scene.counts) == 4:
            return scene


def dialogue(scene: Scene, rng: np.random.Generator) -> tuple[str, list[Turn]]:
    """A caption that names a thing of a scene, and ROUNDS questions. What was said before does not answer them."""
    cells = {noun: cell for cell, noun in scene.cells.items()}
    absent = [noun for noun in NOUNS if noun not in cells]
    it = list(cells)[rng.integers(len(cells))]
    caption, named, placed = f"there is {with_article(it)}", {it}, False  # placed: the words tell where "it" is
    turns: list[Turn] = []
    while len(turns) < ROUNDS:
        sides = SIDES if it in cells else ()
        beside = [(side, other) for side in sides if (other := scene.neighbour(cells[it], side)) and other not in named]
        shown = [noun for noun in cells if noun not in named]
        if it in cells and not placed and rng.random() < WHERE:
            turns.append(("where", "where is it", PLACES[cells[it]]))
            placed = True
        elif beside and rng.random() < BESIDE:
            side, it = beside[rng.integers(len(beside))]
            turns.append(("beside", f"what is {side} it", it))
        else:
            exists = bool(shown) and rng.random() < EXISTS
            it = (shown if exists else absent)[rng.integers(len(shown if exists else absent))]
            turns.append(("exists", f"is there {with_article(it)}", "yes" if exists else "no"))
            placed = False
        named.add(it)
    return caption, turns


def _options(answer: str, scene: Scene, rng: np.random.Generator) -> list[str]:
    """The answer among what could be one, and other things, in random order."""
    likely = next((list(words) for words in (PLACES, ("yes", "no")) if answer in words), list(scene.counts))
    others = [noun for noun in NOUNS if noun not in scene.counts]
    chosen = likely + rng.permutation(others)[: OPTIONS - len(likely)].tolist()
    return rng.permutation(chosen).tolist()


SOURCES = {
    "emoji_visdial": EmbeddedSource("dialogues about scenes of emoji (embedded, from a seed)", tables, add_options)
}
