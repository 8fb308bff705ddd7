"""Damaged arrow files: an error or the correct data, never a crash of the interpreter, never wrong rows.

Arrow files carry no checksums. So a flipped bit inside a caption, a number or an image changes just that (image decoders
notice most of it), and one inside an offset can move a boundary between neighbours; neither can be told from good data.
The tests therefore know where flips fall: those in the structure of the file must be noticed or harmless, those in the
contents must not reach further than the row or the text they hit.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.data import read_damaged
from vlc.data.ipc import record_batches

NUM_FLIPS, NUM_CUTS = 500, 40


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Twelve rows of one to three texts, which no single bit makes alike, in three record batches."""
    path = tmp_path_factory.mktemp("damage") / "t.arrow"
    counts = [1 + row % 3 for row in range(12)]
    table = pa.table(
        {
            "image": [np.random.default_rng(row).bytes(30 + row) for row in range(12)],
            "caption": [[f"{'ace'[text] * 2} {row} é" for text in range(count)] for row, count in enumerate(counts)],
            "id": [[10 * row + text for text in range(count)] for row, count in enumerate(counts)],
        }
    )
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return path


def _read(paths: list[Path]) -> list:
    """Samples or error message of each file; fails the test if one crashes the process that reads it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.data.read_damaged", *map(str, paths)], capture_output=True, text=True, timeout=100
    )
    read = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{paths[len(read)].name}: {done.stderr[-1500:]}"
    return read


def _contents(path: Path) -> list[tuple[range, str]]:
    """Where the buffers of the file lie, and the column each belongs to."""
    start = pa.memory_map(str(path)).read_buffer().address
    return [
        (range(buffer.address - start, buffer.address - start + buffer.size), column)
        for batch in record_batches(path)[1]
        for column in batch.schema.names
        for buffer in batch.column(column).buffers()
        if buffer
    ]


def _hit(path: Path, byte: int) -> str | None:
    """The column whose contents a byte belongs to; None: the structure of the file."""
    return next((column for place, column in _contents(path) if byte in place), None)


def test_flipped_bits(whole):
    rng, good = np.random.default_rng(0), whole.read_bytes()
    expected = _read([whole])[0]
    flips = sorted({(int(byte), int(bit)) for byte, bit in rng.integers((len(good), 8), size=(NUM_FLIPS, 2))})
    paths = []
    for byte, bit in flips:
        bad = bytearray(good)
        bad[byte] ^= 1 << bit
        paths.append(whole.with_name(f"{byte}_{bit}.arrow"))
        paths[-1].write_bytes(bad)
    outcomes = dict.fromkeys(("refused", "unchanged", "contents"), 0)
    for path, (byte, _), found in zip(paths, flips, _read(paths), strict=True):
        column = _hit(whole, byte)
        if isinstance(found, str):
            assert str(path) in found
            outcomes["refused"] += 1
        elif found == expected:
            outcomes["unchanged"] += 1
        else:
            assert column is not None, f"{path.name}: wrong rows from damage to the structure"
            _assert_only(column, found, expected)
            outcomes["contents"] += 1
    assert min(outcomes.values()) > 20, outcomes


def _assert_only(column: str, found: list[list], expected: list[list]) -> None:
    """Damage to one column leaves the others alone, and reaches two neighbouring cells at most."""
    assert len(found) == len(expected)
    places = {"caption": 1, "id": 2, "image": 3}
    rows = set()
    for ours, good in zip(found, expected, strict=True):
        changed = [name for name, place in places.items() if ours[place] != good[place]]
        assert ours[0] == good[0]
        assert set(changed) <= {column}
        rows |= {good[0]} if changed else set()
    assert max(rows) - min(rows) <= 1


def test_truncated_files(whole):
    good, paths = whole.read_bytes(), []
    for length in np.linspace(0, len(good) - 1, NUM_CUTS).astype(int):
        paths.append(whole.with_name(f"cut_{length}.arrow"))
        paths[-1].write_bytes(good[:length])
    for path, found in zip(paths, _read(paths), strict=True):
        assert isinstance(found, str), path
        assert "is damaged or not an Arrow IPC file" in found


def test_texts_that_are_no_unicode_are_refused(whole):
    bad = whole.read_bytes().replace("é".encode(), b"\xff\xff", 1)
    path = whole.with_name("letters.arrow")
    path.write_bytes(bad)
    assert "UTF8" in _read([path])[0]


def test_annotations_that_are_not_as_many_as_the_texts_are_refused(tmp_path):
    path = tmp_path / "t.arrow"
    table = pa.table({"image": [b"x"], "caption": [["a", "b"]], "id": [[1]]})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    assert f"Row 0 of {path}: 1 id for 2 caption" in _read([path])[0]
    assert read_damaged.SPEC.fields["id"].per_text
