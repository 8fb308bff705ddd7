"""Visual7W's pointing, GuessWhat's guesser and its oracle: from training to the files of a test."""

import json
from pathlib import Path

import pytest

from tests import tiny
from vlc.tasks import TASKS
from vlc.training.run import run


@pytest.mark.parametrize(
    ("task", "suffix", "metrics", "keys"),
    [
        ("visual7w", "json", {"accuracy", "coverage", "accuracy/count"}, {"qa_id", "question", "candidates"}),
        ("guesswhat", "json", {"accuracy", "coverage"}, {"game_id", "status", "box", "box_id", "right"}),
        ("guesswhat_oracle", "jsonl", {"accuracy", "error", "error/count"}, {"question_id", "label", "probs"}),
    ],
)
def test_a_task_is_trained_and_tested(task, suffix, metrics, keys, arrows, tmp_path):
    options = {"data_root": str(arrows), "log_dir": str(tmp_path), "vit": "mae_vit_tiny_patch16", "tasks": [task]}
    trained = run(tiny.settings(**options))
    assert trained["val/the_metric"] == trained[f"{task}/{'val' if task == 'visual7w' else 'valid'}/accuracy"]
    saved = f"{trained['log_dir']}/checkpoints/last.ckpt"
    tested = run(tiny.settings(**options, test_only=True, load_path=saved))
    assert {f"{task}/test/{name}" for name in metrics} <= set(tested)
    text = Path(tested["log_dir"], f"{task}_test.{suffix}").read_text()
    entries = json.loads(text) if suffix == "json" else [json.loads(line) for line in text.splitlines()]
    assert len(entries) == tiny.ROWS * tiny.TEXTS
    assert all(keys <= set(entry) for entry in entries)


def test_errors_are_the_shares_of_wrong_answers():
    records = [
        {"right": right, "question_type": kind} for right, kind in ((True, "where"), (False, "where"), (False, None))
    ]
    assert TASKS["guesswhat_oracle"].report.summary(records) == {"error": pytest.approx(2 / 3), "error/where": 0.5}
    assert TASKS["guesswhat_oracle"].report.summary([{"question_id": 5}]) == {}
