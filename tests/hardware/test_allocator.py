import resource
import subprocess
import sys

import pytest

from vlc.hardware.allocator import keep_freed_memory

PROGRAM = """
import resource, sys
import torch
from vlc.hardware.allocator import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    print(-1)
    sys.exit()
for _ in range(10):
    torch.ones(10_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str) -> int:
    """Pages that the system had to clear for ten tensors of 40 MB, one after the other."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_memory_is_used_again():
    kept = _faults("keep")
    if kept < 0:
        pytest.skip("another C library than glibc")
    pages = 10_000_000 * 4 // resource.getpagesize()
    assert _faults("leave") > 5 * pages
    assert kept < pages / 10


def test_without_glibc_nothing_changes(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
