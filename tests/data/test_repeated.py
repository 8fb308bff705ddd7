"""Finding and remembering repeated texts."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tiny
from vlc.data import repeated
from vlc.data.repeated import cache_folder, find_repeated, repeated_texts


def _table(path: Path, texts: list[list[str | None]], batch_rows: int = 100, kind=None) -> Path:
    table = pa.table({"caption": pa.array(texts, kind or pa.list_(pa.string()))})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return path


def _naive(texts: list[list[str | None]]) -> list[int]:
    numbered = [(number, row[:place], text) for row in texts for number, (place, text) in enumerate(enumerate(row))]
    found = [text in earlier for _, earlier, text in numbered]
    return np.flatnonzero(found).tolist()


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "é", "bb", "", None]), max_size=6), max_size=12),
    st.integers(1, 5),
    st.integers(1, 8),
    st.sampled_from([pa.list_(pa.string()), pa.large_list(pa.large_string())]),
)
def test_agrees_with_a_plain_list(tmp_path_factory, texts, batch_rows, at_once, kind):
    path = _table(tmp_path_factory.mktemp("repeated") / "t.arrow", texts, batch_rows, kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeated, "_AT_ONCE", at_once)
        assert find_repeated(path, "caption").tolist() == _naive(texts)


def test_rows_of_one_plain_string_have_none(tmp_path):
    path = tiny.write_table(tmp_path / "t.arrow", {"caption": ["x", "x"]})
    assert not len(find_repeated(path, "caption"))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Remembers however small a file is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(repeated, "_WORTH_KEEPING", 0)
    return cache_folder()


@pytest.fixture
def looks(monkeypatch) -> list[Path]:
    """The files that were looked at."""
    seen = []

    def find(path: Path, column: str) -> np.ndarray:
        seen.append(path)
        return find_repeated(path, column)

    monkeypatch.setattr(repeated, "find_repeated", find)
    return seen


def test_a_file_is_looked_at_once_until_it_changes(tmp_path, cache, looks):
    path = _table(tmp_path / "t.arrow", [["x", "x", "y"]])
    assert [repeated_texts(path, "caption", 3).tolist() for _ in range(3)] == [[1]] * 3
    assert len(looks) == 1
    _table(path, [["x", "y", "x", "x"]])
    assert repeated_texts(path, "caption", 4).tolist() == [2, 3]
    assert len(looks) == 2


@pytest.mark.parametrize("content", [b"", b"no array"])
def test_what_was_remembered_badly_is_looked_up_again(tmp_path, cache, looks, content):
    path = _table(tmp_path / "t.arrow", [["x", "x"]])
    repeated_texts(path, "caption", 2)
    (kept,) = (cache / "repeated_texts").iterdir()
    kept.write_bytes(content)
    assert repeated_texts(path, "caption", 2).tolist() == [1]
    assert len(looks) == 2


def test_nothing_is_remembered_where_that_is_not_possible(tmp_path, cache, monkeypatch):
    (tmp_path / "cache").write_text("a file where the folder should be")
    path = _table(tmp_path / "t.arrow", [["x", "x"]])
    assert repeated_texts(path, "caption", 2).tolist() == [1]


def test_a_replaced_file_of_equal_size_and_time_is_looked_at_again(tmp_path, cache, looks):
    path = _table(tmp_path / "t.arrow", [["x", "x", "y"]])
    status = path.stat()
    assert repeated_texts(path, "caption", 3).tolist() == [1]
    other = _table(tmp_path / "other.arrow", [["x", "y", "y"]])
    assert other.stat().st_size == status.st_size
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(other, path)
    assert repeated_texts(path, "caption", 3).tolist() == [2]


def test_what_was_remembered_and_damaged_is_looked_up_again(tmp_path, cache, looks):
    path = _table(tmp_path / "t.arrow", [["x", "x", "x"]])
    assert repeated_texts(path, "caption", 3).tolist() == [1, 2]
    (kept,) = (cache / "repeated_texts").iterdir()
    good = kept.read_bytes()
    for byte in range(len(good)):
        kept.write_bytes(good[:byte] + bytes([good[byte] ^ 1]) + good[byte + 1 :])
        assert repeated_texts(path, "caption", 3).tolist() == [1, 2]
    for size in range(len(good)):
        kept.write_bytes(good[:size])
        assert repeated_texts(path, "caption", 3).tolist() == [1, 2]
    assert len(looks) == 1 + 2 * len(good)
