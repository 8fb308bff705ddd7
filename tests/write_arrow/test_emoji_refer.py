"""Referring expressions: deterministic, true of one thing alone, and of little use without the picture."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from tests.write_arrow.conftest import check_boxes, check_seed, shown, write_embedded
from vlc.data.catalog import CATALOG
from write_arrow.sources import emoji_refer
from write_arrow.sources.emoji_refer import NUM_THINGS, draw_told_scene
from write_arrow.sources.emoji_scenes import OPPOSITE, SIDES, held_out_pairs, split_of

SIZES = ["--num-train", "40", "--num-val", "5", "--num-test", "5", "--num-held-out", "5"]


def _write(folder: Path, *words: str) -> dict[str, list[dict]]:
    return write_embedded(emoji_refer, folder, *SIZES, *words)


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> dict[str, list[dict]]:
    return _write(tmp_path_factory.mktemp("scenes"))


def _parsed(expression: str) -> tuple[str, str, str]:
    """The noun, the side and the other noun of "the dog left of an apple"."""
    side = next(side for side in SIDES if f" {side} " in expression)
    noun, other = expression.split(f" {side} ")
    return noun.removeprefix("the "), side, other.split()[1]


def test_the_seed_fixes_every_byte(tmp_path):
    check_seed(_write, tmp_path)


def test_boxes_lie_where_things_stand(splits):
    for rows in splits.values():
        for row in rows:
            check_boxes(row, dict(zip(row["box_ids"], row["boxes"], strict=True)))


def test_an_expression_is_true_of_its_target_alone_among_others_of_its_kind(splits):
    for rows in splits.values():
        for row in rows:
            scene = shown(row)
            for expression, target in zip(row["expressions"], row["ann_id"], strict=True):
                noun, side, other = _parsed(expression)
                true = [
                    cell
                    for cell, own in scene.cells.items()
                    if own == noun and scene.neighbour(cell, OPPOSITE[side]) == other
                ]
                assert true == [target % 9]
                assert scene.counts[noun] > 1


def test_targets_are_candidates_in_no_order(splits):
    places = set()
    for row in splits["train"]:
        for target, boxes, place in zip(row["ann_id"], row["target_boxes"], row["answer_index"], strict=True):
            assert row["box_ids"][place] == target
            assert [row["boxes"][place]] == boxes
            places.add(place)
        assert len(row["boxes"]) == len(row["objects"]) in NUM_THINGS
    assert places == set(range(max(NUM_THINGS)))


def test_scenes_are_divided_as_the_other_scenes(splits):
    held_out = held_out_pairs(0)
    for split, rows in splits.items():
        assert {split_of(shown(row), held_out, 0) for row in rows} == {split} == {row["split"] for row in rows}


def test_sentence_ids_are_unique_and_columns_are_those_the_catalogue_reads(splits):
    ids = [number for rows in splits.values() for row in rows for number in row["sent_id"]]
    assert len(ids) == len(set(ids))
    spec = CATALOG["emoji_refer"]
    assert spec.columns(frozenset(spec.fields.keys() - {"proposal_boxes"})) <= set(splits["train"][0])


def test_the_best_rule_without_the_picture_is_right_in_fewer_than_forty_of_a_hundred():
    """The boxes tell which places are filled, and the expression which of them have a neighbour on the right side.

    The rule that chooses the most frequent target of each such case is fitted to the scenes on which it is measured, so it
    is no worse than the best rule.
    """
    rng, held_out, targets = np.random.default_rng(0), held_out_pairs(0), defaultdict(Counter)
    for _ in range(1500):
        scene, told = draw_told_scene(rng, "test", held_out, 0)
        for cell, expression in told:
            targets[tuple(scene.cells), _parsed(expression)[1]][cell] += 1
    right = sum(max(counts.values()) for counts in targets.values())
    assert 0.2 < right / sum(counts.total() for counts in targets.values()) < 0.4
