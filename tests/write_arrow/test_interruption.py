"""kill -9 at any moment, then the same command: complete, and identical to a run that was left alone."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from tests.tiny import image_bytes
from tests.write_arrow.conftest import contents
from vlc.common.errors import UserError
from vlc.data.arrow import find_tables
from vlc.data.identity import is_journal

ROOT = Path(__file__).parents[2]
# Small batches and shards, and an announcement when writing begins.
PROGRAM = """
import sys
from write_arrow import __main__
from write_arrow.machine import writer
writer.BATCH_BYTES, writer.SHARD_ROWS = 20_000, 150
write = writer._write
def announced(*arguments):
    print("writing", flush=True)
    return write(*arguments)
writer._write = announced
__main__.main(sys.argv[1:])
"""


def test_killed_at_ten_random_moments(tmp_path):
    root = tmp_path / "raw"
    root.mkdir()
    image = image_bytes()
    for number in range(900):
        (root / f"{number:04}.jpg").write_bytes(image)
        (root / f"{number:04}.txt").write_text(f"caption {number}")
    command = [sys.executable, "-c", PROGRAM, "captions", "--root", str(root), "--workers", "1"]

    def run(out: Path, **options) -> subprocess.Popen:
        words = [*command, "--out", str(out)]
        return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)

    started = run(tmp_path / "whole")
    for line in started.stdout:
        if line == "writing\n":
            begin = time.perf_counter()
            break
    started.communicate()
    duration = time.perf_counter() - begin
    assert started.returncode == 0
    expected = contents(tmp_path / "whole")
    assert set(expected) == {f"captions_{number}.arrow" for number in range(6)}

    out, moments = tmp_path / "out", random.Random(0)
    for _ in range(10):
        process = run(out)
        while process.stdout.readline() not in ("writing\n", ""):
            pass
        time.sleep(moments.random() * 0.5 * duration)
        process.kill()
        process.communicate()
        for path in out.glob("*.arrow"):  # what has its name is whole
            assert path.read_bytes() == expected[path.name]
            assert pa.ipc.open_file(str(path)).read_all().num_rows == 150
        names = set(contents(out))
        if set(expected) <= names and not any(
            is_journal(name) for name in names
        ):  # at most a file begun anew lies beside
            assert len(find_tables(out, ("captions_*",), "captions", "captions")) == 6
        else:
            with pytest.raises(UserError):  # nothing there yet, or not all
                find_tables(out, ("captions_*",), "captions", "captions")
    assert run(out).wait() == 0
    assert contents(out) == expected
    assert len(find_tables(out, ("captions_*",), "captions", "captions")) == 6
