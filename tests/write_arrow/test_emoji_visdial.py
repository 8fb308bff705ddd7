"""Dialogues about scenes: deterministic, and answered rightly out of the scene and the rounds before."""

from argparse import ArgumentParser
from pathlib import Path

import pytest

from tests.write_arrow.conftest import table
from vlc.data.catalog import CATALOG
from write_arrow.machine.writer import write_table
from write_arrow.sources import emoji_visdial
from write_arrow.sources.emoji_scenes import Scene, plural

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
    """The answer, from what is shown and from what was asked before."""
    whole = next(text for text in [question, *reversed(said)] if text.startswith(("are there", "how many")))
    count = sum(count for noun, count in scene.counts.items() if plural(noun) in question.split())
    if whole.startswith("are there"):
        return "yes" if count else "no"
    return emoji_visdial.COUNTS[count]


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
            for question, options, answer, kind, history, _ in _rounds(row):
                assert options[answer] == _answer(question, [row["caption"], *history], scene)
                kinds.add(kind)
    assert kinds == {"exists", "count"}


def test_history_is_what_was_asked_and_answered(splits):
    for row in splits["train"]:
        said: list[str] = []
        for number, (question, options, answer, _, history, round_id) in enumerate(_rounds(row), start=1):
            assert (history, round_id) == (said, number)
            said += [question, options[answer]]


def test_all_questions_have_the_same_options(splits):
    for row in splits["train"]:
        for _, options, *_ in _rounds(row):
            assert sorted(options) == sorted(emoji_visdial.OPTIONS)


def test_many_questions_need_the_rounds_before(splits):
    rounds = [turn for row in splits["train"] for turn in _rounds(row)]
    short = [kind for question, _, _, kind, *_ in rounds if question.startswith("and ")]
    assert len(short) > 0.3 * len(rounds)
    assert set(short) == {"exists", "count"}


def test_columns_are_those_the_catalogue_reads(splits):
    spec = CATALOG["emoji_visdial"]
    assert spec.columns(frozenset(spec.fields)) <= set(splits["train"][0])
