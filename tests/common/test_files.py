"""Files that appear whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vlc.common.errors import UnwritableFile
from vlc.common.files import write_atomically

_WRITES_FOR_LONG = """
import sys, time
from vlc.common.files import write_atomically
with write_atomically(sys.argv[1]) as partial:
    partial.write_text("half")
    print(partial, flush=True)
    time.sleep(60)
"""


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_target_is_the_old_one_until_the_new_one_is_complete(tmp_path):
    target = tmp_path / "folder" / "file"
    for content in ("first", "second"):
        with write_atomically(target) as partial:
            partial.write_text(content)
            assert partial.name == f".file.{os.getpid()}.tmp"
            assert partial.parent == target.parent
            assert not target.exists() if content == "first" else target.read_text() == "first"
        assert target.read_text() == content
    assert _names(target.parent) == ["file"]
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_exception_leaves_the_target_and_nothing_else(tmp_path):
    target = tmp_path / "file"
    target.write_text("good")
    with pytest.raises(ZeroDivisionError), write_atomically(target) as partial:
        partial.write_text(str(1 // (partial.write_text("bad") - 3)))
    assert target.read_text() == "good"
    assert _names(tmp_path) == ["file"]


def test_content_and_name_are_on_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}")))
    with write_atomically(tmp_path / "file") as partial:
        partial.write_text("x")
    assert synced == [str(partial), str(tmp_path)]


def test_files_of_dead_writers_are_removed_and_those_of_living_ones_kept(tmp_path):
    target = tmp_path / "file"
    target.write_text("good")
    (tmp_path / ".file.abc.tmp").touch()  # not ours
    (tmp_path / ".other.1.tmp").touch()
    command = [sys.executable, "-c", _WRITES_FOR_LONG, str(target)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        dead, living = (Path(writer.stdout.readline().strip()) for writer in writers)
        writers[0].send_signal(signal.SIGKILL)
        writers[0].wait()
        assert dead.exists()
        assert target.read_text() == "good"
        with write_atomically(target) as partial:
            partial.write_text("better")
        assert _names(tmp_path) == sorted([".file.abc.tmp", ".other.1.tmp", living.name, "file"])
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdout.close()


def test_a_link_is_followed_and_a_device_written_to(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with write_atomically(tmp_path / "link") as partial:
        partial.write_text("x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "x"
    with write_atomically(Path(os.devnull)) as partial:
        assert partial == Path(os.devnull)


@pytest.mark.parametrize("name", ["folder", "file/below"])
def test_what_cannot_be_written_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableFile, match=f"{tmp_path / name} cannot be written"), write_atomically(tmp_path / name):
        raise AssertionError("the block is not entered")


def test_a_full_disk_is_told_and_leaves_the_target(tmp_path):
    target = tmp_path / "file"
    target.write_text("good")
    with pytest.raises(UnwritableFile, match="No space left"), write_atomically(target) as partial:
        Path("/dev/full").write_text(str(partial.write_text("half")))
    assert target.read_text() == "good"
    assert _names(tmp_path) == ["file"]
