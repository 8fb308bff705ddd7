"""Questions about scenes of embedded emoji whose words name boxes, made from a seed, in the form of VCR.

All things are called "thing", and only the tag of a word tells which of them is meant. *name* asks for the noun of a thing,
and *same* for another thing of its noun. A question has four answers, and its right answer four rationales, which say that
two things are alike, or name their noun. All nouns and things of wrong choices are in the scene. Scenes are divided as in
`emoji_scenes`.
"""

from argparse import Namespace
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from write_arrow.machine.source import EmbeddedSource
from write_arrow.machine.writer import Table
from write_arrow.sources import vcr
from write_arrow.sources.emoji_boxes import (
    BOXES,
    SCENE_SCHEMA,
    add_options,
    box_id,
    draw_large_scene,
    image_id,
    scene_columns,
    some,
)
from write_arrow.sources.emoji_scenes import (
    Scene,
    draw_with_boxes,
    held_out_pairs,
    plural,
    split_tables,
    sprites,
    with_article,
)

_OF_TEXTS = (
    *("questions", "question_tags", "answers", "answer_tags", "answer_index", "annot_id", "given_questions"),
    *(
        "given_question_tags",
        "given_answers",
        "given_answer_tags",
        "given_answer_index",
        "rationales",
        "rationale_tags",
    ),
    *("rationale_index", "given_annot_id"),
)
SCHEMA = pa.schema(
    [
        *SCENE_SCHEMA,
        *(vcr.SCHEMA.field(name) for name in _OF_TEXTS),
        ("question_types", pa.list_(pa.string())),
        ("boxes", BOXES),
        ("box_ids", pa.list_(pa.int64())),
        ("box_names", pa.list_(pa.string())),
    ]
)
NUM_THINGS = (7, 8, 9)
REPEATED = 3  # nouns that are there more than once: a question may mean a thing of any of them
MOST = 6  # questions about a scene

Phrase = list[str | list[int]]  # words, and lists of the cells of things


class Question(NamedTuple):
    """A question with its answers and rationales, the right ones first."""

    kind: str
    words: Phrase
    answers: list[Phrase]
    rationales: list[Phrase]


def tables(arguments: Namespace) -> list[Table]:
    return split_tables("emoji_vcr", SCHEMA, _rows, arguments, stream=700)


def _rows(rng: np.random.Generator, split: str, size: int, seed: int) -> Iterator[dict[str, Any]]:
    held_out, pictures = held_out_pairs(seed), sprites()
    for number in range(size):
        scene = draw_asked_scene(rng, split, held_out, seed)
        image, boxes = draw_with_boxes(scene, pictures, rng)
        order = rng.permutation(list(boxes)).tolist()
        asked = some(questions(scene, rng), MOST, rng)
        names = ["thing" for _ in order]
        values: dict[str, list[Any]] = {}
        for place, question in enumerate(asked):
            entry = _annotation(question, order, rng) | {"annot_id": f"{split}-{number}-{place}"}
            for name, cells in vcr.text_columns(entry, names, range(1, 1 + len(order)), labelled=True).items():
                values.setdefault(name, []).extend(cells)
        yield {
            **scene_columns(scene, image, split, number),
            **values,
            "question_types": [question.kind for question in asked],
            "boxes": [boxes[cell] for cell in order],
            "box_ids": [box_id(image_id(split, number), cell) for cell in order],
            "box_names": names,
        }


def draw_asked_scene(rng: np.random.Generator, split: str, held_out: set[frozenset[str]], seed: int) -> Scene:
    """A scene with as many nouns as a question has choices, most of which are there more than once."""
    while True:
        scene = draw_large_scene(rng, split, held_out, seed, NUM_THINGS)
        repeated = sum(count > 1 for count in scene.counts.values())
        if len(scene.counts) >= vcr.CHOICES and repeated >= REPEATED:
            return scene


def questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """All questions about a scene whose answers and rationales can be told."""
    asked = []
    for cell, noun in scene.cells.items():
        alike = [other for other, own in scene.cells.items() if own == noun and other != cell]
        different = [other for other, own in scene.cells.items() if own != noun]
        if not alike:
            continue
        nouns = [noun, *some([other for other in scene.counts if other != noun], vcr.CHOICES - 1, rng)]
        things = [*some(alike, 1, rng), *some(different, vcr.CHOICES - 1, rng)]
        named: list[Phrase] = [[with_article(one)] for one in nouns]
        likenesses: list[Phrase] = [[[cell], "is like", [one]] for one in things]
        asked.append(Question("name", ["what is", [cell]], named, likenesses))
        both: list[Phrase] = [[[cell, things[0]], "are", plural(one)] for one in nouns]
        asked.append(Question("same", ["what is like", [cell]], [[[one]] for one in things], both))
    return asked


def _annotation(question: Question, order: list[int], rng: np.random.Generator) -> dict[str, Any]:
    """A question as VCR annotates it, with its choices in random order.

    order: the cells of the objects by their numbers.
    """

    def tokens(phrase: Phrase) -> list[str | list[int]]:
        return [part if isinstance(part, str) else [order.index(cell) for cell in part] for part in phrase]

    entry: dict[str, Any] = {"question": tokens(question.words)}
    for kind, choices in (("answer", question.answers), ("rationale", question.rationales)):
        shown = rng.permutation(len(choices)).tolist()
        entry[f"{kind}_choices"] = [tokens(choices[place]) for place in shown]
        entry[f"{kind}_label"] = shown.index(0)
    return entry


SOURCES = {
    "emoji_vcr": EmbeddedSource(
        "questions about things in scenes of emoji, with answers and reasons (embedded, from a seed)",
        tables,
        add_options,
    )
}
