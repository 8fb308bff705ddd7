"""Questions about scenes of embedded emoji, made from a seed, in the form of GQA.

Structural types are query, verify, choose, compare and logical; semantic types are obj (which things there are), rel (what
is beside what), attr (where a thing is) and global (the whole scene). Questions about a scene entail each other: who knows
what is left of the dog knows that there is a dog. Yes and no are equally frequent in each type that asks for them.

Scenes are divided between the splits as in `emoji_scenes`.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from write_arrow.machine.source import EmbeddedSource
from write_arrow.machine.writer import Table
from write_arrow.sources import gqa
from write_arrow.sources.emoji import png
from write_arrow.sources.emoji_scenes import (
    NOUNS,
    OPPOSITE,
    PLACES,
    SIDES,
    Scene,
    add_sizes,
    draw,
    draw_scene,
    held_out_pairs,
    plural,
    split_tables,
    sprites,
    with_article,
)

SCHEMA = pa.schema([*gqa.SCHEMA, ("objects", pa.list_(pa.string())), ("cells", pa.list_(pa.int64()))])
SIZES = {"train": 8_000, "val": 400, "test": 400, "held_out": 400}  # scenes
T = TypeVar("T")
ANSWERS = (*NOUNS, *PLACES, "left", "right", "above", "below", "1", "2", "3", "4", "yes", "no")


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    name: of its kind; a scene has at most one of each.
    group: of the answers that it may have.
    entails: the names of the questions whose answers follow from this one's.
    """

    name: str
    structural: str
    semantic: str
    text: str
    answer: str
    group: str | None = None
    entails: tuple[str, ...] = ()


def add_options(parser: ArgumentParser) -> None:
    add_sizes(parser, "scenes", SIZES)


def tables(arguments: Namespace) -> list[Table]:
    return split_tables("emoji_gqa", SCHEMA, _rows, arguments, stream=200)


def _rows(rng: np.random.Generator, split: str, size: int, seed: int) -> Iterator[dict[str, Any]]:
    held_out, pictures = held_out_pairs(seed), sprites()
    offset = list(SIZES).index(split) * 1_000_000  # ids of the splits never meet
    for number in range(offset, offset + size):
        scene = draw_scene(rng, split, held_out, seed)
        asked = questions(scene, rng)
        ids = {question.name: f"{number:08}{place:02}" for place, question in enumerate(asked)}
        yield {
            "image": png(draw(scene, pictures, rng)),
            "questions": [question.text for question in asked],
            "question_id": list(ids.values()),
            "answers": [[question.answer] for question in asked],
            "answer_labels": [[ANSWERS.index(question.answer)] for question in asked],
            "answer_scores": [[1.0] for _ in asked],
            "gold_answers": [question.answer for question in asked],
            "question_types": [question.structural for question in asked],
            "semantic_types": [question.semantic for question in asked],
            "detailed_types": [question.name for question in asked],
            "answer_types": ["open" if question.structural == "query" else "binary" for question in asked],
            "groups": [question.group for question in asked],
            "entailed": [[ids[name] for name in question.entails if name in ids] for question in asked],
            "is_balanced": [True for _ in asked],
            "image_id": f"{number:08}",
            "split": split,
            "objects": list(scene.cells.values()),
            "cells": list(scene.cells),
        }


def questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """One question of each kind that the scene can answer, without question marks."""
    counts = scene.counts
    single = [(cell, noun) for cell, noun in scene.cells.items() if counts[noun] == 1]
    related = [
        (other, side, noun)
        for cell, noun in single
        for side in SIDES
        if (other := scene.neighbour(cell, side)) and counts[other] == 1
    ]
    lacking, absent = rng.permutation([noun for noun in NOUNS if noun not in counts])[:2].tolist()
    thing, side, other = _one_of(related, rng) if related else (_one_of(list(counts), rng), None, None)
    asked = [
        Question("total", "query", "global", "how many things are there", str(len(scene.cells)), "number"),
        *_of_presence(thing, lacking, absent, rng),
        _more(scene, lacking, rng),
    ]
    if related:
        asked += _of_relation(thing, side, other, lacking, rng)
    if single:
        asked += _of_place(*_one_of(single, rng), rng)
    return asked


def _of_presence(thing: str, lacking: str, absent: str, rng: np.random.Generator) -> list[Question]:
    """Questions about a thing that is there and two that are not."""
    true = rng.random() < 0.5
    one, other = _shuffled(thing if true else absent, lacking, rng)
    text = f"is there {with_article(one)} or {with_article(other)}"
    return [
        Question(
            *("exists", "verify", "obj", f"is there {with_article(thing)}", "yes"), entails=("either",) if true else ()
        ),
        Question("lacks", "verify", "obj", f"is there {with_article(lacking)}", "no", entails=("not_both",)),
        Question("either", "logical", "obj", text, _yes(true), entails=() if true else ("lacks",)),
    ]


def _more(scene: Scene, lacking: str, rng: np.random.Generator) -> Question:
    """Which of two things there is more of: two that are there, or, where their numbers agree, one that is not."""
    (most, highest), *_, (least, lowest) = scene.counts.most_common() * 2
    if highest == lowest:
        most, least = _one_of(list(scene.counts), rng), lacking
    true = rng.random() < 0.5
    one, other = (most, least) if true else (least, most)
    return Question("more", "compare", "obj", f"are there more {plural(one)} than {plural(other)}", _yes(true))


def _of_relation(thing: str, side: str, other: str, lacking: str, rng: np.random.Generator) -> list[Question]:
    """Questions about two things that are there once each, of which one is on that side of the other."""
    true, there = rng.random() < 0.5, ("exists", "both")
    told = f"is the {thing} {side if true else OPPOSITE[side]} the {other}"
    sides = "left or right of" if side in ("left of", "right of") else "above or below"
    one, two = _shuffled(thing, lacking, rng)
    return [
        Question(
            "beside", "query", "rel", f"what is {side} the {other}", thing, "thing", ("is_beside", "side", *there)
        ),
        Question("is_beside", "verify", "rel", told, _yes(true), entails=("side", *there) if true else there),
        Question(
            *("side", "choose", "rel", f"is the {thing} {sides} the {other}", side.removesuffix(" of"), "side"),
            ("beside", "is_beside", *there),
        ),
        Question(
            *("both", "logical", "obj", f"are there both {with_article(thing)} and {with_article(other)}", "yes"),
            entails=("exists",),
        ),
        Question("not_both", "logical", "obj", f"are there both {with_article(one)} and {with_article(two)}", "no"),
    ]


def _of_place(cell: int, thing: str, rng: np.random.Generator) -> list[Question]:
    """Questions about the place of a thing that is there once."""
    true, place = rng.random() < 0.5, PLACES[cell]
    told = place if true else _one_of([other for other in PLACES if other != place], rng)
    one, two = _shuffled(thing, _one_of([noun for noun in NOUNS if noun != thing], rng), rng)
    text = f"is {with_article(one)} or {with_article(two)} {place}"
    return [
        Question("where", "query", "attr", f"where is the {thing}", place, "place", ("is_where", "which")),
        Question(
            *("is_where", "verify", "attr", f"is the {thing} {told}", _yes(true)),
            entails=("where", "which") if true else (),
        ),
        Question("which", "choose", "attr", text, thing, "thing", ("where", "is_where")),
    ]


def _yes(true: bool) -> str:
    return "yes" if true else "no"


def _one_of(values: list[T], rng: np.random.Generator) -> T:
    return values[rng.integers(len(values))]


def _shuffled(one: str, other: str, rng: np.random.Generator) -> tuple[str, str]:
    return (one, other) if rng.random() < 0.5 else (other, one)


SOURCES = {
    "emoji_gqa": EmbeddedSource(
        "questions about scenes of emoji in the form of GQA (embedded, from a seed)", tables, add_options
    )
}
