"""What a user meets at the command line: help, messages, exit status."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlc.common.errors import UserError
from write_arrow.__main__ import main
from write_arrow.command_line import TOOLS
from write_arrow.machine.conversion import Conversion
from write_arrow.machine.plans import Scratch
from write_arrow.machine.source import RawSource
from write_arrow.machine.storage import Folder
from write_arrow.sources import SOURCES

ROOT = Path(__file__).parents[2]


def _run(*words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "write_arrow", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)


def test_help_shows_every_layout(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(source.layout in shown for source in SOURCES.values() if isinstance(source, RawSource))
    assert all(tool in shown for tool in TOOLS)


@pytest.mark.parametrize("name", [*SOURCES, *TOOLS])
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([name, "--help"])
    assert exit_.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_mistakes_are_messages_without_traceback(tmp_path):
    done = _run("coco", "--root", str(tmp_path), "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(f"write_arrow: {tmp_path}")
    assert "train2014 is not a folder. --root should hold: karpathy/dataset_coco.json, " in done.stderr


def test_a_run_from_the_shell(raw, tmp_path):
    done = _run("f30k", "--root", str(raw / "f30k"), "--out", str(tmp_path), "--workers", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "f30k_caption_karpathy_train.arrow  4 rows" in done.stdout
    checked = _run("check", str(tmp_path), "--workers", "1")
    assert (checked.returncode, "3 files, no problems" in checked.stdout) == (0, True)
    (tmp_path / "f30k_caption_karpathy_val.arrow").write_bytes(b"ARROW1")
    checked = _run("check", str(tmp_path), "--workers", "1")
    assert (checked.returncode, checked.stderr) == (1, "")
    assert "f30k_caption_karpathy_val: cannot be read" in checked.stdout


def test_a_full_disk_is_a_message(raw, tmp_path, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

    open_partial = Folder._open_partial
    monkeypatch.setattr(Folder, "_open_partial", lambda folder, partial: Full(open_partial(folder, partial)))
    with pytest.raises(UserError, match=r"No space is left for .*f30k_caption_karpathy_train\.arrow"):
        main(["f30k", "--root", str(raw / "f30k"), "--out", str(tmp_path / "out"), "--workers", "1"])
    assert list((tmp_path / "out").iterdir()) == []


def test_plans_without_space_are_a_message(raw, tmp_path, monkeypatch):
    scratch = Scratch()
    scratch.execute("PRAGMA max_page_count=3")
    monkeypatch.setattr(
        "write_arrow.machine.source.Conversion", lambda *arguments: Conversion(*arguments, scratch=scratch)
    )
    with pytest.raises(UserError, match=r"Row plans cannot be kept \(database or disk is full\): point TMPDIR"):
        main(["coco", "--root", str(raw / "coco"), "--out", str(tmp_path), "--workers", "1"])


def test_options_that_cannot_apply_are_refused(capsys):
    for words in (
        ["nlvr2", "--seed", "1"],
        ["captions", "--compat"],
        ["text", "--workers", "2"],
        ["coco", "--limit", "0"],
    ):
        with pytest.raises(SystemExit) as exit_:
            main([words[0], "--root", "x", "--out", "y", *words[1:]])
        assert exit_.value.code == 2
