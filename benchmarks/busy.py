"""Speed beside other programs that compute all the time: training, ranking and the service with a small model.

    python -m write_arrow emoji_scenes --out ARROWS
    python -m write_arrow emoji --out ARROWS
    python -m benchmarks.busy --data ARROWS
Each setting is a process of its own with variables of the environment: vlc is what the project does by itself, and two
threads that spin 300,000 times are what torch does on two cores. The processes take turns, first on an idle machine, and
then beside 1, 2 and 3 neighbours. The first turn beside each number does not count.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.busy_work import WORKS
from benchmarks.report import ROOT, report
from benchmarks.step import Side

OURS, TORCHS = "vlc", "OMP_NUM_THREADS=2,GOMP_SPINCOUNT=300000"
_COMPUTE = """
import os
parent = os.getppid()
while os.getppid() == parent:
    sum(range(100_000))
"""


def main() -> None:
    arguments = _parse()
    rows = [row for work in arguments.work for row in measure(work, arguments)]
    report(rows, f"median of {arguments.rounds} turns of {arguments.seconds:g} s", arguments)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.busy", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--settings", nargs="+", default=[OURS, TORCHS], metavar="NAME=VALUE,...")
    parser.add_argument("--neighbours", nargs="+", type=int, default=[0, 1, 2, 3], help="the first is the idle machine")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"), help="folder of the arrow files")
    parser.add_argument("--seconds", type=float, default=3, help="of a turn (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each setting beside as many neighbours")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("-v", action="store_true", help="show what the processes print")
    return parser.parse_args()


def measure(work: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each setting: the rate beside each number of neighbours, and its share of the first rate."""
    words = [work, str(arguments.seconds), str(arguments.data.resolve())]

    def start(setting: str) -> Side:
        return Side("benchmarks.busy_work", words, ROOT, environment=variables(setting))

    with ThreadPoolExecutor() as pool:
        sides = dict(zip(arguments.settings, pool.map(start, arguments.settings), strict=True))
    for side in sides.values():
        side.repeat()  # the first one warms up
    rows, idle = [{"work": work, "setting": name} for name in sides], list[float]()
    for count in arguments.neighbours:
        with neighbours(count):
            for side in sides.values():
                side.repeat()  # in which the number of threads follows
            found = [[side.repeat()["per_s"] for side in sides.values()] for _ in range(arguments.rounds)]
        rates = list(zip(*found, strict=True))
        medians = [statistics.median(some) for some in rates]
        idle = idle or medians
        for row, some, median, first in zip(rows, rates, medians, idle, strict=True):
            row |= {f"{count}": round(median, 1), f"+- {count}": round((max(some) - min(some)) / 2, 1)}
            row |= {f"{count} / idle": round(median / first, 2)}
    for side in sides.values():
        side.close()
    return rows


def variables(setting: str) -> dict[str, str]:
    """The variables of the environment that a setting sets."""
    return {} if setting == OURS else dict(one.split("=", 1) for one in setting.split(","))


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Have other programs compute all the time, each in a session of its own, as the programs of other users are."""
    command = [sys.executable, "-c", _COMPUTE]
    running = [subprocess.Popen(command, start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
