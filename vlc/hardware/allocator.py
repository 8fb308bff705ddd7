"""CPU memory that every training step frees and allocates again."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Keep freed memory in this process instead of returning it to the system; returns whether this is possible.

    By default glibc maps every large tensor anew, and the system clears its pages each time. This takes a fifth of a
    training step of base size in bfloat16. Peak memory grows by 2 % (measured in a pre-training step). Without glibc
    nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
