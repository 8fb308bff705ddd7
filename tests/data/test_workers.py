import os

from torch.utils.data import DataLoader, Dataset

from vlc.data.workers import worker_options


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
