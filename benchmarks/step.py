"""Training steps and the ranking of texts: seconds, peak memory, and the share of what the processor's products reach.

A row for each figure of `benchmarks.cases`, beside the published implementation where a checkout of it is given:
    git clone https://github.com/guilk/VLC VLC
    python -m benchmarks.step --case pretrain_224 --compare VLC
or beside an older checkout of this project:
    git worktree add OLD COMMIT
    python -m benchmarks.step --case pretrain_224 --against OLD
Both sides run in processes of their own and take turns, so that a noisy machine disturbs both alike.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import CASES, inputs, needed_flops
from benchmarks.report import ROOT, report

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PEAK_SIZE = 2048  # sides of the square matrices by whose product the processor is measured


class Side:
    """A worker process: `python -m MODULE CASE BATCH PRECISION ...`, which runs a repeat for each line it reads.

    folder: where the module's code is looked for first.
    alone: whether this project's code is looked for nowhere else.
    environment: variables that it has beside those of this process.
    """

    def __init__(
        self,
        module: str,
        words: list[str],
        folder: Path,
        *,
        alone: bool = False,
        environment: Mapping[str, str] | None = None,
    ):
        search = str(folder) if alone else os.pathsep.join([str(folder), str(ROOT)])
        command = [sys.executable, "-m", module, *words]
        self._command = " ".join(command)
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": search, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if "-v" in sys.argv else subprocess.DEVNULL,
            text=True,
        )
        self.repeats: list[dict[str, float]] = []
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # a pipe, as its input
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._command} ended: run it with -v to see why")
        return json.loads(line)

    def repeat(self) -> dict[str, float]:
        print(file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        self._process.communicate()  # closes its input, and waits


def main() -> None:
    arguments = _parse()
    peaks = {precision: measured_peak(DTYPES[precision]) for precision in arguments.precision}
    rows = []
    for name in arguments.case:
        for precision in arguments.precision:
            rows += measure(name, precision, arguments, peaks[precision])
    speeds = ", ".join(f"{name} {peak / 1e12:.2f} TFLOP/s" for name, peak in peaks.items())
    report(rows, f"products: {speeds}", arguments, peaks=peaks)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--case", nargs="+", choices=CASES, default=["pretrain_224"])
    parser.add_argument("--precision", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--compare", type=Path, metavar="VLC", help="checkout of guilk/VLC")
    parser.add_argument("--against", type=Path, metavar="OLD", help="older checkout of this project")
    parser.add_argument("--batch", type=int, help="by default the case's")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="config keys of our side")
    parser.add_argument("--warmup", type=int, default=2, help="repeats that do not count (default: 2)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("-v", action="store_true", help="show what the sides print")
    return parser.parse_args()


def measure(name: str, precision: str, arguments: argparse.Namespace, peak: float) -> list[dict[str, Any]]:
    """A row for each side; the ratios are the last side's figure over each side's."""
    case = CASES[name]
    batch = arguments.batch or case.batch
    words = [name, str(batch), precision]
    sides = {"ours": Side("benchmarks.ours", [*words, *arguments.set], ROOT)}
    if arguments.compare:
        folder, environment = arguments.compare.resolve(), {"GOMP_SPINCOUNT": "300000"}  # libgomp's own, not vlc's
        sides["published"] = Side("benchmarks.published", words, folder, environment=environment)
    if arguments.against:
        sides["older"] = Side("benchmarks.ours", [*words, *arguments.set], arguments.against.resolve(), alone=True)
    for number in range(arguments.warmup + arguments.repeats):
        for side in sides.values():
            answer = side.repeat()
            if number >= arguments.warmup:
                side.repeats.append(answer)
    for side in sides.values():
        side.close()
    flops = needed_flops(case, batch, inputs(case, batch))
    rows = [_row(name, precision, side, sides[side].repeats, batch, flops, peak) for side in sides]
    for row in rows:
        row["faster"] = round(rows[-1]["median_s"] / row["median_s"], 2) if len(rows) > 1 else None
        row["memory"] = round(row["peak_mb"] / rows[-1]["peak_mb"], 2) if len(rows) > 1 else None
    return rows


def _row(
    name: str, precision: str, side: str, repeats: list[dict], batch: int, flops: float, peak: float
) -> dict[str, Any]:
    seconds = [repeat["seconds"] for repeat in repeats]
    median = statistics.median(seconds)
    return {
        "case": name,
        "precision": precision,
        "side": side,
        "median_s": round(median, 3),
        "spread_s": round(max(seconds) - min(seconds), 3),
        "per_s": round(batch / median, 2),
        "peak_mb": round(max(repeat["peak_mb"] for repeat in repeats)),
        "tflop": round(flops / 1e12, 3),
        "of_peak": round(flops / median / peak, 3),
    }


def measured_peak(dtype: torch.dtype) -> float:
    """FLOP/s of the best of ten products of two matrices, by the faster of torch's own product and oneDNN's."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = PEAK_SIZE * (4 if device == "cuda" else 1)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    products = [lambda: left @ right]
    if device == "cpu" and torch.backends.mkldnn.is_available():
        products.append(lambda: torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], ""))
    best = float("inf")
    for product in products:
        for _ in range(11):
            started = time.perf_counter()
            product()
            if device == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


if __name__ == "__main__":
    main()
