"""Reports of statements about images, and the tasks from training to an answer about a picture."""

import json
from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import GOLDEN
from vlc.configuration.config import resolve_use
from vlc.tasks import TASKS
from vlc.training.run import run
from vlc.use.predict import predict

METRICS = json.loads((GOLDEN / "tasks/statements/expected/numbers.json").read_text())["foil_metrics_OWN"]
NAMES = TASKS["foil"].options["classes"]["names"]


def test_accuracy_of_each_class():
    rows = zip(METRICS["pred"], METRICS["truth"], strict=True)
    records = [{"right": answer == truth, "gold": NAMES[truth]} for answer, truth in rows]
    values = TASKS["foil"].report.summary(records)
    assert values["accuracy/correct"] == pytest.approx(METRICS["acc_correct_captions"])
    assert values["accuracy/foil"] == pytest.approx(METRICS["acc_foils"])


def test_without_labels_there_is_no_accuracy():
    assert TASKS["snli_ve"].report.summary([{"pair_id": "a", "answer": "neutral"}]) == {}


@pytest.mark.parametrize(
    ("task", "field", "key"), [("snli_ve", "pair_id", "pairID"), ("foil", "caption_id", "caption_id")]
)
def test_judgements_are_lines_of_json(task, field, key):
    kind, content = TASKS[task].report.submission(
        [{field: number, "answer": "é", "probabilities": [0.25, 0.75], "right": True} for number in ("1-a", "2")]
    )
    assert kind == "jsonl"
    assert [json.loads(line) for line in content.splitlines()] == [
        {key: number, "label": "é", "probs": [0.25, 0.75]} for number in ("1-a", "2")
    ]


@pytest.mark.parametrize(
    ("task", "splits", "metrics"),
    [
        ("snli_ve", ("dev", "test"), {"contradiction", "neutral"}),
        ("foil", ("test",), {"correct", "foil"}),
        ("snli_ve_emoji", ("test", "held_out"), {"contradiction", "neutral", "place", "list"}),
        ("foil_emoji", ("test", "held_out"), {"correct", "foil", "place", "list"}),
    ],
)
def test_a_task_is_trained_tested_and_asked_about_a_picture(task, splits, metrics, arrows, tmp_path):
    options = {"data_root": str(arrows), "log_dir": str(tmp_path), "vit": "mae_vit_tiny_patch16", "tasks": [task]}
    trained = run(tiny.settings(**options))
    assert trained["val/the_metric"] == trained[f"{task}/{'dev' if task == 'snli_ve' else 'val'}/accuracy"]
    saved = f"{trained['log_dir']}/checkpoints/last.ckpt"
    tested = run(tiny.settings(**options, test_only=True, load_path=saved))
    names = TASKS[task].options["classes"]["names"]
    for split in splits:
        assert {f"{task}/{split}/accuracy/{name}" for name in metrics} <= set(tested)
        lines = Path(tested["log_dir"], f"{task}_{split}.jsonl").read_text().splitlines()
        assert len(lines) == tiny.ROWS * tiny.TEXTS
        for line in map(json.loads, lines):
            assert line["label"] == names[max(range(len(names)), key=line["probs"].__getitem__)]
            assert sum(line["probs"]) == pytest.approx(1)
    (tmp_path / "x.png").write_bytes(tiny.image_bytes(kind="PNG"))
    asked = {"num_gpus": 0, "load_path": saved, "image": str(tmp_path / "x.png"), "text": "there is a dog top left"}
    (record,) = predict(*resolve_use(**asked))
    assert {name for name, _ in record["answers"]} == set(names)
    assert sum(value for _, value in record["answers"]) == pytest.approx(1)
