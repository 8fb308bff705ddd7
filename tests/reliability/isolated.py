"""Calls in processes of their own, which start warm, are watched, and may die.

Every call gets a fresh process, forked from a server that has imported everything. So a crash, a hang or a memory bomb ends
that process alone, and no call sees what an earlier one left behind.
"""

import contextlib
import importlib
import io
import multiprocessing
import os
import resource
import runpy
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

SECONDS = 60.0  # that a call may take
MEMORY = 1 << 30  # bytes that it may take beyond what the imports take
_GUARD = 4 << 30  # bytes of address space beyond those: allocations fail before the machine suffers
TRACEBACK = "Traceback (most recent call"  # Python's, and Sacred's, which goes on differently
TOUCHED = "CODE_WAS_RUN"  # name of the file that hostile inputs try to make, in the folder of the call

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """How a call ended.

    how: "returned" (value), "refused" (value: the text of a UserError), "exited" (value: the status), "raised" (value: a
    traceback), "died" (value: the signal or status), or "hung". output: what it printed. memory: bytes at its peak, beyond
    what it began with.
    """

    how: str
    value: Any
    output: str = ""
    memory: int = 0
    seconds: float = 0.0
    touched: bool = False
    left: int = 0

    @property
    def fault(self) -> str | None:
        """The outcome, where it does not depend on what was asked for."""
        if self.touched:
            return "code run"
        if self.how == "hung":
            return "hang"
        if self.how == "died" or self.memory > MEMORY:
            return "crash"
        if self.how == "raised" or TRACEBACK in self.output:
            return "raw"
        return None

    def told(self) -> str:
        """The end of what was said, for the report."""
        memory = f" [{self.memory / 2**30:.1f} GiB]" if self.memory > MEMORY else ""
        text = str(self.value) if self.how != "exited" else f"status {self.value}: {self.output}"
        return (f"{self.how}: " + text.strip())[-600:] + memory


def start_server() -> None:
    """Start the process that the calls are forked from, before any thread exists here."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.reliability.imports"])
    process = context.Process(target=os.getpid)
    process.start()
    process.join()


def call(
    function: Callable,
    *arguments: Any,
    folder: Path,
    seconds: float = SECONDS,
    on_start: Callable | None = None,
    linger: float = 0.0,
) -> Ended:
    """Run function(*arguments) in a process of its own, in `folder` for what it prints and touches.

    on_start is called with the process's number once it runs; it may send signals to it. linger: seconds within which
    the processes that it started should have ended after it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    output, began = folder / "output.txt", time.perf_counter()
    output.write_bytes(b"")
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(theirs, function, arguments, str(folder)))
    process.start()
    theirs.close()
    if on_start is not None:
        on_start(process.pid)
    told = None
    hung = not ours.poll(max(0.0, seconds - (time.perf_counter() - began)))
    if not hung:
        try:
            told = ours.recv()
        except EOFError:
            told = None
        process.join(20)
        hung = process.exitcode is None
    left = [] if hung else remaining(partial(group, process.pid), linger)
    _kill_group(process.pid)
    process.join()
    text = output.read_bytes().decode("utf-8", "replace")
    spent, touched = time.perf_counter() - began, (folder / TOUCHED).exists()
    if hung:
        return Ended("hung", f"after {seconds:.0f} s", text, seconds=spent, touched=touched)
    if told is None or process.exitcode < 0:
        return Ended("died", _status(process.exitcode), text, 0, spent, touched, len(left))
    how, value, memory = told
    return Ended(how, value, text, memory, spent, touched, len(left))


def call_all(tasks: Iterable[Callable[[], Any]], at_once: int = 2) -> Iterator[Any]:
    """Results of the tasks (each of which makes calls) as they come, in their order."""
    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(lambda task: task(), tasks)


def _status(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"status {code} without a result"
    except ValueError:
        return f"signal {-code}"


def group(number: int) -> list[int]:
    """The processes of a group, without those that have ended and wait for their parent to notice."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                state, _, member_of = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
                found += [int(entry.name)] if int(member_of) == number and state not in "ZX" else []
    return found


def runs(number: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def remaining(find: Callable[[], list[int]], seconds: float) -> list[int]:
    """The processes that are still found when the time is over, or none as soon as none are."""
    end = time.perf_counter() + seconds
    while (found := find()) and time.perf_counter() < end:
        time.sleep(0.05)
    return found if seconds else []


def _kill_group(number: int) -> None:
    """End what a call of ours left running."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(number, signal.SIGKILL)


# -- in the process


def _run(pipe, function: Callable, arguments: tuple, folder: str) -> None:
    os.setpgid(0, 0)
    os.environ["RELIABILITY_CANARY"] = str(Path(folder, TOUCHED))
    descriptor = os.open(Path(folder, "output.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdin = io.StringIO("y\n" * 100)  # whoever asks whether code may run is told so
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + _GUARD,) * 2)
    _forbid_network(Path(folder, TOUCHED))
    importlib.import_module(
        "tests.reliability.imports"
    )  # there already, unless the server was started by somebody else
    before = _memory("VmRSS")
    how, value = _outcome(function, arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    pipe.send((how, value, max(0, _memory("VmHWM") - before)))


def _outcome(function: Callable, arguments: tuple) -> tuple[str, Any]:
    from vlc.common.errors import UserError

    try:
        return "returned", function(*arguments)
    except UserError as error:
        return "refused", str(error)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return "exited", 0 if error.code is None else 1 if isinstance(error.code, str) else error.code
    except BaseException:
        return "raised", traceback.format_exc()


def _memory(name: str) -> int:
    """Bytes, as the kernel counts them: VmSize, VmRSS, or VmHWM, which is the largest VmRSS so far."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(f"{name}:"))


def _forbid_network(canary: Path) -> None:
    """Whoever asks for another host's address is refused, and seen."""
    looked_up = socket.getaddrinfo

    def refuse(host, *arguments, **options):
        if host in (None, "", "localhost", "127.0.0.1", "::1", socket.gethostname()):
            return looked_up(host, *arguments, **options)
        canary.write_text(f"asked for {host}")
        raise socket.gaierror(socket.EAI_NONAME, f"{host} cannot be reached in a test")

    socket.getaddrinfo = refuse


def program(words: list[str], folder: str | None = None) -> None:
    """A program of the suite, as a command line starts it: ["run.py", ...] or ["-m", MODULE, ...]."""
    os.chdir(folder or REPOSITORY)
    sys.path.insert(0, str(REPOSITORY))
    os.environ["COLUMNS"] = "200"
    warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)  # the server has imported them already
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [str(REPOSITORY / words[0]), *words[1:]]
        runpy.run_path(sys.argv[0], run_name="__main__")
