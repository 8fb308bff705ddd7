"""Statements about two scenes of embedded emoji, made from a seed, in the form of NLVR2.

Two pairs of scenes share one scene, on the same side; each statement about them is true of the one pair and false of the
other, so that the statement alone, or one of its images alone, says nothing. Scenes are divided between the splits as in
`emoji_scenes`.
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
    NUMBERS,
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

SCHEMA = pa.schema(
    {
        "image_0": pa.binary(),
        "image_1": pa.binary(),
        "questions": pa.list_(pa.string()),
        "answers": pa.list_(pa.string()),
        "identifiers": pa.list_(pa.string()),
        "statement_types": pa.list_(pa.string()),
        "identifier": pa.string(),
        "objects_0": pa.list_(pa.string()),
        "objects_1": pa.list_(pa.string()),
        "split": pa.string(),
    }
)
SIZES = {"train": 6_000, "val": 600, "test": 600, "held_out": 600}  # pairs of scenes, two of which are twins
ALIKE = 0.8  # chance that the scenes of a pair show a thing in common: most statements need it

Pair = tuple[Scene, Scene]  # left, right


def add_options(parser: ArgumentParser) -> None:
    add_sizes(parser, "pairs", SIZES)


def tables(arguments: Namespace) -> list[Table]:
    return split_tables("emoji_nlvr2", SCHEMA, _rows, arguments, stream=100, together=2)


def _rows(rng: np.random.Generator, split: str, twins: int, seed: int) -> Iterator[dict[str, Any]]:
    held_out, pictures = held_out_pairs(seed), sprites()
    for number in range(twins):
        pairs, told = draw_twins(rng, split, held_out, seed)
        for place, (left, right) in enumerate(pairs):
            yield {
                "image_0": png(draw(left, pictures, rng)),
                "image_1": png(draw(right, pictures, rng)),
                "questions": [text for _, text, _ in told],
                "answers": [str(truths[place]) for _, _, truths in told],
                "identifiers": [f"{split}-{number}-{place}-{sentence}" for sentence in range(len(told))],
                "statement_types": [kind for kind, _, _ in told],
                "identifier": f"{split}-{number}-{place}",
                "objects_0": list(left.cells.values()),
                "objects_1": list(right.cells.values()),
                "split": split,
            }


Told = tuple[str, str, tuple[bool, bool]]  # type, statement, whether it is true of each pair


def draw_twins(
    rng: np.random.Generator, split: str, held_out: set[frozenset[str]], seed: int
) -> tuple[tuple[Pair, Pair], list[Told]]:
    """Two pairs with a common scene, and a statement of each type that tells them apart (those that can)."""
    while True:
        common = draw_scene(rng, split, held_out, seed)
        one, other = (_second(common, rng, split, held_out, seed) for _ in range(2))
        pairs = ((common, one), (common, other)) if rng.random() < 0.5 else ((one, common), (other, common))
        true, also = (dict(statements(pair, nouns)) for pair in pairs for nouns in [_nouns(common, one, other)])
        telling: dict[str, list[Told]] = {}
        for (kind, text), truth in true.items():
            if truth != also[kind, text]:
                telling.setdefault(kind, []).append((kind, text, (truth, also[kind, text])))
        if telling:
            return pairs, [told[rng.integers(len(told))] for told in telling.values()]


def _second(common: Scene, rng: np.random.Generator, split: str, held_out: set[frozenset[str]], seed: int) -> Scene:
    alike = rng.random() < ALIKE
    while True:
        scene = draw_scene(rng, split, held_out, seed)
        if not alike or scene.counts.keys() & common.counts.keys():
            return scene


def _nouns(*scenes: Scene) -> list[str]:
    return sorted({noun for scene in scenes for noun in scene.counts})


def statements(pair: Pair, nouns: list[str]) -> Iterator[tuple[tuple[str, str], bool]]:
    """All ((type, statement), truth) about a pair that speak of these nouns."""
    left, right = (scene.counts for scene in pair)
    for noun in nouns:
        one = with_article(noun)
        yield ("both", f"both images show {one}"), bool(left[noun] and right[noun])
        yield ("only", f"only the left image shows {one}"), bool(left[noun] and not right[noun])
        yield ("only", f"only the right image shows {one}"), bool(right[noun] and not left[noun])
        for number in (1, 2, 3, 4):
            text = (
                f"there is one {noun} in all" if number == 1 else f"there are {NUMBERS[number]} {plural(noun)} in all"
            )
            yield ("count", text), left[noun] + right[noun] == number
        for other in nouns:
            text = f"the left image shows {one} and the right {with_article(other)}"
            yield ("each", text), bool(left[noun] and right[other])
    yield ("more", "the left image shows more things"), left.total() > right.total()
    yield ("more", "the right image shows more things"), right.total() > left.total()
    yield ("more", "both images show as many things"), left.total() == right.total()


SOURCES = {
    "emoji_nlvr2": EmbeddedSource("statements about two scenes of emoji (embedded, from a seed)", tables, add_options)
}
