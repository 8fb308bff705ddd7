"""Checks and measures on one GPU, in at most --minutes: `make gpu`, or `python -m benchmarks.gpu --compare VLC`.

Each part runs in a process of its own, which is ended when the time of the part is over. What failed, and what had no
time, is in the table and in the file of --json; the command then ends with status 1 if anything failed.
`--device cpu --tiny` runs the same code at a tiny size on a machine without GPU, where figures mean nothing.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.gpu import checks, measures
from benchmarks.gpu.items import Item, Setting, rows
from benchmarks.report import ROOT, machine, show, write


class Part(NamedTuple):
    """share: of the time that all parts have. What a part leaves of it is there for the parts after it."""

    share: float
    items: dict[str, Item]


PARTS = {
    "checks": Part(0.2, checks.CHECKS),
    "steps": Part(0.32, measures.STEPS),
    "loading": Part(0.08, measures.LOADING),
    "published": Part(0.25, measures.PUBLISHED),
    "memory": Part(0.15, measures.MEMORY),
}
RESERVE = 5.0  # seconds for the table


def main() -> None:
    arguments = _parse()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("No GPU is here: --device cpu --tiny runs the same code at a tiny size on the CPU")
    if arguments.part:
        _run(arguments)
        return
    found, started, shares = {}, time.monotonic(), sum(part.share for part in PARTS.values())
    for name, part in PARTS.items():
        left = 60 * arguments.minutes - RESERVE - (time.monotonic() - started)
        found[name] = _in_process(name, max(1.0, left * part.share / shares), arguments)
        shares -= part.share
        _show(found[name], name)
    all_rows = [row for part_rows in found.values() for row in part_rows]
    seconds = round(time.monotonic() - started, 1)
    write(arguments, parts=found, seconds=seconds)
    outcomes = [row["outcome"].partition(":")[0] for row in all_rows]
    print(", ".join(f"{outcomes.count(kind)} {kind}" for kind in ("ok", "FAILED", "left out")), f"in {seconds} s")
    if "FAILED" in outcomes:
        raise SystemExit(1)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9, help="(default: 9)")
    parser.add_argument("--compare", type=Path, metavar="VLC", help="checkout of guilk/VLC")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="models and images are tiny")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.device == "cpu" and not arguments.tiny:
        parser.error("--device cpu needs --tiny: in full size, a CPU would take hours")
    return arguments


def _run(arguments: argparse.Namespace) -> None:
    """Run the items of a part in this process, and write a line of JSON for each."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else prints is no answer
    ends = time.monotonic() + arguments.seconds
    setting = Setting(torch.device(arguments.device), arguments.tiny, ends, arguments.compare)
    for row in rows(PARTS[arguments.part].items, setting):
        print(json.dumps(row), file=answers)


def _in_process(name: str, seconds: float, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of a part, which has so many seconds, those of items without an answer included."""
    words = ["--part", name, "--seconds", str(0.9 * seconds), "--device", arguments.device]
    words += ["--tiny"] if arguments.tiny else []
    words += ["--compare", str(arguments.compare)] if arguments.compare else []
    with tempfile.TemporaryFile("w+") as answers:
        command = [sys.executable, "-m", "benchmarks.gpu", *words]
        process = subprocess.Popen(command, cwd=ROOT, stdout=answers, start_new_session=True)
        try:
            status, why = process.wait(seconds), "left out: no time"
            if status:
                why = f"FAILED: the process of the part ended with status {status}"
        except subprocess.TimeoutExpired:
            why = "left out: the time of the part was over"
        finally:
            with contextlib.suppress(ProcessLookupError):  # the part has ended, and so have the processes it started
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        answers.seek(0)
        found = [json.loads(line) for line in answers if line.endswith("\n")]
    missing = list(PARTS[name].items)[len(found) :]
    return found + [{"item": item, "outcome": why} for item in missing]


def _show(found: list[dict[str, Any]], title: str) -> None:
    """Print rows as a table with all their columns."""
    columns = dict.fromkeys(key for row in found for key in row)
    show([{key: row.get(key) for key in columns} for row in found], f"{title} ({machine()})")


if __name__ == "__main__":
    main()
