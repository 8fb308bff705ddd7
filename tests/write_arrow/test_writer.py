"""Files appear whole or not at all."""

import pyarrow as pa
import pytest

from write_arrow.__main__ import main
from write_arrow.machine import writer
from write_arrow.machine.writer import Table, write_table
from write_arrow.sources import SOURCES

SCHEMA = pa.schema({"image": pa.binary(), "caption": pa.list_(pa.string())})


def _rows(count: int, fail_at: int | None = None):
    for number in range(count):
        if number == fail_at:
            raise OSError("the disk is gone")
        yield {"image": bytes(100), "caption": [f"text {number}"]}


def test_rows_are_written_in_bounded_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "BATCH_BYTES", 250)
    heard = []
    path = write_table(Table("t", SCHEMA, _rows(10), 10), tmp_path / "new", heard.append)
    reader = pa.ipc.open_file(str(path))
    assert heard == [3, 3, 3, 1]
    assert reader.num_record_batches == 4
    assert reader.read_all()["caption"].to_pylist() == [[f"text {number}"] for number in range(10)]


def test_an_interrupted_write_leaves_no_file_and_keeps_the_old_one(tmp_path):
    with pytest.raises(OSError, match="the disk is gone"):
        write_table(Table("t", SCHEMA, _rows(10, fail_at=5), 10), tmp_path)
    assert not list(tmp_path.glob("*.arrow"))
    before = write_table(Table("t", SCHEMA, _rows(3), 3), tmp_path).read_bytes()
    with pytest.raises(OSError, match="the disk is gone"):
        write_table(Table("t", SCHEMA, _rows(10, fail_at=5), 10), tmp_path)
    assert (tmp_path / "t.arrow").read_bytes() == before


def test_an_empty_table_has_its_schema(tmp_path):
    path = write_table(Table("t", SCHEMA, _rows(0), 0), tmp_path)
    assert pa.ipc.open_file(str(path)).schema.names == ["image", "caption"]


def test_help_lists_every_source(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in SOURCES)
