"""The table of several tests: columns, missing values, and folders that cannot be compared."""

import json
import re

import pytest

from vlc.common.errors import UserError
from vlc.evaluation.compare import main
from vlc.evaluation.results import Results


@pytest.fixture
def tests(tmp_path):
    """Three log folders: two tasks alone, and both together."""
    values = {
        "single/vqa/version_1": {"vqa/test/score": 0.5},
        "single/refer/version_0": {"refer/test/a_accuracy": 0.25, "refer/test/b_accuracy": 0.125},
        "all": {"vqa/test/score": 0.75, "refer/test/a_accuracy": 0.5, "refer/held_out/a_accuracy": 0.0},
    }
    for folder, headlines in values.items():
        Results("last.ckpt", 10, list(headlines), {**headlines, "vqa/test/loss": 7.0}).write(tmp_path / folder)
    return tmp_path


def test_columns_stand_side_by_side(tests, capsys):
    words = [f"single={tests}/single/vqa", f"{tests}/single/refer", f"all={tests}/all", "--json", f"{tests}/out.json"]
    columns = main(words)
    shown = capsys.readouterr().out
    assert re.search(r"task +split +metric +single +all", shown)
    assert re.search(r"vqa +test +score +0\.5000 +0\.7500", shown)
    assert re.search(r"refer +test +b_accuracy +0\.1250 +-", shown)
    assert re.search(r"refer +held_out +a_accuracy +- +0\.0000", shown)
    assert "loss" not in shown
    assert json.loads((tests / "out.json").read_text()) == columns
    assert main([f"one={tests}/single"]) == {"one": columns["single"]}


def test_other_metrics_of_two_tasks_stand_side_by_side_with_their_difference(tests, capsys):
    words = [f"alone={tests}/all@vqa", f"image={tests}/all@refer", "--metrics", "*score", "a_acc*", "--difference"]
    columns = main(words)
    assert columns == {
        "alone": {"*/test/score": 0.75},
        "image": {"*/test/a_accuracy": 0.5, "*/held_out/a_accuracy": 0.0},
        "difference": {},
    }
    words = [f"alone={tests}/single/vqa", f"both={tests}/all", "--metrics", "score", "loss", "--difference"]
    assert main(words)["difference"] == {"vqa/test/score": 0.25, "vqa/test/loss": 0.0}
    assert re.search(r"vqa +test +score +0\.5000 +0\.7500 +0\.2500", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{}/all"], "belongs to no column: write NAME="),
        (["a={}/all", "a={}/single"], "every column needs a name of its own"),
        (["={}/all"], "every column needs a name of its own"),
        (["a={}/nowhere"], "a=.*/nowhere is no folder: name the log folder of a run with test_only=True"),
        (["a={}/empty"], "a=.*/empty has no test inside: .* which holds metrics.json"),
        (["a={}"], "Column a has refer/test/a_accuracy twice, in .*/all and .*/refer/version_0: name one of them"),
        (["a={}/unjudged"], "Column a: .* no metric that judges a task"),
        (["a={}/damaged"], r"damaged/metrics.json does not hold the metrics of a test \(.*\): test again"),
        (["a={}/other"], r"other/metrics.json does not hold the metrics of a test \(.*\): test again"),
        (["a={}/lacking"], r"lacking/metrics.json does not hold the metrics of a test \('vqa/test/score'\)"),
        (["a={}/words"], "words/metrics.json does not hold the metrics of a test, which are numbers"),
        (["a={}/all", "--json", "{}/empty"], "is a folder"),
        (["a={}/all", "--metrics", "r_mean*"], r"Column a: .* no metric like r_mean\*"),
        (["a={}/all@nlvr2"], "Column a: .* no metric that judges a task of task nlvr2"),
    ],
)
def test_what_cannot_be_compared_is_said(tests, words, said):
    (tests / "empty").mkdir()
    contents = {
        "damaged": "{",
        "other": "[1]",
        "lacking": '{"checkpoint": "", "parameters": 1, "headlines": ["vqa/test/score"], "metrics": {}}',
        "words": '{"checkpoint": "", "parameters": 1, "headlines": ["x"], "metrics": {"x": "high"}}',
        "unjudged": '{"checkpoint": "", "parameters": 1, "headlines": [], "metrics": {"mae/test/loss": 1.0}}',
    }
    folder = words[0].rpartition("/")[2]
    if folder in contents:
        (tests / folder).mkdir()
        (tests / folder / "metrics.json").write_text(contents[folder])
    with pytest.raises(UserError, match=said):
        main([word.format(tests) for word in words])
