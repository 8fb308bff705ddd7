"""Dialogues about scenes: deterministic, and answered rightly out of the scene and the rounds before."""

from argparse import ArgumentParser
from pathlib import Path

import pytest

from tests.write_arrow.conftest import table
from vlc.data.catalog import CATALOG
from write_arrow.machine.writer import write_table
from write_arrow.sources import emoji_visdial
from write_arrow.sources.emoji_scenes import NOUNS, PLACES, SIDES, Scene

SIZES = ["--num-train", "60", "--num-val", "5", "--num-test", "5", "--num-held-out", "5"]


def _write(folder: Path, *words: str) -> dict[str, list[dict]]:
    parser = ArgumentParser()
    emoji_visdial.add_options(parser)
    paths = [write_table(one, folder) for one in emoji_visdial.tables(parser.parse_args([*SIZES, *words]))]
    return {path.stem.removeprefix("emoji_visdial_"): table(path).to_pylist() for path in paths}


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> dict[str, list[dict]]:
    return _write(tmp_path_factory.mktemp("dialogues"))


def _rounds(row: dict) -> list[tuple]:
    columns = ("questions", "options", "answer_index", "question_types", "history", "round_id")
    return list(zip(*(row[column] for column in columns), strict=True))


def _answer(question: str, said: list[str], scene: Scene) -> str:
    """The answer, from what is shown and from what was said before; the caption is said first."""
    cells = {noun: cell for cell, noun in scene.cells.items()}
    spoken = [word for text in [*said, question] for word in text.split() if word in NOUNS]
    if question.startswith("is there"):
        return "yes" if spoken[-1] in cells else "no"
    it = cells[spoken[-1]]
    side = next((side for side in SIDES if f" {side} " in question), None)
    return PLACES[it] if side is None else scene.neighbour(it, side)


def test_the_seed_fixes_every_byte(tmp_path):
    for folder, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        _write(tmp_path / folder, "--seed", seed)
    for stem in ("train", "held_out"):
        a, b, c = ((tmp_path / folder / f"emoji_visdial_{stem}.arrow").read_bytes() for folder in "abc")
        assert a == b
        assert a != c


def test_answers_follow_from_the_scene_and_the_rounds_before(splits):
    kinds = set()
    for rows in splits.values():
        for row in rows:
            scene = Scene(dict(zip(row["cells"], row["objects"], strict=True)))
            assert len(scene.counts) == 4
            for question, options, answer, kind, history, _ in _rounds(row):
                assert options[answer] == _answer(question, [row["caption"], *history], scene)
                kinds.add(kind)
    assert kinds == {"beside", "where", "exists"}


def test_history_is_what_was_asked_and_answered(splits):
    for row in splits["train"]:
        said: list[str] = []
        for number, (question, options, answer, _, history, round_id) in enumerate(_rounds(row), start=1):
            assert (history, round_id) == (said, number)
            said += [question, options[answer]]


def test_options_are_all_that_could_be_the_answer_and_others(splits):
    for row in splits["train"]:
        for _, options, answer, *_ in _rounds(row):
            assert len(options) == len(set(options)) == emoji_visdial.OPTIONS
            kinds = [kind for kind in (PLACES, ("yes", "no"), row["objects"]) if options[answer] in kind]
            assert set(kinds[0]) < set(options)


def test_many_questions_name_no_thing(splits):
    rounds = [turn for row in splits["train"] for turn in _rounds(row)]
    assert sum("it" in turn[0].split() for turn in rounds) > 0.5 * len(rounds)


def test_columns_are_those_the_catalogue_reads(splits):
    spec = CATALOG["emoji_visdial"]
    assert spec.columns(frozenset(spec.fields)) <= set(splits["train"][0])
