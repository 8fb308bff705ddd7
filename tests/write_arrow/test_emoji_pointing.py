"""Pointing: deterministic, one right box of four, and no use of boxes or question alone."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from tests.write_arrow.conftest import check_boxes, check_seed, shown, write_embedded
from vlc.data.catalog import CATALOG
from write_arrow.sources import emoji_pointing
from write_arrow.sources.emoji_boxes import draw_large_scene
from write_arrow.sources.emoji_pointing import NUM_NOUNS, NUM_THINGS, questions
from write_arrow.sources.emoji_scenes import OPPOSITE, SIDES, Scene, held_out_pairs, split_of, with_article

SIZES = ["--num-train", "40", "--num-val", "5", "--num-test", "5", "--num-held-out", "5"]


def _write(folder: Path, *words: str) -> dict[str, list[dict]]:
    return write_embedded(emoji_pointing, folder, *SIZES, *words)


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> dict[str, list[dict]]:
    return _write(tmp_path_factory.mktemp("scenes"))


def _right(question: str, scene: Scene) -> set[int]:
    """The cells that answer a question."""
    if question == "which place is empty":
        return set(range(9)) - scene.cells.keys()
    if question.startswith("which one is "):
        return {
            cell for cell, noun in scene.cells.items() if with_article(noun) == question.removeprefix("which one is ")
        }
    side = next(side for side in SIDES if f" is {side} " in question)
    noun, other = question.removeprefix("which ").split(f" is {side} ")
    near = {cell for cell in scene.cells if scene.neighbour(cell, OPPOSITE[side]) == other.split()[1]}
    return {cell for cell in near if scene.cells[cell] == noun}


def test_the_seed_fixes_every_byte(tmp_path):
    check_seed(_write, tmp_path)


def test_boxes_lie_where_things_stand_or_nothing_stands(splits):
    for rows in splits.values():
        for row in rows:
            for ids, boxes in zip(row["box_ids"], row["boxes"], strict=True):
                check_boxes(row, dict(zip(ids, boxes, strict=True)))


def test_one_box_of_four_is_right(splits):
    kinds, places = set(), set()
    for rows in splits.values():
        for row in rows:
            columns = (row[name] for name in ("questions", "question_types", "box_ids", "answer_index"))
            for question, kind, ids, place in zip(*columns, strict=True):
                assert len(set(ids)) == 4
                right = _right(question, shown(row))
                assert [number for number, one in enumerate(ids) if one % 9 in right] == [place]
                kinds.add(kind)
                places.add(place)
    assert kinds == {"thing", "beside", "empty"}
    assert places == set(range(4))


def test_boxes_and_question_alone_tell_nothing():
    """Each of the nine places is right as often as it is offered, for each kind of question and each side."""
    rng, held_out = np.random.default_rng(0), held_out_pairs(0)
    offered, right = defaultdict(Counter), defaultdict(Counter)
    for _ in range(1500):
        for question in questions(draw_large_scene(rng, "test", held_out, 0, NUM_THINGS, NUM_NOUNS), rng):
            side = next((side for side in SIDES if side in question.text), question.kind)
            offered[side].update(question.cells)
            right[side][question.cells[0]] += 1
    assert offered.keys() == {*SIDES, "thing", "empty"}
    for side, counts in offered.items():
        for cell, count in counts.items():
            assert right[side][cell] / count == pytest.approx(0.25, abs=0.08), (side, cell)


def test_scenes_are_divided_as_the_other_scenes(splits):
    held_out = held_out_pairs(0)
    for split, rows in splits.items():
        assert {split_of(shown(row), held_out, 0) for row in rows} == {split} == {row["split"] for row in rows}


def test_question_ids_are_unique_and_columns_are_those_the_catalogue_reads(splits):
    ids = [number for rows in splits.values() for row in rows for number in row["qa_id"]]
    assert len(ids) == len(set(ids))
    spec = CATALOG["emoji_pointing"]
    assert spec.columns(frozenset(spec.fields)) <= set(splits["train"][0])
