"""Processes that load batches.

They are forked from a server process that does nothing but this and has imported what they need. A fork of the training
process itself may hang for good: a lock that one of its threads (gloo's, a logger's) holds stays locked in the copy (seen
in one of ten runs of two processes).
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from functools import partial
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from types import FrameType, TracebackType
from typing import Any

_FOR_THE_JOB = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_PATIENCE = 30  # seconds
_LOOK_EVERY = 5  # seconds

_IMPORTED_ONCE = [
    "__main__",
    "vlc.data.samples",
    "vlc.data.transforms",
    "torch.utils.data",
    "transformers.tokenization_utils_tokenizers",
]


def start_worker_server(*modules: str) -> None:
    """Begin the server's imports while this process does its own. Otherwise they wait for the first worker.

    modules: further modules that the workers need. Otherwise each worker would import them for itself.
    """
    if _context(modules).get_start_method() == "forkserver":
        # Signals for all processes of a job are for the main one to obey; the server ends when that one does.
        previous = {number: signal.signal(number, signal.SIG_IGN) for number in _FOR_THE_JOB}
        try:
            forkserver.ensure_running()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def loader_options(num_workers: int, *, pinned: bool) -> dict[str, Any]:
    """The options of a DataLoader whose sampler yields whole batches.

    pinned: put batches into memory from which a GPU copies.
    """
    return worker_options(num_workers) | {"batch_size": None, "pin_memory": pinned}


def worker_options(num_workers: int) -> dict[str, Any]:
    """The options of a DataLoader that concern its processes."""
    return {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "multiprocessing_context": _context() if num_workers else None,
        "worker_init_fn": partial(_start, os.getpid()),
    }


def _context(modules: tuple[str, ...] = ()) -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_IMPORTED_ONCE, *modules])
    return context


def _start(main: int, worker: int) -> None:
    sys.excepthook = _tell_unless_hung_up
    leave_signals_to_the_main_process(worker)
    threading.Thread(target=_end_with, args=(main,), daemon=True).start()


def _tell_unless_hung_up(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an exception, unless the main process hung up.

    A signal may end a run while its main process takes a batch out of a worker's memory. The thread that hands it over
    would print a traceback, and nothing has gone wrong.
    """
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _end_with(main: int) -> None:
    """End this worker when the main process is gone, also after kill -9.

    torch's workers watch their parent, which here is the server. The server in turn ends when nobody holds the pipe from
    the main process any more; its workers hold it too, so each would wait for the other.
    """
    while True:
        time.sleep(_LOOK_EVERY)
        try:
            os.kill(main, 0)
        except (ProcessLookupError, PermissionError):  # PermissionError: another user's process has its number by now
            os._exit(1)


def leave_signals_to_the_main_process(worker: int) -> None:
    """Signals reach all processes of a terminal or a job; the main one still needs batches to finish its step.

    A loader sends SIGTERM to workers that do not end by themselves. They obey it after a while, and at once when it comes
    again.
    """
    for number in (signal.SIGINT, *_FOR_THE_JOB):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)


def _end_later(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(_PATIENCE)  # its signal ends the process
