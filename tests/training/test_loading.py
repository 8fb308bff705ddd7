"""num_workers=auto measures what loading and steps cost."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from tests import tiny
from vlc.common.inputs import mapped
from vlc.configuration.recipes import loss_weights
from vlc.data.batch import Batch
from vlc.data.workers import loader_options
from vlc.training import loading
from vlc.training.run import build_data, run


class _Machine:
    """A clock, batches of 16 samples that take a while to load, and steps.

    beside: how many seconds longer a step takes with processes beside it.
    """

    def __init__(self, load: float, compute: float, length: int, beside: float):
        self.now, self.load, self.compute, self.length, self.beside = 0.0, load, compute, length, beside
        self.num_workers = self.ready = 0.0

    def clock(self) -> float:
        return self.now

    def loader(self, num_workers: int):
        self.num_workers = num_workers
        return _Batches(self)

    def step(self, batch: list[int]) -> None:
        self.now += self.compute + (self.beside if self.num_workers else 0)


class _Batches:
    def __init__(self, machine: _Machine):
        self.machine = machine

    def __len__(self) -> int:
        return self.machine.length

    def __iter__(self):
        machine, started = self.machine, self.machine.now
        for number in range(len(self)):
            if machine.num_workers:  # which load while this process computes
                machine.now = max(machine.now, started + (number + 1) * machine.load / machine.num_workers)
            else:
                machine.now += machine.load
            yield [0] * 16


@pytest.fixture
def choose(monkeypatch):
    def run(load, compute, *, cores=16, shares=False, length=100, beside=0.0) -> loading.Choice:
        machine = _Machine(load, compute, length, beside)
        monkeypatch.setattr(loading, "perf_counter", machine.clock)
        return loading.choose(machine.loader, machine.step, cores, shares_cores=shares, agreed=lambda found: found)

    return run


def test_as_many_processes_as_keep_up(choose):
    assert choose(0.02, 0.01).num_workers == 3
    assert choose(0.02, 0.005, cores=4).num_workers == 3, "a core stays with the steps"
    assert choose(0.02, 0.005, cores=1).num_workers == 1, "a GPU works meanwhile"
    assert choose(0.01, 1).num_workers == 0, "loading takes nearly no time"


def test_on_the_cores_of_the_steps_processes_have_to_save_time(choose):
    choice = choose(0.1, 0.1, shares=True, cores=2)
    assert choice == (
        1,
        "a batch takes 100 ms to load and 100 ms to compute, together 200 ms in one process, "
        "and 100 ms with 1 beside it",
    )
    assert choose(0.1, 0.1, shares=True, cores=2, beside=0.15).num_workers == 0, "steps become slower"
    assert choose(0.4, 0.01, shares=True, cores=2, beside=0.005).num_workers == 1, "the steps wait, but less"


@pytest.mark.parametrize(("length", "shares"), [(0, False), (1, False), (3, True)])
def test_too_few_batches_are_loaded_in_the_process(choose, length, shares):
    choice = choose(0.02, 0.01, length=length, shares=shares, cores=2)
    assert choice.num_workers == 0
    assert "too few batches" in choice.reason


def _weights(metrics: dict) -> dict[str, torch.Tensor]:
    return torch.load(Path(metrics["log_dir"]) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_measured_run_is_the_run_itself(arrows, small_vit, tmp_path, caplog, monkeypatch):
    """The steps of the measurement leave no trace, in training and in a test."""
    caplog.set_level("INFO")
    monkeypatch.setattr(loading, "_together", lambda loader, step, *_: step(next(iter(loader(0)))) or 100.0)
    options = {"data_root": str(arrows), "log_dir": str(tmp_path), "vit": small_vit, "drop_rate": 0.2, "max_steps": 2}
    options |= {"datasets": ["coco", "vg"], "loss_names": loss_weights(itm=1, mae=1)}
    metrics = {workers: run(tiny.settings(**options, num_workers=workers)) for workers in (0, "auto")}
    assert "num_workers=auto: 0, as a batch takes" in caplog.text
    expected = _weights(metrics[0])
    for name, value in _weights(metrics["auto"]).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)
    tested = {"test_only": True, "load_path": metrics[0]["log_dir"] + "/checkpoints/last.ckpt"}
    alone, measured = (run(tiny.settings(**options | tested, num_workers=workers)) for workers in (0, "auto"))
    assert {**measured, "log_dir": ""} == {**alone, "log_dir": ""}


def test_batches_do_not_depend_on_the_number_of_processes(arrows, small_vit):
    data = build_data(tiny.settings("task_finetune_vqa_mae_randaug", data_root=str(arrows), vit=small_vit))
    keys = [[(epoch, sample) for sample in range(4)] for epoch in range(3)]
    loaders = (DataLoader(data.train, sampler=keys, **loader_options(number, pinned=False)) for number in (0, 2))
    for expected, batch in zip(*loaders, strict=True):
        torch.testing.assert_close(_tensors(batch), _tensors(expected), rtol=0, atol=0)


def _tensors(batch: Batch) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    mapped(batch, torch.Tensor, lambda tensor: found.append(tensor) or tensor)
    return found
