"""Sweeps: which runs there are, what is left to do, and what the table says of them."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import tiny
from vlc.common.errors import UserError
from vlc.configuration.command_settings import SweepSettings
from vlc.configuration.config import resolve_use
from vlc.workflows.sweep import command, runs, sweep
from vlc.workflows.sweep.axes import Axes, Range, label
from vlc.workflows.sweep.runs import Asked, carry_out
from vlc.workflows.sweep.table import Setting, Spread, best_of

RECIPE = "task_finetune_vqa_emoji"


@pytest.fixture
def updates(tmp_path, small_vit) -> dict:
    small = {
        "vit": small_vit,
        "image_size": 32,
        "batch_size": 4,
        "per_gpu_batchsize": 4,
        "num_gpus": 0,
        "num_workers": 0,
    }
    data = tiny.write_dataset(tmp_path / "questions", "emoji_scenes_vqa")
    return small | {"max_steps": 1, "warmup_steps": 0, "data_root": str(data), "log_dir": str(tmp_path / "log")}


def _sweep(updates: dict, values: dict, **options) -> list[Setting]:
    given = {**updates, "sweep": {"values": values, "processes": 0, **options}}
    config, _ = resolve_use(RECIPE, **given)
    return sweep(config, [RECIPE], given)


def test_settings_are_compared_by_validation_and_what_is_done_is_not_done_again(updates, capsys, monkeypatch):
    values = {"load_path": ["", "no.ckpt"], "seed": [0, 1]}
    _sweep(updates, values, metrics=["*/val/loss"])
    said, folder = capsys.readouterr().out, Path(updates["log_dir"]) / "finetune_vqa_emoji_sweep"
    assert said.count("$ python run.py with") == 2 + 2 + 2, "training and test of two runs, and two that fail"
    assert said.count("failed: ") == 2
    assert "0 of 2" in (folder / "results.md").read_text()
    found = json.loads((folder / "results.json").read_text())
    good, bad = found["settings"]
    assert found["best"] == good["values"] == {"load_path": ""}
    tested = ["vqa/test/score", "vqa/held_out/score"]
    assert found["shown"] == {"validation": ["val/the_metric", "vqa/val/loss"], "test": tested}
    losses = [run["validation"]["vqa/val/loss"] for run in good["runs"]]
    spread = good["validation"]["vqa/val/loss"]
    assert (spread["min"], spread["max"], spread["n"]) == (min(losses), max(losses), 2)
    assert spread["mean"] == pytest.approx(sum(losses) / 2)
    assert spread["deviation"] == pytest.approx(abs(losses[0] - losses[1]) / 2**0.5)
    assert all(Path(run["checkpoint"]).is_file() and run["test"] for run in good["runs"])
    assert all("no.ckpt" in run["error"] for run in bad["runs"])

    done: list[tuple[bool, bool]] = []
    real = runs.run
    monkeypatch.setattr(
        runs, "run", lambda given: done.append((given.run.test_only, bool(given.run.resume_from))) or real(given)
    )
    values["load_path"] = [""]
    one, other = (Path(run["checkpoint"]).parents[1] for run in good["runs"])
    (test,) = [path for path in folder.rglob("metrics.json") if "seed0" in str(path)]
    shutil.rmtree(test.parent)
    facts = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps(facts | {"seconds": None}))
    _sweep(updates, values)
    assert done == [(True, False), (False, True)], "a missing test, and a training that was interrupted"
    _sweep({**updates, "max_steps": 2}, {**values, "seed": [0]}, test=False)
    assert done[2:] == [(False, False)], "another length of training is another run"
    assert (one.parent / "version_1" / "run.json").is_file()


@pytest.mark.parametrize(
    ("values", "options", "said"),
    [
        ({}, {}, "sweep.values is empty"),
        ({"learning_rate": []}, {}, "sweep.values.learning_rate=() is not valid: expected a list of values"),
        ({"learning_rate": [1e-4, 1e-4]}, {}, "values that differ"),
        ({"learning_rat": [1e-4]}, {}, "Unknown config key 'learning_rat'. Did you mean learning_rate"),
        ({"learning_rate": [1e-4, -1.0]}, {}, "learning_rate=-1.0 is not valid"),
        ({"max_steps": [1, 2]}, {}, "max_steps and sweep.values.max_steps are both given"),
        ({"learning_rate": {"low": 1e-5, "high": 1e-3}}, {}, "sweep.values.learning_rate is a range"),
        ({"learning_rate": {"low": 0, "high": 1, "log": True}}, {"search": "tpe"}, "above 0 where"),
        ({"seed": [0, 1]}, {"search": "random"}, "has nothing to search but seeds"),
        ({"seed": [0]}, {"search": "bayes"}, "sweep.search='bayes' is not valid: expected one of grid, random, tpe"),
        ({"seed": [0]}, {"trails": 3}, "Unknown option of sweep 'trails'. Did you mean trials"),
        ({"seed": [0]}, {"metrics": ["*/accuracy"]}, "'*/accuracy' is no metric of as_given seed=0. It has "),
    ],
)
def test_mistakes_are_named(updates, values, options, said):
    with pytest.raises(UserError) as error:
        _sweep({**updates, "val_check_interval": 1.0}, values, **options)
    assert said in str(error.value)


def test_keys_with_dots_and_names_without_quotes_are_axes():
    given = {
        "multitask": {"temperature": (1, 2)},
        "optim_type": "[adam,sgd]",
        "weight_decay": {"low": 0.01, "high": 0.1},
    }
    axes = Axes.of(SweepSettings(values={**given, "seed": (3,)}, search="random"))
    assert axes == Axes(
        {"multitask.temperature": (1, 2), "optim_type": ("adam", "sgd"), "weight_decay": Range(0.01, 0.1)}, (3,)
    )
    assert Axes({"a": (1, 2), "b": (3, 4)}, ()).grid() == [
        {"a": 1, "b": 3},
        {"a": 1, "b": 4},
        {"a": 2, "b": 3},
        {"a": 2, "b": 4},
    ]


def test_folders_of_settings_differ_and_are_names_of_files():
    paths = [label({"load_path": path}) for path in ("a/b.ckpt", "a_b.ckpt", "x" * 300)]
    assert len(set(paths)) == 3
    assert all("/" not in path and len(path) < 120 for path in paths)
    assert label({"learning_rate": 1e-4, "seed": 0}) == "learning_rate=0.0001,seed=0"


def test_a_command_replaces_what_was_given_and_keeps_types():
    asked = Asked((), {}, ["NAMED", "seed=4", "log_dir=here", "seed_of_none=1"])
    words = asked.command({"seed": 0, "log_dir": "a=b/c", "precision": "32", "max_steps": None})
    assert words == ["with", "NAMED", "seed_of_none=1", "seed=0", "log_dir=a=b/c", "precision='32'", "max_steps=None"]


@dataclass
class _Stub:
    """A run whose script is given a word."""

    word: str
    folder: Path
    error: str = ""
    steps: list[dict] = field(default_factory=lambda: [{"first": 1}, {"second": 2}])

    @property
    def asked(self) -> Asked:
        return Asked((), {}, [self.word])

    @property
    def log(self) -> Path:
        return self.folder / f"{self.word}.log"

    def step(self) -> dict | None:
        return self.steps.pop(0) if self.steps else None


def test_processes_run_side_by_side_and_one_that_fails_leaves_the_others(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(*sys.argv[1:])\nif 'bad' in sys.argv: sys.exit('it is broken\\n')")
    monkeypatch.setattr(sys, "argv", [str(script), "sweep"])
    stubs, ended = [_Stub(word, tmp_path) for word in ("good", "bad", "other")], []
    carry_out(stubs, 2, ended.append)
    assert sorted(one.word for one in ended) == ["bad", "good", "other"]
    assert [one.error for one in stubs] == ["", f"it is broken ({tmp_path / 'bad.log'})", ""]
    assert (tmp_path / "good.log").read_text() == "with good first=1\nwith good second=2\n"


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_a_search_repeats_its_settings_and_finds_good_ones(updates, monkeypatch, search):
    pytest.importorskip("optuna")

    def done(chosen, processes, ended) -> None:
        for one in chosen:
            one.validation = {"val/the_metric": -abs(one.values["learning_rate"] - 1e-3)}

    monkeypatch.setattr(command, "carry_out", done)
    values = {"learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}, "optim_type": ["adam", "sgd"], "seed": [0, 1]}
    found = [_sweep(updates, values, search=search, trials=12) for _ in range(2)]
    assert [one.values for one in found[0]] == [one.values for one in found[1]]
    assert len(found[0]) == 12
    assert all(1e-5 <= one.values["learning_rate"] <= 1e-1 and len(one.runs) == 2 for one in found[0])
    assert 1e-4 < best_of(found[0]).values["learning_rate"] < 1e-2


def test_one_run_has_no_deviation_and_a_setting_with_a_failed_run_is_not_chosen():
    assert Spread.of([0.5]) == Spread(0.5, None, 0.5, 0.5, 1)
    assert Spread.of([0.25, 0.75]) == Spread(0.5, pytest.approx(0.125**0.5), 0.25, 0.75, 2)
    good, bad = ({"validation": {"val/the_metric": value}, "error": error} for value, error in ((0.1, ""), (0.9, "no")))
    made = [Setting({"a": 1}, [_Measured(**good)]), Setting({"a": 2}, [_Measured(**bad), _Measured(**good)])]
    assert best_of(made) is made[0]
    assert best_of(made[1:]) is None


@dataclass
class _Measured:
    validation: dict
    error: str


def test_processes_end_with_the_sweep(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text("import sys, time\nif 'slow' in sys.argv: time.sleep(600)")
    monkeypatch.setattr(sys, "argv", [str(script), "sweep"])
    started = []
    real = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *words, **options: started.append(real(*words, **options)) or started[-1]
    )

    def interrupted(one) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out([_Stub("slow", tmp_path), _Stub("good", tmp_path)], 2, interrupted)
    assert [process.poll() for process in started] == [-signal.SIGTERM, 0, 0]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
