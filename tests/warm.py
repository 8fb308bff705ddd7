"""Commands that start at once: each is a fork of one process that has imported already what they need.

A start of Python with torch, Lightning and transformers takes five seconds of a core, and tests of command lines need many.
`command` is `subprocess.run([sys.executable, *words], capture_output=True, text=True)` without them. Where the start itself
is tested, or variables that libraries read while they are imported, a process of its own is needed.
"""

import atexit
import gc
import json
import os
import runpy
import subprocess
import sys
import tempfile
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
    os.environ.clear()
    os.environ.update(asked["env"])
    kind, *rest = asked["words"]
    paths = [path for path in asked["env"].get("PYTHONPATH", "").split(os.pathsep) if path]
    own = os.path.dirname(os.path.abspath(kind)) if kind not in ("-m", "-c") else asked["cwd"]
    sys.path[:] = [own, *paths, *sys.path]
    sys.argv = asked["words"] if kind not in ("-m", "-c") else rest
    if kind == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    import vlc.training.run
    import vlc.use.features
    import vlc.use.predict
    import vlc.use.search

    assert vlc.__version__
    gc.freeze()  # otherwise each fork would copy all objects, to look through them at its end
    if (found := _serve()) is not None:
        _run(found)
