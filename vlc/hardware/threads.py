"""How many threads compute a product, and how long they wait awake for each other, beside other programs.

torch's wheels for CPUs compute with libgomp's threads. By default a thread that has nothing to do spins 300,000 times, for
seven milliseconds on Zen 4, before it sleeps. Where another program has the core of the thread that it waits for, spinning
keeps that thread, and the other program, from a core that they could use.
"""

import os
import time
from pathlib import Path

SPINS = 10_000  # a quarter of a millisecond: longer than most pauses between products
_BY_THE_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def sleep_soon() -> None:
    """Let idle threads spin shortly, here and in processes that this one starts, unless the environment says how they wait.

    libgomp reads the variable when torch is imported, so this has to come before. Results do not change by it.
    """
    if not any(name in os.environ for name in _BY_THE_USER):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)


class FreeCores:
    """Keeps the number of torch's threads at the cores that other programs leave free.

    A product is done when its last thread is: on two cores of which one is taken, one thread is three times as fast as two.
    Processes that this one started, such as those that load data, are no other programs. Where OMP_NUM_THREADS or
    MKL_NUM_THREADS is set, and outside of Linux, the number of threads stays.

    every: seconds between two looks at the machine. The number changes after two looks that say the same.
    """

    def __init__(self, every: float = 1.0, proc: Path = Path("/proc")):
        self._every, self._proc = every, proc
        told = "OMP_NUM_THREADS" in os.environ or "MKL_NUM_THREADS" in os.environ
        self._off = told or not hasattr(os, "sched_getaffinity") or not (proc / "stat").is_file()
        self._next = 0.0
        self._most: int | None = None
        self._used: tuple[float, float, float] | None = None
        self._seen = self._wanted = 0

    def follow(self) -> None:
        """Set the number for the products of the calling thread. It costs nothing between two looks."""
        now = time.monotonic()
        if self._off or now < self._next:
            return
        import torch  # here, so that `import vlc` stays free of it

        self._next = now + self._every
        self._most = self._most or torch.get_num_threads()
        if self._most == 1:
            self._off = True
            return
        used, before = (now, *self._processor_seconds()), self._used
        self._used = used
        if before is None:
            return
        others = ((used[1] - before[1]) - (used[2] - before[2])) / (now - before[0])
        free = min(self._most, max(1, round(len(os.sched_getaffinity(0)) - others)))
        self._wanted, self._seen = (free if free == self._seen else self._wanted or self._most), free
        if torch.get_num_threads() != self._wanted:
            torch.set_num_threads(self._wanted)

    def _processor_seconds(self) -> tuple[float, float]:
        """The seconds that the cores of this process have computed so far, and those of this process and its children."""
        tick, mine = os.sysconf("SC_CLK_TCK"), {f"cpu{number}" for number in os.sched_getaffinity(0)}
        busy = 0
        for line in (self._proc / "stat").read_text().splitlines():
            name, *fields = line.split()
            if name in mine:
                user, nice, system, _, _, irq, softirq = map(int, fields[:7])  # idle and waiting for disks are free
                busy += user + nice + system + irq + softirq
        used, processes = 0, [os.getpid()]
        while processes:
            folder = self._proc / str(processes.pop())
            try:
                used += sum(map(int, (folder / "stat").read_text().rpartition(")")[2].split()[11:15]))
                for path in folder.glob("task/*/children"):
                    processes += map(int, path.read_text().split())
            except OSError:  # it has ended
                continue
        return busy / tick, used / tick


free_cores = FreeCores()
