"""Questions about scenes of embedded emoji that are answered by pointing, made from a seed, in the form of Visual7W.

Each question has four boxes in random order, one of which is right. *thing* asks for a noun ("which one is a dog"),
*beside* for one of several things by its neighbour ("which dog is left of an apple"), and *empty* for a place where nothing
stands. The wrong boxes show other things or empty places, and stand where the right one could stand as well. So neither the
boxes nor the question nor the image alone tell the answer. Scenes are divided as in `emoji_scenes`.
"""

from argparse import Namespace
from collections.abc import Iterator
from typing import Any, NamedTuple

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
    references,
    scene_columns,
    some,
)
from write_arrow.sources.emoji_scenes import (
    OPPOSITE,
    Scene,
    cell_box,
    draw_with_boxes,
    held_out_pairs,
    split_tables,
    sprites,
    with_article,
)

SCHEMA = pa.schema(
    [
        *SCENE_SCHEMA,
        ("questions", pa.list_(pa.string())),
        ("question_types", pa.list_(pa.string())),
        ("boxes", pa.list_(BOXES)),
        ("box_ids", pa.list_(pa.list_(pa.int64()))),
        ("answer_index", pa.list_(pa.int64())),
        ("qa_id", pa.list_(pa.int64())),
    ]
)
NUM_THINGS = (7, 8)
NUM_NOUNS = 3  # few, so that most wrong boxes show the noun that is asked for
NUM_BOXES = 4
MOST = 8  # questions about a scene
EMPTY = 0.3  # chance that the question without a neighbour asks for an empty place


class Question(NamedTuple):
    """A question about a scene; `cells` are those of its boxes, the right one first."""

    kind: str
    text: str
    cells: list[int]


def tables(arguments: Namespace) -> list[Table]:
    return split_tables("emoji_pointing", SCHEMA, _rows, arguments, stream=500)


def _rows(rng: np.random.Generator, split: str, size: int, seed: int) -> Iterator[dict[str, Any]]:
    held_out, pictures = held_out_pairs(seed), sprites()
    for number in range(size):
        scene = draw_large_scene(rng, split, held_out, seed, NUM_THINGS, NUM_NOUNS)
        asked, own = questions(scene, rng), image_id(split, number)
        image, boxes = draw_with_boxes(scene, pictures, rng)
        boxes |= {cell: cell_box(cell, SIDE, rng) for cell in range(SIDE**2) if cell not in boxes}
        shown = [rng.permutation(question.cells).tolist() for question in asked]
        yield {
            **scene_columns(scene, image, split, number),
            "questions": [question.text for question in asked],
            "question_types": [question.kind for question in asked],
            "boxes": [[boxes[cell] for cell in cells] for cells in shown],
            "box_ids": [[box_id(own, cell) for cell in cells] for cells in shown],
            "answer_index": [cells.index(question.cells[0]) for question, cells in zip(asked, shown, strict=True)],
            "qa_id": [own * MOST + place for place in range(len(asked))],
        }


def questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """A question for a noun or for an empty place, and questions for things by their neighbours."""
    cells = range(SIDE**2)
    noun = None if rng.random() < EMPTY else some(list(scene.counts), 1, rng)[0]
    right = [cell for cell in cells if scene.cells.get(cell) == noun]
    wrong = [cell for cell in cells if cell not in right]
    kind, text = ("thing", f"which one is {with_article(noun)}") if noun else ("empty", "which place is empty")
    asked = [Question(kind, text, [*some(right, 1, rng), *some(wrong, NUM_BOXES - 1, rng)])]
    for found in some(references(scene), MOST - len(asked), rng):
        # Elsewhere the boxes would tell that the place cannot be meant.
        possible = [
            cell for cell in cells if scene.beside(cell, OPPOSITE[found.side]) is not None and cell != found.cell
        ]
        wrong = sorted(some(possible, len(possible), rng), key=lambda cell: scene.cells.get(cell) != found.noun)
        text = f"which {found.noun} is {found.place}"
        asked.append(Question("beside", text, [found.cell, *wrong[: NUM_BOXES - 1]]))
    return asked


SOURCES = {
    "emoji_pointing": EmbeddedSource(
        "questions about scenes of emoji, answered by pointing (embedded, from a seed)", tables, add_options
    )
}
