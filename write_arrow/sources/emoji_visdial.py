"""Dialogues about scenes of embedded emoji, made from a seed, in the form of VisDial.

A scene has four different things. The caption names one, and the questions ask for others ("what else"), or for a
thing that is not there ("what is missing"). Only the image tells what is there, and only the rounds before tell what was
named. Scenes are divided as in `emoji_scenes`.
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
    SPLIT_SIZES,
    Scene,
    add_sizes,
    draw,
    draw_scene,
    held_out_pairs,
    split_tables,
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
THINGS, OPTIONS = 4, 5
QUESTIONS = {"else": "what else", "missing": "what is missing"}
MISSING = 0.25  # chance of asking for a thing that is not there

Turn = tuple[str, str, list[str]]  # type, answer, options


def add_options(parser: ArgumentParser) -> None:
    add_sizes(parser, "dialogues", SIZES)


def tables(arguments: Namespace) -> list[Table]:
    return split_tables("emoji_visdial", SCHEMA, _rows, arguments, stream=200)


def _rows(rng: np.random.Generator, split: str, size: int, seed: int) -> Iterator[dict[str, Any]]:
    held_out, pictures = held_out_pairs(seed), sprites()
    offset = list(SPLIT_SIZES).index(split) * 10_000_000  # ids of the splits never meet
    for number in range(size):
        scene = _scene_of_different_things(rng, split, held_out, seed)
        caption, turns = dialogue(scene, rng)
        said = [words for kind, answer, _ in turns for words in (QUESTIONS[kind], answer)]
        yield {
            "image": png(draw(scene, pictures, rng)),
            "questions": [QUESTIONS[kind] for kind, _, _ in turns],
            "options": [options for _, _, options in turns],
            "answer_index": [options.index(answer) for _, answer, options in turns],
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
        if len(scene.counts) == THINGS:
            return scene


def dialogue(scene: Scene, rng: np.random.Generator) -> tuple[str, list[Turn]]:
    """A caption that names a thing of a scene, and questions until all its things are named.

    A question for another thing has the named things among its options, and one that is not named; a question for a missing
    thing has all things of the scene. All other options are not in the scene.
    """
    named, *others = rng.permutation(list(scene.counts)).tolist()
    absent = iter(rng.permutation([noun for noun in NOUNS if noun not in scene.counts]).tolist())
    caption, turns, told = f"there is {with_article(named)}", list[Turn](), [named]
    while others:
        # At most one question asks for a missing thing, so that the dialogues stay short.
        kind = "missing" if rng.random() < MISSING and all(turn[0] == "else" for turn in turns) else "else"
        answer = next(absent) if kind == "missing" else others.pop()
        wrong = list(scene.counts) if kind == "missing" else list(told)
        wrong += [next(absent) for _ in range(OPTIONS - 1 - len(wrong))]
        options = [with_article(noun) for noun in rng.permutation([answer, *wrong])]
        turns.append((kind, with_article(answer), options))
        if kind == "else":
            told.append(answer)
    return caption, turns


SOURCES = {
    "emoji_visdial": EmbeddedSource("dialogues about scenes of emoji (embedded, from a seed)", tables, add_options)
}
