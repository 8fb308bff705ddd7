"""Dialogues about scenes of embedded emoji, made from a seed, in the form of VisDial.

A dialogue asks whether there are things ("are there dogs") and how many ("how many dogs are there"). Many questions are
short ("and cats"): only the rounds before tell which of the two they ask, and only the image tells the answer. All have the
same options. Scenes are divided as in `emoji_scenes`.
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
    NUMBERS,
    SPLIT_SIZES,
    Scene,
    draw,
    draw_scene,
    held_out_pairs,
    plural,
    sprites,
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
YES, NO = "yes", "no"
COUNTS = ("none", "one", "two", "three", "four")
OPTIONS, ROUNDS = (YES, NO, *COUNTS), 3
SHORT = 0.6  # chance that a question after the first is a short one
SHOWN = {"exists": 0.5, "count": 0.8}  # chance of asking about things that are there

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
        scene = draw_scene(rng, split, held_out, seed)
        caption, turns = dialogue(scene, rng)
        options = [rng.permutation(OPTIONS).tolist() for _ in turns]
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


def dialogue(scene: Scene, rng: np.random.Generator) -> tuple[str, list[Turn]]:
    """A caption and ROUNDS questions about different things of a scene. What was said before does not answer them."""
    counts, asked = scene.counts, set[str]()
    kind, turns = "", list[Turn]()
    while len(turns) < ROUNDS:
        short = bool(turns) and rng.random() < SHORT
        kind = kind if short else str(rng.choice(list(SHOWN)))
        shown = [noun for noun in counts if noun not in asked]
        absent = [noun for noun in NOUNS if noun not in counts and noun not in asked]
        there = bool(shown) and rng.random() < SHOWN[kind]
        noun = (shown if there else absent)[rng.integers(len(shown if there else absent))]
        asked.add(noun)
        things = plural(noun)
        whole = f"are there {things}" if kind == "exists" else f"how many {things} are there"
        answer = (YES if there else NO) if kind == "exists" else COUNTS[counts[noun]]
        turns.append((kind, f"and {things}" if short else whole, answer))
    size = len(scene.cells)
    return "one thing" if size == 1 else f"{NUMBERS[size]} things", turns


SOURCES = {
    "emoji_visdial": EmbeddedSource("dialogues about scenes of emoji (embedded, from a seed)", tables, add_options)
}
