"""Statements about two scenes: deterministic, true where they say so, and useless without both images."""

from collections import Counter
from pathlib import Path

import pytest

from tests.write_arrow.conftest import check_seed, write_embedded
from vlc.data.catalog import CATALOG
from write_arrow.sources import emoji_nlvr2
from write_arrow.sources.emoji_scenes import NOUNS, NUMBERS, plural

SIZES = ["--num-train", "80", "--num-val", "20", "--num-test", "20", "--num-held-out", "20"]
KINDS = {"both", "only", "count", "each", "more"}


def _write(folder: Path, *words: str) -> dict[str, list[dict]]:
    return write_embedded(emoji_nlvr2, folder, *SIZES, *words)


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> dict[str, list[dict]]:
    return _write(tmp_path_factory.mktemp("pairs"))


def _is_true(statement: str, left: Counter, right: Counter) -> bool:
    """The truth of a statement, from its words."""
    words = statement.split()
    named = [noun for noun in NOUNS if noun in words or plural(noun) in words]
    if words[-2:] == ["more", "things"]:
        more, fewer = (left, right) if words[1] == "left" else (right, left)
        return sum(more.values()) > sum(fewer.values())
    if words[-1] == "things":
        return sum(left.values()) == sum(right.values())
    if words[-1] == "all":
        return left[named[0]] + right[named[0]] == NUMBERS.index(words[2])
    if words[0] == "both":
        return named[0] in left and named[0] in right
    if words[0] == "only":
        shown, other = (left, right) if words[2] == "left" else (right, left)
        return named[0] in shown and named[0] not in other
    first, second = (statement.split(" and the right ")[0].split()[-1], words[-1])
    return first in left and second in right


def _statements(rows: list[dict]) -> list[tuple[dict, str, str, str, str]]:
    columns = ("questions", "answers", "statement_types", "identifiers")
    return [(row, *told) for row in rows for told in zip(*(row[column] for column in columns), strict=True)]


def test_the_seed_fixes_every_byte(tmp_path):
    check_seed(_write, tmp_path)


def test_sizes(splits):
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 80, "val": 20, "test": 20, "held_out": 20}


def test_statements_are_true_where_they_say_so(splits):
    kinds = set()
    for rows in splits.values():
        for row, statement, answer, kind, _ in _statements(rows):
            left, right = Counter(row["objects_0"]), Counter(row["objects_1"])
            assert str(_is_true(statement, left, right)) == answer, statement
            kinds.add(kind)
    assert kinds == KINDS


def test_a_statement_alone_says_nothing(splits):
    """Each is true of one pair and false of another."""
    truths: dict[str, list[str]] = {}
    for _, statement, answer, _, identifier in _statements(splits["train"]):
        split, group, _, number = identifier.split("-")
        truths.setdefault(f"{split}-{group}-{number} {statement}", []).append(answer)
    assert {tuple(sorted(answers)) for answers in truths.values()} == {("False", "True")}


def test_twins_share_a_scene_on_one_side(splits):
    rows = splits["test"]
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        assert any(one[side] == other[side] for side in ("objects_0", "objects_1"))


def test_identifiers_are_unique(splits):
    names = [identifier for rows in splits.values() for *_, identifier in _statements(rows)]
    assert len(names) == len(set(names))


def test_columns_are_those_the_catalogue_reads(splits):
    spec = CATALOG["emoji_nlvr2"]
    assert spec.columns(frozenset(spec.fields)) <= set(splits["train"][0])
