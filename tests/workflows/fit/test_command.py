"""The whole command, with a two-layer model: from a table to the result."""

import csv
import json

import pytest
from PIL import Image

from tests.workflows.fit.tables import questions, written
from vlc.common.errors import UserError
from vlc.configuration.config import resolve_use
from vlc.workflows.fit import command, fit

SMALL = {"num_gpus": 0, "image_size": 16, "vit": "small_vit", "weight_decay": 0.0}


def _fit(**updates):
    config, given = resolve_use(**updates)
    return fit(config, given, updates)


def test_labels_of_colours_are_learnt(small_vit, tmp_path, capsys):
    colours = {"red": (230, 20, 20), "green": (20, 200, 40), "blue": (30, 30, 220)}
    rows = []
    for number in range(60):
        name = list(colours)[number % 3]
        pixels = tuple(value + number // 6 for value in colours[name])
        Image.new("RGB", (16, 16), pixels).save(tmp_path / f"{number}.png")
        rows.append({"file": f"{number}.png", "colour": name})
    rows.append({"file": "missing.png", "colour": "red"})
    with (tmp_path / "colours.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    updates = SMALL | {"table": str(tmp_path / "colours.csv"), "out": str(tmp_path / "out"), "learning_rate": 3e-3}
    metrics = _fit(**updates, max_steps=40, val_check_interval=40, fit={"split": [0.6, 0.2, 0.2]})
    said = capsys.readouterr().out
    assert metrics["fit_colours/test/acc1"] > 80, metrics
    assert "Task: labels, an image has a label" in said
    assert "3 classes: red 20, green 20, blue 20" in said
    assert "1 rows are left out" in said
    (left_out,) = map(json.loads, (tmp_path / "out/rejected.jsonl").read_text().splitlines())
    assert left_out["path"].endswith("colours.csv, line 62")
    assert (tmp_path / "out/report.html").stat().st_size > 10_000
    assert f"python run.py predict with load_path={tmp_path}/out/log/fit_colours_seed0_from_" in said
    chance = next(line for line in said.splitlines() if line.strip().startswith("chance"))
    assert chance.split() == ["chance", "33.3"]


def test_a_second_call_converts_nothing(small_vit, tmp_path, capsys):
    table = written(tmp_path, questions(tmp_path, 30))
    updates = SMALL | {"table": str(table), "out": str(tmp_path / "out"), "max_steps": 1, "learning_rate": 1e-5}
    metrics = _fit(**updates)
    said = capsys.readouterr().out
    assert {"fit_table/test/score", "fit_table/test/score_without_text"} <= metrics.keys()
    assert "A tokenizer of" in said
    assert "has been written" not in said
    arrow = tmp_path / "out/arrows/fit_table_train.arrow"
    before = arrow.stat().st_mtime_ns
    examples = command._examples(table, _settings(), folder := command.Folder(tmp_path / "out", "fit_table"), 0)
    command._convert(examples, folder)
    assert "has been written from the same rows and images already" in capsys.readouterr().out
    assert arrow.stat().st_mtime_ns == before
    other = command._examples(table, _settings(), folder, 1)
    command._convert(other, folder)
    assert arrow.stat().st_mtime_ns > before, "another seed divides otherwise"


def _settings():
    config, _ = resolve_use()
    return command.UseSettings.from_config(config).fit


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({}, "table=FILE is missing"),
        ({"table": "none.csv"}, "table=none.csv does not exist"),
        ({"table": "none.csv", "load_path": "none.ckpt"}, "load_path=none.ckpt does not exist"),
        ({"table": "none.csv", "data_root": "x"}, "data_root is given, but fit makes it of the table"),
        ({"fit": {"split": [0.5, 0.5]}}, "three shares above 0"),
        ({"fit": {"colums": {}}}, "Unknown option of fit 'colums'. Did you mean columns"),
        ({"fit": {"boxes": "center"}}, "fit.boxes='center' is not valid: expected xyxy or xywh"),
    ],
)
def test_mistakes_in_keys(tmp_path, updates, message):
    with pytest.raises(UserError, match=message):
        _fit(**updates | {"out": str(tmp_path / "out")})


def test_keys_of_training_are_passed_on():
    assert command._flat({"seed": 1, "answers": {"loss": "bce"}}) == {"seed": 1, "answers.loss": "bce"}
