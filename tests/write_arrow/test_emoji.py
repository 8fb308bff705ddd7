"""The embedded emoji as caption tables."""

from argparse import ArgumentParser

import pyarrow as pa
import pytest

from write_arrow.machine.writer import write_table
from write_arrow.sources import emoji


def _tables(*words: str) -> dict[str, emoji.Table]:
    parser = ArgumentParser()
    emoji.add_options(parser)
    return {table.stem: table for table in emoji.tables(parser.parse_args(list(words)))}


def _rows(table: emoji.Table, folder) -> list[dict]:
    return pa.ipc.open_file(str(write_table(table, folder))).read_all().to_pylist()


def test_both_divisions_have_their_sizes():
    sizes = {stem: table.num_rows for stem, table in _tables().items()}
    assert [sizes[f"emoji_{split}"] for split in emoji.SPLITS] == [3054, 342, 385]
    assert [sizes[f"emoji_compositional_{split}"] for split in emoji.SPLITS] == [3267, 205, 309]


def test_test_rows_have_the_name_alone(tmp_path):
    for row in _rows(_tables()["emoji_test"], tmp_path):
        assert len(row["caption"]) == 1
        assert row["lang"] == ["en"]
        assert row["image"].startswith(b"\x89PNG")


def test_languages_stand_beside_their_captions(tmp_path):
    rows = _rows(_tables("--languages", "de", "ja")["emoji_val"], tmp_path)
    assert {tuple(row["lang"]) for row in rows} == {("de", "ja")}


def test_training_rows_have_names_and_keywords(tmp_path):
    rows = _rows(_tables()["emoji_compositional_train"], tmp_path)
    texts = {row["emoji"]: row["caption"] for row in rows}
    assert texts["🐕"][0] == "dog"
    assert "pet" in texts["🐕"][1]


@pytest.mark.parametrize("text", ["un\u00a0chat", "un\u202f chat", " un chat"])
def test_spaces_are_plain(text):
    assert emoji.clean(text) == "un chat"
