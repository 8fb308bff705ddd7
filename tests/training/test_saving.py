"""When last.ckpt is written: in intervals, on signals, and never with numbers that are not finite."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import Callback

import main_finetune
from tests import tiny
from tests.labelled_folders import words
from tests.reliability.isolated import group, remaining
from tests.resuming import Killed, Stop, last_checkpoint, stopped
from tests.warm import command
from vlc.training import saving
from vlc.training.module import VLCModule
from vlc.training.run import run
from vlc.training.saving import Interrupted

REPOSITORY = Path(__file__).parents[2]
NEVER = 1_000_000  # batches until a validation


@pytest.fixture(autouse=True)
def handlers():
    """Python's own handlers, during a test and after it: who runs the tests may ignore some signals."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    yield
    assert {signal.getsignal(number) for number in numbers} == {signal.default_int_handler}, "put back by the run"
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def settings(arrows, small_vit, tmp_path):
    def made(**options):
        usual = {"data_root": str(arrows), "vit": small_vit, "log_dir": str(tmp_path), "max_steps": 9}
        usual |= {"val_check_interval": NEVER}
        return tiny.settings("task_finetune_vqa_mae_randaug", **usual | options)

    return made


def _saved_step(folder: Path) -> int:
    return torch.load(last_checkpoint(folder), weights_only=True)["global_step"]


@pytest.mark.parametrize(("every", "batch_size", "killed_in", "saved"), [(3, 4, 8, 6), (1, 4, 5, 4), (2, 8, 6, 2)])
def test_a_kill_loses_no_more_than_the_steps_since_the_last_checkpoint(
    settings, tmp_path, monkeypatch, every, batch_size, killed_in, saved
):
    with stopped(VLCModule, Stop("training_step", killed_in, "kill"), monkeypatch), pytest.raises(Killed):
        run(settings(checkpoint_every=every, batch_size=batch_size))
    assert _saved_step(tmp_path) == saved


def test_half_an_hour_of_training_is_saved_without_being_asked(settings, tmp_path, monkeypatch):
    assert saving.INTERVAL == 30 * 60
    clock = itertools.count(0, 7 * 60)  # seven minutes later at each look
    monkeypatch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with stopped(VLCModule, Stop("training_step", 9, "kill"), monkeypatch), pytest.raises(Killed):
        run(settings())
    assert _saved_step(tmp_path) == 5


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGUSR1", 138), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_finishes_the_batch_saves_and_tells_by_the_status(settings, tmp_path, monkeypatch, name, status):
    with stopped(VLCModule, Stop("training_step", 4, name), monkeypatch), pytest.raises(Interrupted) as stop:
        run(settings())
    assert stop.value.code == status
    assert _saved_step(tmp_path) == 4


def test_a_signal_during_validation_does_not_wait_for_its_end(settings, tmp_path, monkeypatch):
    counted = []
    step = VLCModule.validation_step
    monkeypatch.setattr(VLCModule, "validation_step", lambda self, *given: counted.append(1) or step(self, *given))
    with stopped(VLCModule, Stop("validation_step", 1, "SIGTERM"), monkeypatch), pytest.raises(Interrupted):
        run(settings(val_check_interval=3, max_steps=9))
    assert _saved_step(tmp_path) == 3
    assert len(counted) == 2, "those of the sanity check"


def test_a_signal_while_data_are_waited_for_is_obeyed_at_once(settings, tmp_path, monkeypatch):
    from vlc.data.samples import Samples

    read, count = Samples.__getitem__, []

    def slow(self, keys):
        if self.training:
            count.append(1)
            if len(count) == 4:
                signal.raise_signal(signal.SIGTERM)
                raise AssertionError("the signal was left for later")
        return read(self, keys)

    monkeypatch.setattr(Samples, "__getitem__", slow)
    with pytest.raises(Interrupted):
        run(settings())
    assert _saved_step(tmp_path) == 3


def test_before_the_first_step_there_is_nothing_to_save(settings, tmp_path, monkeypatch):
    with stopped(VLCModule, Stop("training_step", 1, "SIGTERM"), monkeypatch), pytest.raises(Interrupted) as stop:
        run(settings(batch_size=8))
    assert stop.value.code == 143
    assert last_checkpoint(tmp_path) is None


class _Again(Callback):
    """Raises SIGINT twice in the third batch, some time apart, and once more while the checkpoint is written."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 2:
            signal.raise_signal(signal.SIGINT)
            time.sleep(self.seconds)
            signal.raise_signal(signal.SIGINT)

    def on_save_checkpoint(self, trainer, module, checkpoint):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(("seconds", "saved"), [(0, True), (0.2, False)])
def test_only_a_second_interrupt_after_a_moment_gives_up_the_step(settings, tmp_path, monkeypatch, seconds, saved):
    """`timeout` and launchers send a signal twice at once."""
    from vlc.training import run as program

    callbacks = program._callbacks
    monkeypatch.setattr(program, "_callbacks", lambda *given: [*callbacks(*given), _Again(seconds)])
    monkeypatch.setattr(saving, "_TWICE", 0.1)
    with pytest.raises(Interrupted) as stop:
        run(settings())
    assert stop.value.code == 130
    assert (last_checkpoint(tmp_path) is not None) == saved


class _WhileWriting:
    """Takes the place of torch.save: signals come while the number-th file is being written."""

    def __init__(self, number: int, *signals: int):
        self.number, self.signals, self.steps, self.save = number, signals, [], torch.save

    def __call__(self, state, file):
        self.steps.append(state["global_step"])
        if len(self.steps) == self.number:
            state = state | {"signals": self}
        self.save(state, file)

    def __reduce__(self):
        for number in self.signals:
            signal.raise_signal(number)
        return OrderedDict, ()


@pytest.mark.parametrize(
    ("number", "options", "steps"),
    [
        (2, {"checkpoint_every": 2}, [2, 4]),
        (1, {"val_check_interval": 3}, [3, 3]),  # the best one and the last one
        (2, {"val_check_interval": 3}, [3, 3]),
        (2, {"checkpoint_every": 2, "max_steps": 4}, [2, 4]),
    ],
)
def test_a_signal_while_a_checkpoint_is_written_lets_it_complete_and_stops(
    settings, tmp_path, monkeypatch, number, options, steps
):
    writing = _WhileWriting(number, signal.SIGTERM)
    monkeypatch.setattr(torch, "save", writing)
    with pytest.raises(Interrupted) as stop:
        run(settings(**options))
    assert stop.value.code == 143
    assert writing.steps == steps, "no state is saved twice"
    assert _saved_step(tmp_path) == steps[-1]


def test_a_second_interrupt_while_a_checkpoint_is_written_leaves_the_one_before(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "save", _WhileWriting(2, signal.SIGINT, signal.SIGINT))
    monkeypatch.setattr(saving, "_TWICE", -1)
    with pytest.raises(Interrupted) as stop:
        run(settings(checkpoint_every=2))
    assert stop.value.code == 130
    assert _saved_step(tmp_path) == 2
    assert not list(last_checkpoint(tmp_path).parent.glob(".*"))


@pytest.mark.parametrize("broken", ["weights", "optimiser"])
def test_a_state_that_is_not_finite_replaces_no_good_one(settings, tmp_path, monkeypatch, broken):
    step = VLCModule.training_step

    def breaking(self, batch, batch_idx):
        if self.global_step == 4:
            parameter = next(iter(self.trainer.optimizers[0].state))
            tensor = parameter.data if broken == "weights" else self.trainer.optimizers[0].state[parameter]["exp_avg"]
            tensor.view(-1)[3] = float("nan")
            signal.raise_signal(signal.SIGTERM)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(VLCModule, "training_step", breaking)
    with pytest.raises(Interrupted), pytest.warns(UserWarning, match=r"Not saved\. The weights became NaN or infinite"):
        run(settings(checkpoint_every=2))
    assert _saved_step(tmp_path) == 4
    assert all(value.isfinite().all() for value in torch.load(last_checkpoint(tmp_path))["state_dict"].values())


@pytest.mark.parametrize("array", [False, True])
def test_a_slurm_job_is_put_into_the_queue_again(settings, tmp_path, monkeypatch, array):
    saved_first = f'test -f "{tmp_path}"/*/*/checkpoints/last.ckpt || exit 3'
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\n{saved_first}\necho "$@" >> "{tmp_path}/asked"\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    if array:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "10")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    with stopped(VLCModule, Stop("training_step", 2, "SIGUSR1"), monkeypatch), pytest.raises(Interrupted):
        run(settings())
    assert (tmp_path / "asked").read_text() == ("requeue 10_3\n" if array else "requeue 12\n")


# -- processes


def _pretraining(arrows: Path, out: Path, **options: object) -> list[str]:
    given = {
        "data_root": arrows,
        "log_dir": out,
        "num_gpus": 0,
        "num_workers": 1,
        "per_gpu_batchsize": 2,
        "batch_size": 4,
    }
    given |= {"warmup_steps": 0, "max_steps": 100_000, "val_check_interval": NEVER, "checkpoint_every": 3}
    return ["run.py", "with", "task_pretrain_emoji", *(f"{key}={value}" for key, value in (given | options).items())]


def _started(started: list[str], out: Path) -> subprocess.Popen:
    """The command under way, in a process group of its own, with a first checkpoint."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [sys.executable, *started],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    for _ in range(600):
        if last_checkpoint(out) or process.poll() is not None:
            break
        time.sleep(0.2)
    assert process.poll() is None, process.communicate()[0][-2000:]
    return process


def test_a_killed_program_goes_on_with_the_same_command(arrows, tmp_path):
    training = _pretraining(arrows, tmp_path, resume_from="auto", num_workers=0)
    process = _started(training, tmp_path)
    process.kill()
    process.communicate()
    saved = _saved_step(tmp_path)
    assert saved >= 3
    assert saved % 3 == 0
    length = ["max_steps=" + str(saved + 2)]
    done = command(*training, *length)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "resume_from=auto: continuing" in done.stderr
    assert _saved_step(tmp_path) == saved + 2


@pytest.mark.parametrize("to_all", [False, True], ids=["launcher", "group"])
def test_a_launch_that_is_terminated_saves_and_says_so_by_its_status(arrows, tmp_path, to_all):
    launch = ["-m", "launch", "--nproc_per_node=2", "--standalone", *_pretraining(arrows, tmp_path)]
    process = _started(launch, tmp_path)
    (os.killpg if to_all else os.kill)(process.pid, signal.SIGTERM)
    shown, _ = process.communicate(timeout=100)
    assert process.returncode == 143, shown[-2000:]
    assert f"at step {_saved_step(tmp_path)}; continue with resume_from=" in shown


def test_one_worker_that_is_told_stops_all(images, tmp_path):
    program = (
        "import os, signal, main_finetune\n"
        "from vlc.training.module import VLCModule as Module\n"
        "step = Module.training_step\n"
        "def told(self, batch, batch_idx):\n"
        "    if self.global_rank == 1 and self.global_step == 3: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return step(self, batch, batch_idx)\n"
        "Module.training_step = told\n"
        "if __name__ == '__main__': main_finetune.main()\n"
    )
    (tmp_path / "program.py").write_text(program)
    flags = words(images, tmp_path / "out", epochs=50, num_workers=1)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = command(
        "-m", "launch", "--nproc_per_node=2", "--standalone", tmp_path / "program.py", *flags, env=environment
    )
    assert done.returncode == 1, "a worker failed, which a launcher may restart"
    assert done.stderr.count("exitcode  : 143") >= 1
    assert _saved_step(tmp_path) == 4


def test_no_process_outlives_a_run_that_is_killed(arrows, tmp_path):
    process = _started(_pretraining(arrows, tmp_path, num_workers=2), tmp_path)
    assert len(group(process.pid)) >= 4, "itself, the server, two workers"
    process.kill()
    process.wait()
    assert not remaining(lambda: group(process.pid), 15)
    process.communicate()


def test_main_finetune_saves_too(images, tmp_path, monkeypatch):
    with stopped(VLCModule, Stop("training_step", 5, "kill"), monkeypatch), pytest.raises(Killed):
        main_finetune.main(words(images, tmp_path, checkpoint_every=2))
    assert _saved_step(tmp_path) == 4
    with (
        stopped(VLCModule, Stop("training_step", 1, "SIGTERM"), monkeypatch),
        pytest.raises(Interrupted) as stop,
    ):
        main_finetune.main(words(images, tmp_path, resume="auto"))
    assert stop.value.code == 143
    assert _saved_step(tmp_path) == 5
