"""GQA from its files to the official metrics: trained, tested on labelled and withheld splits, and scored again."""

import json
from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import GOLDEN
from vlc.evaluation.official.__main__ import main as official
from vlc.training.run import run
from write_arrow.__main__ import main as write

RAW = GOLDEN / "tasks/gqa/raw"


@pytest.fixture(scope="module")
def arrows(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("arrows")
    for form in ("balanced", "all"):
        write(["gqa", "--root", str(RAW), "--out", str(folder), "--workers", "1", "--questions", form])
    return folder


def test_from_questions_to_official_metrics(arrows, small_vit, tmp_path):
    options = {"data_root": str(arrows), "log_dir": str(tmp_path), "vit": small_vit, "tasks": ["gqa"]}
    options |= {"gqa.answers.num_answers": 11, "gqa.answers.loss": "cross_entropy"}
    trained = run(tiny.settings(**options, learning_rate=1e-2, max_steps=30))
    assert trained["gqa/val/score"] > 0.1
    saved = f"{trained['log_dir']}/checkpoints/last.ckpt"
    test = {"gqa.datasets": ["gqa_all"], "splits": ["val", "submission"], "test_only": True, "load_path": saved}
    tested = run(tiny.settings(**options, **test))
    asked = json.loads((RAW / "submission_all_questions.json").read_text())
    answered = json.loads((Path(tested["log_dir"]) / "gqa_submission.json").read_text())
    assert sorted(each["questionId"] for each in answered) == sorted(asked)
    assert set(answered[0]) == {"questionId", "prediction"}
    assert not [name for name in tested if name.startswith("gqa/submission/")]
    predictions = str(Path(tested["log_dir"]) / "gqa_val.json")
    metrics = official(["gqa", "--questions", str(RAW / "val_all_questions.json"), "--predictions", predictions])
    for name in ("accuracy", "binary", "open", "consistency"):
        assert tested[f"gqa/val/{name}"] == pytest.approx(metrics[name] / 100)
    assert tested["gqa/val/distribution"] == pytest.approx(metrics["distribution"])
    for kind in ("structural", "semantic"):
        for name, (percent, _) in metrics[kind].items():
            assert tested[f"gqa/val/accuracy/{kind}/{name}"] == pytest.approx(percent / 100)


def test_testdev_is_what_is_tested(arrows, small_vit, tmp_path):
    """Consistency needs the questions that are not balanced, which testdev's file of balanced questions lacks."""
    options = {"data_root": str(arrows), "log_dir": str(tmp_path), "vit": small_vit, "tasks": ["gqa"]}
    trained = run(tiny.settings(**options))
    saved = f"{trained['log_dir']}/checkpoints/last.ckpt"
    tested = run(tiny.settings(**options, test_only=True, load_path=saved))
    assert {"gqa/testdev/score", "gqa/testdev/accuracy", "gqa/testdev/distribution"} <= set(tested)
    assert len(json.loads((Path(tested["log_dir"]) / "gqa_testdev.json").read_text())) == 10
