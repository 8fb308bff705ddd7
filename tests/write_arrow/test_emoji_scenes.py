"""Scenes: deterministic, divided as promised, with captions and answers that are true."""

import re
from pathlib import Path

import pytest

from tests.write_arrow.conftest import check_seed, write_embedded
from vlc.data.catalog import CATALOG
from write_arrow.sources import emoji_scenes
from write_arrow.sources.emoji_scenes import ANSWERS, NOUNS, PLACES, SIDES, Scene

SIZES = ["--num-train", "300", "--num-val", "40", "--num-test", "60", "--num-held-out", "60"]


def _write(folder: Path, *words: str) -> dict[str, list[dict]]:
    return write_embedded(emoji_scenes, folder, *SIZES, *words)


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> dict[str, list[dict]]:
    return _write(tmp_path_factory.mktemp("scenes"))


def _scene(row: dict) -> Scene:
    return Scene(dict(zip(row["cells"], row["objects"], strict=True)))


def test_the_seed_fixes_every_byte(tmp_path):
    check_seed(_write, tmp_path)


def test_sizes(splits):
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 300, "val": 40, "test": 60, "held_out": 60}


def test_no_two_splits_share_an_arrangement(splits):
    arrangements = {name: {tuple(sorted(_scene(row).cells.items())) for row in rows} for name, rows in splits.items()}
    for name in ("val", "test", "held_out"):
        assert not arrangements["train"] & arrangements[name]
    assert not arrangements["val"] & arrangements["test"]


def test_every_held_out_scene_shows_a_pair_that_is_nowhere_else(splits):
    known = {pair for name in ("train", "val", "test") for row in splits[name] for pair in _scene(row).pairs}
    for row in splits["held_out"]:
        assert _scene(row).pairs - known


def test_columns_are_those_the_catalogue_reads(splits):
    for name in ("emoji_scenes", "emoji_scenes_vqa"):
        spec = CATALOG[name]
        assert spec.columns(frozenset(spec.fields)) <= set(splits["train"][0])


def test_question_ids_are_unique(splits):
    ids = [number for rows in splits.values() for row in rows for number in row["question_id"]]
    assert len(ids) == len(set(ids))


def test_answers_are_true(splits):
    kinds = set()
    for row in splits["train"]:
        scene = _scene(row)
        for question, kind, answers, labels, scores in zip(
            *(row[c] for c in ("questions", "question_types", "answers", "answer_labels", "answer_scores")), strict=True
        ):
            kinds.add(kind)
            assert [ANSWERS[label] for label in labels] == answers
            assert scores == [1.0]
            assert answers[0] in _true_answers(scene, kind, question)
    assert kinds == set(emoji_scenes.ANSWER_TYPES)


def _true_answers(scene: Scene, kind: str, question: str) -> set[str]:
    """What a careful reader of the picture would answer; worked out from the question's words."""
    noun = next((noun for noun in NOUNS if question.endswith((f" {noun}", f"the {noun}"))), None)
    placed = {(cell % 2, cell // 2): noun for cell, noun in scene.cells.items()}
    if kind == "total":
        return {str(len(placed))}
    if kind == "count":
        counted = question.removeprefix("how many ").removesuffix(" are there")
        return {str(sum(emoji_scenes.plural(other) == counted for other in placed.values()))}
    if kind == "exists":
        return {"yes" if noun in placed.values() else "no"}
    places = [place for place, other in placed.items() if other == noun]
    assert len(places) == 1, "the question is ambiguous"
    ((column, row),) = places
    if kind == "where":
        return {f"{('top', 'bottom')[row]} {('left', 'right')[column]}"}
    step = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
    side = next(side for side in SIDES if side in question)
    return {placed[column + step[side][0], row + step[side][1]]}


def test_captions_are_true(splits):
    for row in splits["train"]:
        scene, counts = _scene(row), _scene(row).counts
        listed, place, *relations = row["caption"]
        listed, *told = listed.split("; ")
        assert listed == _listed(counts)
        noun, cell = re.fullmatch(r"there is an? (\w+) ((?:top|bottom) \w+)", place).groups()
        assert scene.cells[PLACES.index(cell)] == noun
        for relation in (*told, *relations):
            first, side, second = _parsed(relation)
            assert any(noun == second and scene.neighbour(cell, side) == first for cell, noun in scene.cells.items()), (
                relation
            )


def _listed(counts) -> str:
    words = [
        emoji_scenes.with_article(noun) if n == 1 else f"{('two', 'three', 'four')[n - 2]} {emoji_scenes.plural(noun)}"
        for noun, n in counts.items()
    ]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _parsed(relation: str) -> tuple[str, str, str]:
    side = next(side for side in SIDES if f" is {side} " in relation)
    first, second = relation.split(f" is {side} ")
    return first.split(" ", 1)[1], side, second.split(" ", 1)[1]


def test_pictures_show_the_scene(splits):
    """A cell differs from the background exactly where something stands in it."""
    import io

    import numpy as np
    from PIL import Image

    for row in splits["test"]:
        pixels = np.asarray(Image.open(io.BytesIO(row["image"]))).astype(int)
        assert pixels.shape == (64, 64, 3)
        corners = [pixels[0, 0], pixels[0, -1], pixels[-1, 0], pixels[-1, -1]]
        background = np.median(corners, axis=0)
        changed = (abs(pixels - background).sum(-1) > 30).reshape(2, 32, 2, 32).sum((1, 3)).flatten()
        assert {cell for cell in range(4) if changed[cell] > 20} == set(row["cells"])


def test_places_are_named_by_cell():
    assert PLACES == ("top left", "top right", "bottom left", "bottom right")
