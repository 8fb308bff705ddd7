"""Dialogues about scenes: deterministic, and answered rightly out of the scene and the rounds before."""

from pathlib import Path

import pytest

from tests.write_arrow.conftest import check_seed, write_embedded
from vlc.data.catalog import CATALOG
from write_arrow.sources import emoji_visdial
from write_arrow.sources.emoji_scenes import Scene, with_article

SIZES = ["--num-train", "60", "--num-val", "5", "--num-test", "5", "--num-held-out", "5"]


def _write(folder: Path, *words: str) -> dict[str, list[dict]]:
    return write_embedded(emoji_visdial, folder, *SIZES, *words)


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> dict[str, list[dict]]:
    return _write(tmp_path_factory.mktemp("dialogues"))


def _rounds(row: dict) -> list[tuple]:
    columns = ("questions", "options", "answer_index", "question_types", "history", "round_id")
    return list(zip(*(row[column] for column in columns), strict=True))


def _right(question: str, options: list[str], said: list[str], scene: Scene) -> list[str]:
    """The options that answer a question, from what is shown and from what was said before."""
    shown = {with_article(noun) for noun in scene.counts}
    if question == "what is missing":
        return [option for option in options if option not in shown]
    return [option for option in options if option in shown and not any(text.endswith(option) for text in said)]


def test_the_seed_fixes_every_byte(tmp_path):
    check_seed(_write, tmp_path)


def test_answers_follow_from_the_scene_and_the_rounds_before(splits):
    kinds = set()
    for rows in splits.values():
        for row in rows:
            scene = Scene(dict(zip(row["cells"], row["objects"], strict=True)))
            for question, options, answer, kind, history, _ in _rounds(row):
                assert [options[answer]] == _right(question, options, [row["caption"], *history], scene)
                kinds.add(kind)
    assert kinds == {"else", "missing"}


def test_history_is_what_was_asked_and_answered(splits):
    for row in splits["train"]:
        said: list[str] = []
        for number, (question, options, answer, _, history, round_id) in enumerate(_rounds(row), start=1):
            assert (history, round_id) == (said, number)
            said += [question, options[answer]]


def test_things_that_were_named_are_among_the_options(splits):
    for row in splits["train"]:
        for question, options, _, _, history, _ in _rounds(row):
            assert len(set(options)) == len(options) == emoji_visdial.OPTIONS
            if question == "what else":
                said = [row["caption"].removeprefix("there is "), *history[1::2]]
                shown = {with_article(noun) for noun in row["objects"]}
                assert set(said) & shown <= set(options)


def test_columns_are_those_the_catalogue_reads(splits):
    spec = CATALOG["emoji_visdial"]
    assert spec.columns(frozenset(spec.fields)) <= set(splits["train"][0])
