"""The emoji with their names in many languages."""

from argparse import Namespace

import pytest

from vlc.data.catalog import CATALOG
from write_arrow.sources import emoji, emoji_languages
from write_arrow.sources.emoji_languages import further_names

FURTHER = ("ko", "pt", "it", "fa", "tr", "id")


@pytest.fixture(scope="module")
def rows() -> dict[str, dict]:
    """The first row of each split."""
    return {table.stem: next(iter(table.rows)) for table in emoji_languages.tables(Namespace())}


def test_splits_are_compositional():
    sizes = {table.stem: table.num_rows for table in emoji_languages.tables(Namespace())}
    assert sizes == {"emoji_languages_train": 3267, "emoji_languages_val": 205, "emoji_languages_test": 309}


def test_further_names_stand_in_the_order_of_the_emoji():
    names = further_names().to_pylist()
    assert [row["image_id"] for row in names] == emoji.packaged()["image_id"].to_pylist()
    of_dog = names[emoji.packaged()["emoji"].to_pylist().index("🐕")]
    assert [of_dog[language] for language in FURTHER] == ["개", "cachorro", "cane", "سگ", "köpek", "anjing"]
    lacking = [(row["image_id"], language) for row in names for language in FURTHER if row[language] is None]
    assert len(lacking) == 3  # Indonesian has no name for the keycaps #, * and 10
    assert {language for _, language in lacking} == {"id"}


def test_training_rows_have_names_and_keywords(rows):
    row = rows["emoji_languages_train"]
    texts = list(zip(row["lang"], row["sent_idx"], strict=True))
    assert texts == [
        *((language, number) for language in emoji.LANGUAGES for number in (0, 1)),
        *((language, 0) for language in FURTHER),
    ]
    assert len(row["caption"]) == len(texts)
    assert set(row["kind"]) == {"caption"}


def test_test_rows_have_one_name_in_each_language(rows):
    row = rows["emoji_languages_test"]
    assert row["lang"] == [*emoji.LANGUAGES, *FURTHER]
    assert row["sent_idx"] == [0] * 16


def test_columns_are_those_the_catalogue_reads(rows):
    spec = CATALOG["emoji_languages"]
    assert spec.columns(frozenset(spec.fields)) <= set(rows["emoji_languages_train"])
