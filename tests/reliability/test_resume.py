"""Every way to stop and resume, at random places: weights equal those of an unbroken run, bit for bit.

`python -m pytest tests/reliability/test_resume.py` (half an hour on two cores; VLC_TRIES changes the number of tries for
each combination, VLC_SEED the places).
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.labelled_folders import words
from tests.resuming import Stop, assert_same, finetuning, last_checkpoint, pretraining, weights

REPOSITORY = Path(__file__).parents[2]
TRIES, SEED = int(os.environ.get("VLC_TRIES", 3)), os.environ.get("VLC_SEED", "0")
LENGTHS = {"steps": {"max_steps": 11}, "epochs": {"max_steps": None, "max_epoch": 3}}


def _places(rng: random.Random, num_batches: int, num_validations: int) -> list[Stop]:
    """One to three stops; in half of the tries one of them is the end of an epoch, of six batches."""
    stops = []
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice(["SIGTERM", "SIGINT", "SIGUSR1", "kill"])
        if rng.random() < 0.2:
            stops.append(Stop("validation_step", rng.randint(1, num_validations), kind))
        else:
            number = rng.choice([6, 7]) if rng.random() < 0.3 else rng.randint(1, num_batches)
            stops.append(Stop("training_step", number, kind))
    return stops


@pytest.fixture(autouse=True)
def handlers():
    """Signals that whoever runs the tests has set to be ignored would stop nothing."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("accumulated", [1, 2, 3])
@pytest.mark.parametrize("length", LENGTHS)
def test_run(arrows, small_vit, tmp_path, monkeypatch, length, accumulated, workers):
    rng = random.Random(f"{SEED} run {length} {accumulated} {workers}")
    options = {
        "batch_size": 4 * accumulated,
        "num_workers": workers,
        "val_check_interval": rng.choice([0.34, 0.5, 1.0, 4]),
    }
    steps = {"max_steps": 11 // accumulated} if length == "steps" else LENGTHS[length]
    program = pretraining(arrows, small_vit, **options, **steps, checkpoint_every=rng.choice([None, 1, 2]))
    for _ in range(TRIES):
        assert_same(program, tmp_path, _places(rng, 11, 6), monkeypatch)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("accumulated", [1, 2, 3])
def test_main_finetune(images, tmp_path, monkeypatch, accumulated, workers):
    rng = random.Random(f"{SEED} main_finetune {accumulated} {workers}")
    options = {"accum_iter": accumulated, "num_workers": workers, "reprob": 0.5} | rng.choice([{}, {"ema": 0.9}])
    if every := rng.choice([None, 1, 2]):
        options["checkpoint_every"] = every
    for _ in range(TRIES):
        assert_same(finetuning(images, **options), tmp_path, _places(rng, 12, 4), monkeypatch)


# -- several processes: programs of their own, stopped at random times


def _launched(command: list[str]) -> subprocess.Popen:
    launcher = [sys.executable, "-m", "launch", "--nproc_per_node=2", "--standalone", *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        launcher, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _finish(command: list[str], out: Path, rng: random.Random, stops: int) -> int:
    """Run a command until it ends by itself, stopped some times on the way; returns how often."""
    happened = 0
    while True:
        process = _launched(command)
        if happened < stops:
            before = last_checkpoint(out)
            known = before and before.stat().st_mtime_ns
            while process.poll() is None:
                newest = last_checkpoint(out)
                if newest and newest.stat().st_mtime_ns != known:
                    time.sleep(rng.random())
                    process.send_signal(rng.choice([signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]))
                    break
                time.sleep(0.1)
        shown, _ = process.communicate(timeout=300)
        if process.returncode == 0:
            return happened
        assert process.returncode in (128 + signal.SIGTERM, 128 + signal.SIGUSR1, 128 + signal.SIGINT), shown[-3000:]
        happened += 1


def _assert_same(one: Path, other: Path) -> None:
    expected, found = weights(one), weights(other)
    different = [name for name, value in expected.items() if not torch.equal(found[name], value)]
    assert not different


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_run_in_two_processes(arrows, tmp_path, accumulated, workers):
    rng = random.Random(f"{SEED} two {accumulated} {workers}")

    def command(out: Path) -> list[str]:
        options = {
            "data_root": arrows,
            "log_dir": out,
            "num_gpus": 0,
            "num_workers": workers,
            "per_gpu_batchsize": 2,
            "batch_size": 4 * accumulated,
            "warmup_steps": 0,
            "max_steps": 40,
            "val_check_interval": 0.5,
            "checkpoint_every": 3,
            "resume_from": "auto",
        }
        return ["run.py", "with", "task_pretrain_emoji", *(f"{key}={value}" for key, value in options.items())]

    assert _finish(command(tmp_path / "unbroken"), tmp_path / "unbroken", rng, 0) == 0
    assert _finish(command(tmp_path / "stopped"), tmp_path / "stopped", rng, 2) > 0
    _assert_same(tmp_path / "unbroken", tmp_path / "stopped")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("accumulated", [1, 3])
def test_main_finetune_in_two_processes(images, tmp_path, accumulated, workers):
    rng = random.Random(f"{SEED} finetune two {accumulated} {workers}")

    def command(out: Path) -> list[str]:
        options = {"batch_size": 4, "accum_iter": accumulated, "num_workers": workers, "epochs": 20, "mixup": 0.8}
        return ["main_finetune.py", *words(images, out, **options, drop_path=0.2, checkpoint_every=2, resume="auto")]

    assert _finish(command(tmp_path / "unbroken"), tmp_path / "unbroken", rng, 0) == 0
    assert _finish(command(tmp_path / "stopped"), tmp_path / "stopped", rng, 2) > 0
    _assert_same(tmp_path / "unbroken", tmp_path / "stopped")
