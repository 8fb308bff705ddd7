import os
import sys
import time
from multiprocessing import resource_sharer
from multiprocessing.connection import Client

from torch.utils.data import DataLoader, Dataset

from vlc.data.workers import _tell_unless_hung_up, worker_options


class Parents(Dataset):
    """Which process started the one that loads."""

    def __getitem__(self, number: int) -> int:
        return os.getppid()

    def __len__(self) -> int:
        return 2


def test_workers_are_no_copies_of_this_process():
    """It has threads, and a lock that one of them holds would stay locked in a copy."""
    parents = {int(parent) for parent in DataLoader(Parents(), batch_size=None, **worker_options(1))}
    assert os.getpid() not in parents


def test_no_workers_load_here():
    assert {int(parent) for parent in DataLoader(Parents(), batch_size=None, **worker_options(0))} == {os.getppid()}


def test_a_main_process_that_hangs_up_is_no_news(monkeypatch, capsys):
    """A signal may end a run while it takes a batch from a worker, whose thread for that then waits in vain."""
    told: list[type] = []

    def hook(kind, error, trace):
        told.append(kind)
        _tell_unless_hung_up(kind, error, trace)

    monkeypatch.setattr(sys, "excepthook", hook)
    shared = resource_sharer.DupFd(0)
    address, _ = shared._id
    Client(address, authkey=resource_sharer.process.current_process().authkey).close()
    deadline = time.monotonic() + 10
    while not told and time.monotonic() < deadline:
        time.sleep(0.01)
    assert issubclass(told[0], ConnectionError | EOFError)
    assert capsys.readouterr().err == ""
    shared.detach()


def test_other_exceptions_of_a_worker_are_told(capsys):
    _tell_unless_hung_up(ValueError, ValueError("a reason"), None)
    assert "ValueError: a reason" in capsys.readouterr().err
