"""The moving average of a run of run.py: its values, its metrics, and its resuming."""

from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.resuming import last_checkpoint
from vlc.common.errors import UserError
from vlc.training.run import run

RECIPE = "task_finetune_vqa_mae_randaug"


@pytest.fixture
def options(arrows, small_vit, tmp_path) -> dict:
    return {"data_root": str(arrows), "vit": small_vit, "log_dir": str(tmp_path / "log"), "checkpoint_every": 1}


def _stored(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def test_the_average_follows_the_weights_is_measured_and_resumed(options, tmp_path):
    more = {"optimizer.ema": 0.5, "learning_rate": 1e-2, "schedule.kind": "constant", "warmup_steps": 0}
    whole = run(tiny.settings(RECIPE, **options | more, max_steps=2))
    state = _stored(last_checkpoint(tmp_path))
    assert state["ema"].keys() == state["state_dict"].keys()
    changed = [name for name, value in state["ema"].items() if not torch.equal(value, state["state_dict"][name])]
    assert any(name.startswith("encoder.") for name in changed)
    metrics = {name.removeprefix("ema/"): value for name, value in whole.items() if name.startswith("ema/")}
    assert metrics.keys() == {name for name in whole if name.startswith("vqa/val/")}
    assert metrics != {name: whole[name] for name in metrics}

    halves = options | more | {"log_dir": str(tmp_path / "halves/log")}
    run(tiny.settings(RECIPE, **halves, max_steps=1))
    first = _stored(last_checkpoint(tmp_path / "halves"))
    resumed = run(tiny.settings(RECIPE, **halves, max_steps=2, resume_from=str(last_checkpoint(tmp_path / "halves"))))
    again = _stored(Path(resumed["log_dir"], "checkpoints/last.ckpt"))
    for name, value in state["ema"].items():
        assert torch.equal(value, again["ema"][name]), name
        if value.is_floating_point():
            expected = (first["ema"][name] + again["state_dict"][name]) / 2
            torch.testing.assert_close(value, expected)


def test_a_stored_average_is_tested(options, tmp_path):
    run(tiny.settings(RECIPE, **options, max_steps=1))
    tested = {**options, "test_only": True, "splits": ["val"], "optimizer.ema": 0.5}
    tested["load_path"] = str(last_checkpoint(tmp_path))
    with pytest.raises(UserError, match="holds no moving average: leave optimizer.ema out"):
        run(tiny.settings(RECIPE, **tested))
    kept = {**options, "log_dir": str(tmp_path / "kept/log"), "optimizer.ema": 0.0}
    run(tiny.settings(RECIPE, **kept, max_steps=1))
    metrics = run(tiny.settings(RECIPE, **tested | {"load_path": str(last_checkpoint(tmp_path / "kept"))}))
    averaged = {name.removeprefix("ema/"): value for name, value in metrics.items() if name.startswith("ema/")}
    assert averaged
    assert averaged == {name: pytest.approx(metrics[name]) for name in averaged}, "a decay of 0 keeps the last weights"
