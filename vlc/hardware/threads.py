"""How long the threads of a product wait awake for each other.

torch's wheels for CPUs compute with libgomp's threads. By default a thread that has nothing to do spins 300,000 times, for
some milliseconds, before it sleeps. Where another program has the core of the thread that it waits for, spinning keeps that
thread, and the other program, from a core that they could use.
"""

import os

SPINS = (
    10_000  # measured by benchmarks.busy: it spans the pauses between products, and no time slice of another program
)
_BY_THE_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def sleep_soon() -> None:
    """Let idle threads spin shortly, here and in processes that this one starts, unless the environment says how they wait.

    libgomp reads the variable when torch is imported, so this has to come before. Results do not change by it.
    """
    if not any(name in os.environ for name in _BY_THE_USER):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
