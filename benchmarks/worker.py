"""One side of a comparison in a process of its own: it runs a repeat whenever it is asked to.

The asking process writes a line for each repeat and reads a line of JSON; peak memory is the process's own then.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch


def status(name: str) -> int:
    """Kilobytes that Linux states of this process by a name, such as VmRSS."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0])


class Memory:
    """Megabytes that this process takes, or its accelerator where there is one."""

    def __init__(self):
        self._before = self._now("VmRSS")

    @staticmethod
    def _now(name: str) -> float:
        return status(name) / 1000

    def restart(self) -> None:
        """Forget the peak so far."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> float:
        """Since `restart`, without what libraries took before the model was built."""
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 1e6
        return self._now("VmHWM") - self._before


def serve(build: Callable[[], Callable[[], None]]) -> None:
    """Build what is timed, then run it for each line read, and answer with {"seconds": ..., "peak_mb": ...}."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else prints does not answer
    memory = Memory()
    repeat = build()
    print(json.dumps({"ready": True}), file=answers)
    for _ in sys.stdin:
        memory.restart()
        started = time.perf_counter()
        repeat()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "peak_mb": memory.peak()}), file=answers)
