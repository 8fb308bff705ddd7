"""Texts chosen by language and kind, and pairs of texts that are translations."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tiny
from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import _TRANSLATIONS
from vlc.data.keys import Location
from vlc.data.selection import Selection, by_language, select
from vlc.data.spec import DatasetSpec

SPEC = DatasetSpec("multi30k", {"train": ("t",)}, fields=_TRANSLATIONS, unique_texts=False)
ROWS = [
    [("a dog", "en", "translation", 0), ("ein Hund", "de", "translation", 0), ("un chien", "fr", "translation", 0)],
    [],
    [("a cat", "en", "translation", 0), ("cats", "en", "caption", 1), ("Katzen", "de", "caption", 1)],
    [("eine Kuh", "de", "translation", 4), ("a cow", "en", "translation", 4), ("a pig", "en", "translation", 5)],
]


def _source(folder: Path, rows=ROWS, max_rows: int | None = None) -> ArrowSplit:
    columns = {
        name: [[text[place] for text in row] for row in rows] for place, name in enumerate(("caption", "lang", "kind"))
    }
    columns |= {"sent_idx": [[text[3] for text in row] for row in rows], "image": [b"x"] * len(rows)}
    path = tiny.write_table(folder / "t.arrow", columns)
    return ArrowSplit([path], SPEC, "multi30k", {"image", "caption"})


def _found(source: ArrowSplit) -> list[tuple[str, ...]]:
    found = []
    for sample in range(len(source)):
        where = source.locate(sample)
        second = (source.field(where, "second_text"),) if where.second >= 0 else ()
        found.append((source.text(where), *second))
    return found


def _select(source: ArrowSplit, where=None, pairs=(), *, training: bool = True) -> list[tuple[str, ...]]:
    select(source, Selection(where or {}, pairs), "train", "task.", training=training)
    return _found(source)


def test_texts_are_chosen_by_language_and_kind_and_stay_so_in_other_processes(tmp_path):
    source = _source(tmp_path)
    assert len(source) == 9
    assert _select(source, {"lang": ("de",), "kind": ("translation",)}) == [("ein Hund",), ("eine Kuh",)]
    copied = pickle.loads(pickle.dumps(source))
    assert _found(copied) == [("ein Hund",), ("eine Kuh",)]
    assert copied.locate(1) == Location(0, 3, 0)
    with pytest.raises(IndexError):
        source.locate(2)


def test_pairs_are_translations_of_one_sentence_in_the_directions_that_are_named(tmp_path):
    source = _source(tmp_path)
    assert _select(source, pairs=("en-de",)) == [("a dog", "ein Hund"), ("a cow", "eine Kuh")]
    # A caption of another sentence, and a sentence without translation, make no pair.
    assert _select(source, pairs=("*-fr", "de-*")) == [
        ("a dog", "un chien"),
        ("ein Hund", "a dog"),
        ("ein Hund", "un chien"),
        ("eine Kuh", "a cow"),
    ]
    assert _select(source, {"lang": ("fr",)}, ("*-*",)) == [("un chien", "a dog"), ("un chien", "ein Hund")]
    where = source.locate(0)
    assert (source.field(where, "lang"), source.field(where, "second_lang")) == ("fr", "en")


def test_the_first_text_of_a_pair_may_be_of_another_kind(tmp_path):
    rows = [[("a thing", "en", "hidden", 0), ("a dog", "en", "translation", 0), ("ein Hund", "de", "translation", 0)]]
    assert _select(_source(tmp_path, rows), {"kind": ("hidden",)}, ("en-de",)) == [("a thing", "ein Hund")]


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.just("x"),
                st.sampled_from(["en", "de", "fr"]),
                st.sampled_from(["translation", "caption"]),
                st.integers(0, 2),
            ),
            max_size=5,
        ),
        min_size=1,
        max_size=6,
    )
)
def test_pairs_agree_with_two_plain_loops(tmp_path_factory, rows):
    source = _source(tmp_path_factory.mktemp("pairs"), rows)
    expected = [
        (number, first, second)
        for number, row in enumerate(rows)
        for first, (_, language, _, sentence) in enumerate(row)
        for second, (_, other, kind, number_of_sentence) in enumerate(row)
        if kind == "translation" and sentence == number_of_sentence and language != other
    ]
    try:
        select(source, Selection({}, ("*-*",)), "train", "", training=True)
        assert [(w.row, w.text, w.second) for w in map(source.locate, range(len(source)))] == expected
    except UserError:
        assert not expected


def test_samples_are_divided_by_language_or_direction(tmp_path):
    source = _source(tmp_path)
    select(source, Selection({"kind": ("translation",)}), "train", "", training=True)
    assert {name: len(chosen) for name, chosen in by_language(source).items()} == {"de": 2, "en": 4, "fr": 1}
    select(source, Selection({}, ("en-*",)), "train", "", training=True)
    assert {name: chosen[:, 3].tolist() for name, chosen in by_language(source).items()} == {
        "en-de": [1, 0],
        "en-fr": [2],
    }


def test_a_language_that_is_not_there_is_an_error_in_training_and_a_warning_in_evaluation(tmp_path):
    source = _source(tmp_path)
    with pytest.raises(
        UserError, match=r"'train' of data set 'multi30k': task.where.lang has 'xx', .* there is de, en, fr"
    ):
        _select(source, {"lang": ("en", "xx")})
    with pytest.warns(UserWarning, match="'xx'"):
        assert len(_select(source, {"lang": ("fr", "xx")}, training=False)) == 1
    with pytest.raises(UserError, match="task.where.lang has 'xx'"):
        _select(source, {"lang": ("xx",)}, training=False)
    with pytest.raises(UserError, match="task.pairs has fr-cs"):
        _select(source, pairs=("en-de", "fr-cs"))
    with pytest.raises(UserError, match=r"no text for which all of task.where=.* holds"):
        _select(source, {"lang": ("fr",), "kind": ("caption",)})


def test_data_without_languages_cannot_be_chosen_by_them(tmp_path):
    path = tiny.write_table(tmp_path / "t.arrow", {"image": [b"x"], "caption": [["a"]]})
    source = ArrowSplit([path], DatasetSpec("captions", {"train": ("t",)}), "captions", {"image", "caption"})
    with pytest.raises(UserError, match="has no kind, lang, sent_idx: leave them out"):
        _select(source, pairs=("en-de",))
