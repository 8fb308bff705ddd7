"""docs/your_own_task.md: its files are written and its commands run, as they stand there."""

import json
import os
import re
import shlex
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from docs.tables import ROOT
from tests.warm import command

PAGE = (ROOT / "docs/your_own_task.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`(mine/[\w.]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
COMMANDS = [
    shlex.split(block.replace("\\\n", " "))
    for block in re.findall(r"^```\n(python .*?)^```", PAGE, re.DOTALL | re.MULTILINE)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder that looks like that of the repository, with the files of the page."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("run.py", "vlc", "write_arrow"):
        (folder / name).symlink_to(ROOT / name)
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def run(folder: Path, *words: str) -> CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"}
    return command(*words, cwd=folder, env=environment)


def test_the_page_runs_as_it_is_written(folder):
    said = []
    for program, *words in COMMANDS:
        assert program == "python"
        done = run(folder, *words)
        assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        said.append(done.stdout)
    _, written, _, tested, answered = said
    assert "160 rows" in written
    values = dict(re.findall(r"^ farm/test/accuracy(\w*) +([\d.]+)", tested, re.MULTILINE))
    accuracy = {name: float(value) for name, value in values.items()}
    chance = 1 / 12
    assert accuracy[""] > 0.75, accuracy
    assert accuracy[""] - accuracy["_without_text"] > 0.2, accuracy
    assert accuracy["_with_wrong_images"] < chance + 0.15, accuracy
    assert "probability" in answered
    (answers,) = folder.glob("mine/result/vlc_seed0_from_last/version_0/farm_test.json")
    assert json.loads(answers.read_text())[0].keys() == {"identifier", "answer", "probabilities", "right", "gold"}


def test_mistakes_in_the_table_name_the_place(folder):
    table = (folder / "mine/animals.csv").read_text()
    write = ["-m", "write_arrow", "table", "--dataset", "mine/farm.py", "--root", "mine/pictures", "--out", "out"]
    for old, new, message in (
        ("question,", "text,", "has no column question. It has columns id, file, text, animal, split; the row in"),
        (",train", ",practice", "line 2: column split holds 'practice', expected one of train, val, test"),
        (",horse,", ",unicorn,", "animal holds 'unicorn', expected one of bear, cat, "),
    ):
        (folder / "mine/wrong.csv").write_text(table.replace(old, new))
        done = run(folder, *write, "--table", "mine/wrong.csv")
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
