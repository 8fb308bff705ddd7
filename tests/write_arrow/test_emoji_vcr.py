"""Grounded questions: deterministic, with one true answer and one true rationale, which only picture and tags tell."""

from pathlib import Path

import pytest

from tests.write_arrow.conftest import check_boxes, check_seed, shown, write_embedded
from vlc.data.catalog import CATALOG
from write_arrow.sources import emoji_vcr
from write_arrow.sources.emoji_scenes import Scene, held_out_pairs, plural, split_of, with_article

SIZES = ["--num-train", "40", "--num-val", "5", "--num-test", "5", "--num-held-out", "5"]


def _write(folder: Path, *words: str) -> dict[str, list[dict]]:
    return write_embedded(emoji_vcr, folder, *SIZES, *words)


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> dict[str, list[dict]]:
    return _write(tmp_path_factory.mktemp("questions"))


def _named(row: dict, tags: list[int]) -> list[int]:
    """The cells of the things that words name."""
    return [row["box_ids"][tag - 1] % 9 for tag in tags if tag]


def _alike(cells: list[int], scene: Scene) -> bool:
    return len(set(cells)) == 2 and len({scene.cells[cell] for cell in cells}) == 1


def _is_answer(question: str, asked: int, answer: str, answered: list[int], scene: Scene) -> bool:
    """Whether an answer is true. asked, answered: the cells of the things that question and answer name."""
    if question == "what is thing":
        return with_article(scene.cells[asked]) == answer
    assert question == "what is like thing"
    return answer == "thing" and _alike([asked, *answered], scene)


def _is_reason(rationale: str, meant: list[int], scene: Scene) -> bool:
    """Whether a rationale is true of the things that it names."""
    if rationale == "thing is like thing":
        return _alike(meant, scene)
    return _alike(meant, scene) and rationale == f"thing and thing are {plural(scene.cells[meant[0]])}"


def test_the_seed_fixes_every_byte(tmp_path):
    check_seed(_write, tmp_path)


def test_boxes_lie_where_things_stand(splits):
    for row in splits["train"]:
        check_boxes(row, dict(zip(row["box_ids"], row["boxes"], strict=True)))
        assert sorted(number % 9 for number in row["box_ids"]) == row["cells"]
        assert set(row["box_names"]) == {"thing"}


def test_one_answer_is_true(splits):
    kinds, places = set(), set()
    for rows in splits.values():
        for row in rows:
            names = ("questions", "question_tags", "answers", "answer_tags", "answer_index", "question_types")
            for question, tags, answers, answer_tags, place, kind in zip(*(row[name] for name in names), strict=True):
                (asked,) = _named(row, tags)
                choices = zip(answers, answer_tags, strict=True)
                true = [_is_answer(question, asked, text, _named(row, own), shown(row)) for text, own in choices]
                assert [number for number, holds in enumerate(true) if holds] == [place]
                kinds.add(kind)
                places.add(place)
    assert kinds == {"name", "same"}
    assert places == set(range(4))


def test_one_rationale_is_true_and_about_what_was_asked(splits):
    places = set()
    for rows in splits.values():
        for row in rows:
            names = ("given_question_tags", "given_answer_tags", "rationales", "rationale_tags")
            for tags, answered, rationales, rationale_tags, place in zip(
                *(row[name] for name in names), row["rationale_index"], strict=True
            ):
                scene, (asked,) = shown(row), _named(row, tags)
                meant = [_named(row, own) for own in rationale_tags]
                true = [_is_reason(text, own, scene) for text, own in zip(rationales, meant, strict=True)]
                assert [number for number, holds in enumerate(true) if holds] == [place]
                assert {own[0] for own in meant} == {asked}
                assert _named(row, answered) in ([], [meant[place][1]])
                places.add(place)
    assert places == set(range(4))


def test_wrong_choices_are_in_the_scene_and_the_given_answer_is_the_right_one(splits):
    for rows in splits.values():
        for row in rows:
            shown_nouns = {with_article(noun) for noun in row["objects"]} | {"thing"}
            for answers, place, given, text in zip(
                *(row[name] for name in ("answers", "answer_index", "given_answer_index", "given_answers")), strict=True
            ):
                assert set(answers) <= shown_nouns
                assert (given, text) == (place, answers[place])


def test_several_things_could_be_meant(splits):
    """Without the tag of a question, the things of three nouns or more fit it."""
    for row in splits["train"]:
        assert sum(count > 1 for count in shown(row).counts.values()) >= 3


def test_scenes_are_divided_as_the_other_scenes(splits):
    held_out = held_out_pairs(0)
    for split, rows in splits.items():
        assert {split_of(shown(row), held_out, 0) for row in rows} == {split} == {row["split"] for row in rows}


def test_ids_are_unique_and_columns_are_those_the_catalogue_reads(splits):
    ids = [number for rows in splits.values() for row in rows for number in row["annot_id"]]
    assert len(ids) == len(set(ids))
    for name in ("emoji_vcr_qa", "emoji_vcr_qar"):
        spec = CATALOG[name]
        assert spec.columns(frozenset(spec.fields)) <= set(splits["train"][0])
