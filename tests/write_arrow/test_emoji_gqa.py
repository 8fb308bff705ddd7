"""Questions about scenes in the form of GQA: deterministic, true, and entailed where they say so."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.write_arrow.conftest import check_seed, write_embedded
from vlc.data.catalog import CATALOG
from write_arrow.sources import emoji_gqa
from write_arrow.sources.emoji_gqa import ANSWERS
from write_arrow.sources.emoji_scenes import NOUNS, PLACES, Scene, plural

SIZES = ["--num-train", "150", "--num-val", "20", "--num-test", "20", "--num-held-out", "20"]
SINGULAR = {plural(noun): noun for noun in NOUNS}


def _write(folder: Path, *words: str) -> dict[str, list[dict]]:
    return write_embedded(emoji_gqa, folder, *SIZES, *words)


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> dict[str, list[dict]]:
    return _write(tmp_path_factory.mktemp("questions"))


def _scene(row: dict) -> Scene:
    return Scene(dict(zip(row["cells"], row["objects"], strict=True)))


def _asked(row: dict) -> list[dict]:
    names = (
        "questions",
        "question_id",
        "gold_answers",
        "question_types",
        "semantic_types",
        "detailed_types",
        "entailed",
    )
    return [dict(zip(names, values, strict=True)) for values in zip(*(row[name] for name in names), strict=True)]


def _yes(true: bool) -> str:
    return "yes" if true else "no"


def _answer(question: str, scene: Scene) -> str | None:
    """The answer of a question, from its words; None where it has none."""
    counts = scene.counts
    cells = {noun: cell for cell, noun in scene.cells.items()}  # of what is there once

    def beside(noun: str, side: str) -> str | None:
        return scene.neighbour(cells[noun], side)

    if question == "how many things are there":
        return str(len(scene.cells))
    if found := re.fullmatch(r"is there an? (\w+)", question):
        return _yes(found[1] in counts)
    if found := re.fullmatch(r"is there an? (\w+) or an? (\w+)", question):
        return _yes(found[1] in counts or found[2] in counts)
    if found := re.fullmatch(r"are there both an? (\w+) and an? (\w+)", question):
        return _yes(found[1] in counts and found[2] in counts)
    if found := re.fullmatch(r"are there more (\w+) than (\w+)", question):
        return _yes(counts[SINGULAR[found[1]]] > counts[SINGULAR[found[2]]])
    if found := re.fullmatch(r"what is (left of|right of|above|below) the (\w+)", question):
        return beside(found[2], found[1])
    if found := re.fullmatch(r"where is the (\w+)", question):
        return PLACES[cells[found[1]]]
    if found := re.fullmatch(r"is the (\w+) (left of|right of|above|below) the (\w+)", question):
        return _yes(beside(found[3], found[2]) == found[1])
    if found := re.fullmatch(r"is the (\w+) (left|above) or (right of|below) the (\w+)", question):
        first = {"left": "left of"}.get(found[2], found[2])
        return found[2] if beside(found[4], first) == found[1] else found[3].removesuffix(" of")
    if found := re.fullmatch(r"is the (\w+) ((top|bottom) (left|right))", question):
        return _yes(PLACES[cells[found[1]]] == found[2])
    found = re.fullmatch(r"is an? (\w+) or an? (\w+) ((top|bottom) (left|right))", question)
    here = scene.cells[PLACES.index(found[3])]
    return here if here in (found[1], found[2]) else None


def test_the_seed_fixes_every_byte(tmp_path):
    check_seed(_write, tmp_path)


def test_answers_are_true(splits):
    kinds: Counter[tuple[str, str]] = Counter()
    for rows in splits.values():
        for row in rows:
            for asked in _asked(row):
                assert _answer(asked["questions"], _scene(row)) == asked["gold_answers"], asked
                kinds[asked["question_types"], asked["semantic_types"]] += 1
    assert {structural for structural, _ in kinds} == {"query", "verify", "choose", "compare", "logical"}
    assert {semantic for _, semantic in kinds} == {"obj", "rel", "attr", "global"}


def test_labels_are_those_of_the_answers(splits):
    for row in splits["train"]:
        assert row["answers"] == [[answer] for answer in row["gold_answers"]]
        assert row["answer_labels"] == [[ANSWERS.index(answer)] for answer in row["gold_answers"]]
        binary = ["open" if kind == "query" else "binary" for kind in row["question_types"]]
        assert row["answer_types"] == binary


def test_the_question_alone_does_not_tell_yes_from_no(splits):
    answers = Counter(
        (asked["question_types"], asked["semantic_types"], asked["gold_answers"])
        for row in splits["train"]
        for asked in _asked(row)
        if asked["gold_answers"] in ("yes", "no")
    )
    for structural, semantic, _ in list(answers):
        yes, no = (answers[structural, semantic, answer] for answer in ("yes", "no"))
        assert 0.35 < yes / (yes + no) < 0.65, (structural, semantic)


def test_what_is_entailed_follows(splits):
    """Among all scenes that a question with its answer fits, an entailed question has one answer."""
    scenes = [_scene(row) for rows in splits.values() for row in rows]
    checked = 0
    for row in splits["test"]:
        by_id = {asked["question_id"]: asked for asked in _asked(row)}
        for asked in by_id.values():
            for number in asked["entailed"]:
                other = by_id[number]
                for scene in scenes:
                    if _fits(asked, scene) and (answer := _tried(other["questions"], scene)) is not None:
                        assert answer == other["gold_answers"], (asked, other, scene)
                        checked += 1
    assert checked > 200


def _tried(question: str, scene: Scene) -> str | None:
    """The answer; None where the question speaks of what is not there, or there twice."""
    named = re.findall(r"the (\w+)", question)
    if any(scene.counts[noun] != 1 for noun in named):
        return None
    try:
        return _answer(question, scene)
    except KeyError:  # nothing stands in the cell
        return None


def _fits(asked: dict, scene: Scene) -> bool:
    return _tried(asked["questions"], scene) == asked["gold_answers"]


def test_identifiers_begin_with_zeros_and_are_unique(splits):
    ids = [asked["question_id"] for rows in splits.values() for row in rows for asked in _asked(row)]
    assert len(ids) == len(set(ids))
    assert all(len(number) == 10 and number.startswith("0") for number in ids)


def test_columns_are_those_the_catalogue_reads(splits):
    spec = CATALOG["emoji_gqa"]
    assert {column.name for column in spec.fields.values()} <= set(splits["train"][0])
