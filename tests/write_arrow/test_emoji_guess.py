"""Games of yes and no: deterministic, answered truly, with one thing left at their end."""

from pathlib import Path

import numpy as np
import pytest

from tests.write_arrow.conftest import check_boxes, check_seed, shown, write_embedded
from vlc.data.catalog import CATALOG
from write_arrow.sources import emoji_guess
from write_arrow.sources.emoji_boxes import draw_large_scene
from write_arrow.sources.emoji_guess import NUM_THINGS, dialogue
from write_arrow.sources.emoji_scenes import Scene, held_out_pairs, split_of, with_article

SIZES = ["--num-train", "40", "--num-val", "5", "--num-test", "5", "--num-held-out", "5"]


def _write(folder: Path, *words: str) -> dict[str, list[dict]]:
    return write_embedded(emoji_guess, folder, *SIZES, *words)


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> dict[str, list[dict]]:
    return _write(tmp_path_factory.mktemp("games"))


def _fits(cell: int, question: str, scene: Scene) -> bool:
    """Whether a question about the thing in a cell is answered with yes."""
    (row, column), asked = divmod(cell, 3), question.removeprefix("is it ")
    places = {
        "at the top": row == 0,
        "at the bottom": row == 2,
        "on the left": column == 0,
        "on the right": column == 2,
    }
    return places[asked] if asked in places else with_article(scene.cells[cell]) == asked


def _left(said: list[str], scene: Scene, *, nouns: bool = True) -> set[int]:
    """The cells whose things fit all answers; without nouns, all answers about places."""
    return {
        cell
        for cell in scene.cells
        if all(
            _fits(cell, question, scene) == (answer == "yes")
            for question, answer in zip(said[::2], said[1::2], strict=True)
            if nouns or " the " in question
        )
    }


def test_the_seed_fixes_every_byte(tmp_path):
    check_seed(_write, tmp_path)


def test_the_candidates_are_all_things_in_no_order(splits):
    places = set()
    for rows in splits.values():
        for row in rows:
            for ids, boxes, place in zip(row["box_ids"], row["boxes"], row["answer_index"], strict=True):
                check_boxes(row, dict(zip(ids, boxes, strict=True)))
                assert len(ids) == len(row["objects"])
                places.add(place)
    assert places == set(range(max(NUM_THINGS)))


def test_one_thing_fits_all_answers_and_several_fit_without_the_last(splits):
    for rows in splits.values():
        for row in rows:
            columns = (row[name] for name in ("dialogue", "questions", "box_ids", "answer_index", "status"))
            for said, last, ids, place, status in zip(*columns, strict=True):
                assert _left(said, shown(row)) == {ids[place] % 9}
                assert status == "success"
                assert last == said[-2]
                if " the " in last:
                    assert len(_left(said[:-2], shown(row))) > 1


def test_boxes_and_dialogue_alone_leave_several_things():
    """Without the picture nobody knows the nouns, and the best guess is any thing whose place fits the answers."""
    rng, held_out, chances = np.random.default_rng(0), held_out_pairs(0), []
    for _ in range(500):
        scene = draw_large_scene(rng, "test", held_out, 0, NUM_THINGS)
        for cell in scene.cells:
            chances.append(1 / len(_left(dialogue(scene, cell, rng), scene, nouns=False)))
    assert 0.3 < np.mean(chances) < 0.42


def test_scenes_are_divided_as_the_other_scenes(splits):
    held_out = held_out_pairs(0)
    for split, rows in splits.items():
        assert {split_of(shown(row), held_out, 0) for row in rows} == {split} == {row["split"] for row in rows}


def test_game_ids_are_unique_and_columns_are_those_the_catalogue_reads(splits):
    ids = [number for rows in splits.values() for row in rows for number in row["game_id"]]
    assert len(ids) == len(set(ids))
    spec = CATALOG["emoji_guess"]
    assert spec.columns(frozenset(spec.fields)) <= set(splits["train"][0])
