"""Finding repeated texts."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tiny
from vlc.data import repeated
from vlc.data.repeated import repeated_texts


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
        assert repeated_texts(path, "caption").tolist() == _naive(texts)


def test_rows_of_one_plain_string_have_none(tmp_path):
    path = tiny.write_table(tmp_path / "t.arrow", {"caption": ["x", "x"]})
    assert not len(repeated_texts(path, "caption"))
