"""Runs of several tasks: how steps are made, stopped tasks, exact resume, and what is refused."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import seed_everything

from tests import tiny
from tests.resuming import Program, Stop, assert_same
from vlc.common.errors import UserError
from vlc.configuration.config import RunError
from vlc.training.module import VLCModule
from vlc.training.rounds import Rounds
from vlc.training.run import build_data, build_module, build_trainer, run

TASKS = ["vqa", "vgqa", "nlvr2"]  # a pass has 6, 3 and 3 batches of 4
SMALL: dict[str, Any] = {
    **{"tasks": TASKS, "answers.num_answers": 3, "learning_rate": 1e-3},
    **{"max_steps": None, "max_epoch": 2, "multitask.rounds_per_epoch": 3},
}


@pytest.fixture
def options(arrows, small_vit, tmp_path) -> dict[str, Any]:
    return {"data_root": str(arrows), "log_dir": str(tmp_path), "vit": small_vit, **SMALL}


def _content(log_dir: str) -> dict[str, Any]:
    return torch.load(Path(log_dir) / "checkpoints/last.ckpt", weights_only=True)


def _scored(monkeypatch: pytest.MonkeyPatch, scores: dict[str, list[float]]) -> None:
    """Have tasks score what the test says, validation after validation, whatever the model learns."""
    given = {name: iter(values) for name, values in scores.items()}
    monkeypatch.setattr(
        VLCModule,
        "_selecting",
        lambda self, name, values: (
            [torch.tensor(next(given[name]))] if any(key.startswith(f"{name}/") for key in values) else [],
            [],
        ),
    )


@pytest.fixture
def visited(monkeypatch) -> list[str]:
    """The tasks of all training batches, in their order."""
    step, found = VLCModule.training_step, []

    def noting(self, batch, batch_idx):
        found.append(batch.task)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(VLCModule, "training_step", noting)
    return found


def test_a_task_that_no_longer_improves_stops_and_goes_on(options, monkeypatch, visited, capfd):
    _scored(monkeypatch, {"vqa": [0.5] * 20, "nlvr2": [0.1 * n for n in range(1, 30)]})
    options |= {"tasks": ["vqa", "nlvr2"], "max_epoch": 10, "multitask.mixing": "stop_and_go", "multitask.gap": 4}
    run(tiny.settings(**options))
    # vqa is validated after the rounds 7, 13 and 19. The last two bring no gain, and so it stops.
    rounds = [(number, "vqa") for number in range(30) if number < 19 or number % 4 == 0]
    rounds += [(number, "nlvr2") for number in range(30)]
    assert visited == [task for _, task in sorted(rounds, key=lambda one: (one[0], one[1] == "nlvr2"))]
    shown = capfd.readouterr().out
    assert re.search(r"vqa +0\.5000 +0\.5000 +0\.\d{4} +stopped +\d+ %", shown)
    assert re.search(r"nlvr2 +1\.0000 +1\.0000 +0\.5000 +running +\d+ %", shown)


def test_steps_end_a_run_of_tasks_that_stop_and_go(options):
    """Tasks of equal size are first validated a round behind the epoch, and the run may end before."""
    options |= {"tasks": ["vgqa", "nlvr2"], "multitask.mixing": "stop_and_go", "max_epoch": 1}
    for steps in (4, 6, 8):
        metrics = run(tiny.settings(**(options | {"max_steps": steps})))
        assert {"vgqa/val/score", "nlvr2/dev/accuracy", "val/the_metric"} <= set(metrics)
        assert _content(metrics["log_dir"])["global_step"] == steps


def test_a_stretch_that_ends_without_a_validation_is_no_error(options):
    """All tasks start anew after an epoch of three rounds, before any is validated."""
    options |= {"tasks": ["vqa", "nlvr2"], "nlvr2.batch_size": 4, "multitask.resets": [1]}
    options |= {"multitask.mixing": "stop_and_go", "multitask.rounds_per_epoch": 2}
    metrics = run(tiny.settings(**options))
    assert {"vqa/val/score", "nlvr2/dev/accuracy"} <= set(metrics)


def test_evaluators_run_in_the_order_of_the_tasks(options, monkeypatch):
    """They wait for all processes, and the names of due tasks are a set, which has another order on each."""
    ran: list[str] = []
    monkeypatch.setattr(VLCModule, "_evaluator_values", lambda self, name, *others: ran.append(name) or {})
    monkeypatch.setattr(Rounds, "due", lambda self, stretch: _Backwards(TASKS))
    run(tiny.settings(**options))
    assert ran == TASKS * 2


class _Backwards(frozenset):
    def __iter__(self):
        return iter(sorted(frozenset.__iter__(self), key=TASKS.index, reverse=True))


def test_the_best_checkpoint_of_each_task_is_kept(options, monkeypatch):
    _scored(monkeypatch, {"vqa": [0.5, 0.6, 0.2], "nlvr2": [0.9, 0.7, 0.7]})
    options |= {"tasks": ["vqa", "nlvr2"], "max_epoch": 3, "multitask.best_of_each": True}
    folder = Path(run(tiny.settings(**options))["log_dir"]) / "checkpoints"
    steps = {path.name: torch.load(path, weights_only=True)["global_step"] for path in folder.iterdir()}
    # Of all, the first is the best.
    assert steps == {"best-vqa.ckpt": 12, "best-nlvr2.ckpt": 6, "last.ckpt": 18, "epoch=0-step=6.ckpt": 6}


@pytest.mark.parametrize(("steps", "expected"), [("per_task", 18), ("accumulate", 6)])
def test_a_step_for_each_task_or_for_each_round(options, steps, expected):
    metrics = run(tiny.settings(**options, **{"multitask.steps": steps}, decay_power=1, warmup_steps=0))
    content = _content(metrics["log_dir"])
    assert content["global_step"] == expected
    (schedule,) = content["lr_schedulers"]
    assert schedule["last_epoch"] == 6, "the schedule advances once a round"
    assert schedule["_last_lr"] == pytest.approx([0.0] * len(schedule["_last_lr"]))
    state = next(value["state"] for key, value in content["callbacks"].items() if key.startswith("Multitask"))
    assert state["stretch"]["number"] == 1


def _gradients(options: dict[str, Any], **changes: Any) -> list[dict[str, torch.Tensor]]:
    """The gradients before each optimiser step of a run."""
    found = []

    def noting(self, *arguments: Any) -> None:
        found.append({name: value.grad.clone() for name, value in self.named_parameters() if value.grad is not None})

    settings = tiny.settings(**(options | changes))
    seed_everything(0, verbose=False)
    data = build_data(settings)
    module = build_module(settings, data)
    module.on_before_optimizer_step = noting.__get__(module)
    build_trainer(settings, num_evaluated=3).fit(module, datamodule=data)
    return found


def test_one_step_for_a_round_has_the_sum_of_the_gradients(options):
    frozen = {"learning_rate": 1e-12, "max_epoch": 1, "multitask.rounds_per_epoch": 1, "drop_rate": 0.0}
    frozen |= {f"{task}.learning_rate": 1e-12 for task in TASKS}
    apart = _gradients(options, **frozen)
    (together,) = _gradients(options, **frozen, **{"multitask.steps": "accumulate"})
    assert len(apart) == 3
    for name, value in together.items():
        parts = [gradients[name] for gradients in apart if name in gradients]
        torch.testing.assert_close(value, sum(parts[1:], parts[0]))


def test_batches_of_a_task_accumulate_to_its_batch_size(options):
    frozen = {"learning_rate": 1e-12, "max_epoch": 1, "multitask.rounds_per_epoch": 1, "drop_rate": 0.0}
    frozen |= {f"{task}.learning_rate": 1e-12 for task in TASKS}
    whole = _gradients(options, **frozen)
    halves = _gradients(options, **frozen, **{"vqa.per_gpu_batchsize": 2, "nlvr2.batch_size": 4})
    assert len(whole) == len(halves) == 3
    for one, other in zip(whole, halves, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)


_KILLS = [Stop("training_step", 5, "kill"), Stop("training_step", 6, "SIGTERM"), Stop("validation_step", 3, "kill")]


@pytest.mark.parametrize(
    ("mixing", "stops"),
    [
        ({"multitask.mixing": "stop_and_go", "multitask.gap": 2, "vqa.per_gpu_batchsize": 2}, _KILLS),
        ({"multitask.mixing": "temperature", "multitask.steps": "accumulate"}, _KILLS[:2]),
        ({"multitask.mixing": "weighted", "multitask.weights": {"vqa": 3, "vgqa": 1, "nlvr2": 2}}, _KILLS[1:2]),
        ({"multitask.mixing": "stop_and_go", "multitask.gap": 2, "num_workers": 1}, _KILLS[:1]),
    ],
)
def test_a_run_that_is_stopped_anywhere_is_resumed_exactly(options, mixing, stops, tmp_path, monkeypatch):
    def start(folder: Path, checkpoint: Path | None) -> Path:
        more = {"log_dir": str(folder), "resume_from": None if checkpoint is None else str(checkpoint)}
        run(tiny.settings(**(options | mixing | {"drop_rate": 0.2, "checkpoint_every": 1} | more)))
        return folder

    assert assert_same(Program(VLCModule, start), tmp_path, stops, monkeypatch) == len(stops)


def test_resuming_with_other_tasks_is_refused(options):
    saved = f"{run(tiny.settings(**options))['log_dir']}/checkpoints/last.ckpt"
    for changes, message in (
        ({"vqa.batch_size": 8}, r"vqa \(batches of 4, steps of 4\), .* this run has vqa \(batches of 4, steps of 8\)"),
        ({"tasks": ["vgqa", "vqa", "nlvr2"]}, "resume with the same tasks and batch sizes, or start from its weights"),
    ):
        with pytest.raises(UserError, match=message):
            run(tiny.settings(**(options | changes), resume_from=saved))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"multitask.mixing": "by_size"}, "multitask.mixing='by_size' is not valid: expected one of round_robin, "),
        ({"multitask.steps": "each"}, "multitask.steps='each' is not valid: expected per_task or accumulate"),
        ({"multitask.mixing": "temperature", "multitask.temperature": 0}, "multitask.temperature=0 is not valid"),
        ({"multitask.gap": "4x"}, "multitask.gap='4x' is not valid: expected a whole number"),
        ({"multitask.gaps": 3}, "Unknown option of multitask 'gaps'. Did you mean gap"),
        (
            {"multitask.mixing": "weighted", "multitask.weights": {"vqa": 1}},
            r"multitask.weights=\{'vqa': 1\} is not valid: expected a number above 0 for each of vqa, vgqa, nlvr2",
        ),
        ({"multitask.resets": [0]}, r"multitask.resets=\(0,\) is not valid: expected epochs, counted from 1"),
        ({"multitask.rounds_per_epoch": 0}, "multitask.rounds_per_epoch=0 is not valid"),
        ({"vqa.batch_size": 0}, "vqa.batch_size=0 is not valid: expected a number of samples above 0"),
    ],
)
def test_values_without_meaning_are_refused(options, values, message):
    with pytest.raises((UserError, RunError), match=message):
        tiny.settings(**(options | values))


@pytest.mark.parametrize(("tasks", "warned"), [(["vqa"], True), (["vqa", "nlvr2"], False)])
def test_mixing_a_lone_task_has_no_effect_and_is_told(options, tasks, warned):
    values = {"tasks": tasks, "multitask.mixing": "stop_and_go", "fast_dev_run": True}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(tiny.settings(**(options | {"multitask.rounds_per_epoch": None} | values)))
    told = [str(one.message) for one in caught if "multitask" in str(one.message)]
    assert [message[:39] for message in told] == ["multitask.mixing has no effect, as the "] * warned


def test_a_step_that_a_task_cannot_fill_is_told(options):
    for values, message in (
        (
            {"vqa.batch_size": 32},
            "Task vqa has 24 training samples, fewer than a step takes: leave it out of tasks, or",
        ),
        ({"vqa.batch_size": 2}, r"vqa.batch_size=2 is less than one step's 4 samples \(vqa.per_gpu_batchsize=4 on 1"),
    ):
        with pytest.raises(UserError, match=message):
            run(tiny.settings(**(options | values)))
