"""Commands that start at once: each is a fork of one process that has imported already what they need.

A start of Python with torch, Lightning and transformers takes five seconds of a core, and tests of command lines need many.
`command` is `subprocess.run([sys.executable, *words], capture_output=True, text=True)` without them. Where the start itself
is tested, or variables that libraries read while they are imported, a process of its own is needed. The workers of
`-m launch` are forks of the launcher.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def command(
    *words: str | Path, cwd: Path = REPOSITORY, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS...` (FILE, -m MODULE or -c CODE, and arguments) to its end; returns its status and what it said."""
    server, said = _server(), tempfile.mkdtemp()
    asked = {"words": [str(word) for word in words], "cwd": str(cwd), "env": dict(os.environ if env is None else env)}
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(asked | {"said": said}) + "\n")
    server.stdin.flush()
    status = int(server.stdout.readline())
    texts = [Path(said, name).read_bytes().decode("utf-8") for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess([sys.executable, *asked["words"]], status, *texts)


@cache
def _server() -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "tests.warm"]
    server = subprocess.Popen(words, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)  # it ends with its input
    return server


def _serve() -> dict | None:
    """Fork for each command that is asked for. Returns what a fork has to run in it; None at the end of the input."""
    for line in sys.stdin:
        if not (process := os.fork()):
            return json.loads(line)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


def _run(asked: dict) -> None:
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        path = os.devnull if name == "stdin" else os.path.join(asked["said"], name)
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.chdir(asked["cwd"])
    _run_words(asked["words"], asked["env"])


def _run_words(words: list[str], environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    kind, *rest = words
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    own = os.path.dirname(os.path.abspath(kind)) if kind not in ("-m", "-c") else os.getcwd()
    sys.path[:] = [own, *paths, *sys.path]
    sys.argv = words if kind not in ("-m", "-c") else rest
    if kind == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_path(kind, run_name="__main__")


class _Worker(subprocess.Popen):
    """A worker of torch's launcher, as a fork instead of `python -u WORDS...`."""

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *others) -> None:
        _, _, *words = args
        self.pid = os.fork()
        self._child_created = True
        if self.pid:
            return
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):  # the launcher handles them
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        status: object = 1
        try:
            _run_words(words, env)
            status = 0
        except SystemExit as end:
            status = 0 if end.code is None else end.code
            if isinstance(status, str):
                print(status, file=sys.stderr)
                status = 1
        except BaseException:
            traceback.print_exc()
        finally:  # the launcher's frames must not go on in this process
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


if __name__ == "__main__":
    from torch.distributed import run as launcher
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    import vlc.training.run
    import vlc.use.features
    import vlc.use.predict
    import vlc.use.search

    assert vlc.__version__
    assert launcher.run
    subprocess_handler.Popen = _Worker
    gc.freeze()  # otherwise each fork would copy all objects, to look through them at its end
    if (found := _serve()) is not None:
        _run(found)
