"""Several processes that answer at one address, and a first one that watches over them."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

from vlc.common.errors import UserError

Ready = Callable[[Any], None]
_PAUSE = (
    1.0  # seconds before a process is started again, so that one that cannot start does not take all of the machine
)


class Processes:
    """Runs a function in several processes until SIGINT or SIGTERM.

    target: called with a function that takes any value as soon as the process answers. At SIGTERM it has to return.
    ended: called with the number of each process that has ended.
    """

    def __init__(self, target: Callable[[Ready], None], ended: Callable[[int], None] = lambda pid: None):
        self._target, self._ended = target, ended
        self._context = multiprocessing.get_context("spawn")  # a fork would copy locks of other threads
        # By the sentinels that say that they have ended; each with the connection to which it says that it answers.
        self._running: dict[int, tuple[BaseProcess, connection.Connection]] = {}
        self._stopping = False

    def run(self, count: int, ready: Ready) -> None:
        """Start processes, and return when all have ended. One that dies is started again.

        ready: called with the value of the first process, when all answer.
        Raises the UserError that a process raises before it answers, and one where it dies.
        """
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            value = _said(self._start())  # the others start when the first one has shown that it can
            for starting in [self._start() for _ in range(count - 1)]:
                _said(starting)
            ready(value)
        except UserError:
            interrupted, self._stopping = self._stopping, True
            self._terminate()
            if not interrupted:
                raise
        finally:
            self._watch()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self) -> connection.Connection:
        receiving, sending = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_run, args=(self._target, sending))
        process.start()
        sending.close()
        self._running[process.sentinel] = process, receiving
        if self._stopping:  # the signal came while it was started
            process.terminate()
        return receiving

    def _watch(self) -> None:
        while self._running:
            for sentinel in connection.wait(list(self._running)):
                assert isinstance(sentinel, int)
                process, receiving = self._running.pop(sentinel)
                process.join()
                receiving.close()
                self._ended(process.pid or 0)
                if not self._stopping:
                    print(f"A process of the service died ({process.exitcode}), and is started again", flush=True)
                    time.sleep(_PAUSE)
                    self._start()

    def _stop(self, *_: Any) -> None:
        self._stopping = True
        self._terminate()

    def _terminate(self) -> None:
        for process, _ in list(self._running.values()):
            process.terminate()


def _run(target: Callable[[Ready], None], sending: connection.Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes; the first one passes it on
    threading.Thread(target=_end_with_the_first_process, daemon=True).start()
    try:
        target(sending.send)
    except UserError as error:
        sending.send(error)


def _said(receiving: connection.Connection) -> Any:
    """The value by which a process says that it answers. Raises its UserError, and UserError where it has died."""
    try:
        value = receiving.recv()
    except EOFError as error:
        raise UserError("A process of the service died before it answered") from error
    if isinstance(value, UserError):
        raise value
    return value


def _end_with_the_first_process() -> None:
    first = multiprocessing.parent_process()
    assert first is not None
    first.join()
    os.kill(os.getpid(), signal.SIGTERM)
