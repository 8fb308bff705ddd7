"""How threads wait for each other."""

import os
import subprocess
import sys

import pytest
import torch

from vlc.hardware import threads
from vlc.hardware.threads import FreeCores


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {"GOMP_SPINCOUNT": str(threads.SPINS)}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_threads_sleep_soon_unless_the_user_says_otherwise(given, wanted, monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    threads.sleep_soon()
    assert {name: os.environ[name] for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY") if name in os.environ} == wanted


def test_the_package_says_so_before_torch_is_imported():
    code = "import os, sys, vlc; assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == f"{threads.SPINS}\n"


class _Machine:
    """A folder like /proc, for a process on two cores."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.others, self.own, self.threads, self.now = folder, 0.0, 0.0, 2, 0.0
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
        monkeypatch.setattr(threads.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(torch, "get_num_threads", lambda: self.threads)
        monkeypatch.setattr(torch, "set_num_threads", lambda number: setattr(self, "threads", number))
        (folder / str(os.getpid()) / "task/1").mkdir(parents=True)
        (folder / str(os.getpid()) / "task/1/children").write_text("99 ")
        (folder / "99").mkdir()
        self.passes(0, others=0)

    def passes(self, seconds: float, others: float) -> None:
        """Others and this process's child (number 99) compute; the child does all the time."""
        self.now += seconds
        self.others, self.own = self.others + others * seconds, self.own + seconds
        ticks = [round(value * os.sysconf("SC_CLK_TCK")) for value in (self.others + self.own, self.own)]
        (self.folder / "stat").write_text(
            f"cpu 0\ncpu0 {ticks[0]} 0 0 5 5 0 0\ncpu1 0 0 0 9 9 0 0\ncpu2 77 0 0 0 0 0 0\n"
        )
        child = f"99 (a b) S {os.getpid()} 0 0 0 0 0 0 0 0 0 {ticks[1]} 0 0 0"
        (self.folder / "99/stat").write_text(child)
        (self.folder / str(os.getpid()) / "stat").write_text("1 (c) R 1 0 0 0 0 0 0 0 0 0 0 0 0 0")


def test_threads_follow_the_free_cores(tmp_path, monkeypatch):
    machine, seen = _Machine(tmp_path, monkeypatch), []
    cores = FreeCores(proc=tmp_path)
    for others in (0, 0.9, 0, 0.9, 0.9, 3, 3, 0.1, 0.1):
        cores.follow()
        machine.passes(1, others)
        cores.follow()
        seen.append(machine.threads)
    assert seen == [2, 2, 2, 2, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("told", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_number_of_threads_that_the_user_sets_stays(told, tmp_path, monkeypatch):
    machine = _Machine(tmp_path, monkeypatch)
    monkeypatch.setenv(told, "2")
    cores = FreeCores(proc=tmp_path)
    for _ in range(4):
        cores.follow()
        machine.passes(1, others=2)
    assert machine.threads == 2
