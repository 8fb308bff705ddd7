"""The writer's throughput beside a plain copy of the same files, and its peak memory at few and at many images.

`python -m benchmarks.write` prints a table and, with --json, writes it. Images are random bytes and verification is off, so
that only reading, planning and writing are measured. The writer ends with its file on disk (fsync); the copy is timed both
ways.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.report import report

# The kernel's own record: getrusage would count what this process held when it started the other one.
PEAK = """
import re, sys
from write_arrow.__main__ import main
main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def main() -> None:
    arguments = _parse()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rows = _throughput(Path(folder), arguments) + _memory(Path(folder), arguments)
    report([{"measure": name, "value": value} for name, value in rows], "writing", arguments)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.write", description=__doc__)
    parser.add_argument("--images", type=int, default=3000, help="images for the throughput (default: 3000)")
    parser.add_argument("--kilobytes", type=int, default=100, help="size of each of these images (default: 100)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--few", type=int, default=1000, help="images of the lower memory measurement (default: 1000)")
    parser.add_argument("--many", type=int, default=100_000, help="images of the higher one (default: 100000)")
    parser.add_argument(
        "--small-kilobytes", type=int, default=20, help="size of each image of the memory measurements (default: 20)"
    )
    parser.add_argument("--folder", type=Path, help="where temporary files go (default: the system's)")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _images(root: Path, num_images: int, kilobytes: int, num_files: int | None = None) -> None:
    """An SBU layout of random files; those beyond num_files are links to the first ones."""
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(num_images):
        path = root / "images_train" / f"{number // 1000:04}" / f"{number:09}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if num_files is None or number < num_files:
            path.write_bytes(rng.bytes(kilobytes * 1000))
        else:
            original = number % num_files
            os.link(root / "images_train" / f"{original // 1000:04}" / f"{original:09}.jpg", path)
        pairs.append([str(path.relative_to(root)), f"the caption of image {number}"])
    (root / "annot.json").write_text(json.dumps(pairs))


def _throughput(folder: Path, arguments: argparse.Namespace) -> list[tuple[str, str]]:
    from write_arrow.__main__ import main as write

    raw = folder / "raw"
    _images(raw, arguments.images, arguments.kilobytes)
    words = ["sbu", "--root", str(raw), "--no-verify", "--workers", "1", "--out"]

    def copy() -> None:
        shutil.copytree(raw, folder / "copy")

    def copy_to_disk() -> None:
        copy()
        os.sync()

    sides: dict[str, Callable[[], None]] = {
        "plain copy": copy,
        "plain copy, to disk": copy_to_disk,
        "writer, to disk": lambda: write([*words, str(folder / "copy")]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.repeats + 1):  # in turn; the first round warms up
        for name, side in sides.items():
            shutil.rmtree(folder / "copy", ignore_errors=True)
            os.sync()
            start = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - start)
    shutil.rmtree(folder / "copy", ignore_errors=True)
    rates = {
        name: arguments.images * arguments.kilobytes / 1000 / statistics.median(values[1:])
        for name, values in seconds.items()
    }
    rows = [(name, f"{rate:,.0f} MB/s") for name, rate in rates.items()]
    for name in ("plain copy", "plain copy, to disk"):
        rows.append((f"writer / {name}", f"{rates['writer, to disk'] / rates[name]:.0%}"))
    return rows


def _memory(folder: Path, arguments: argparse.Namespace) -> list[tuple[str, str]]:
    peaks = []
    for num_images in (arguments.few, arguments.many):
        raw, out = folder / f"raw_{num_images}", folder / f"out_{num_images}"
        _images(raw, num_images, arguments.small_kilobytes, arguments.few)
        words = ["sbu", "--root", str(raw), "--no-verify", "--workers", "1", "--out", str(out)]
        printed = subprocess.run([sys.executable, "-c", PEAK, *words], check=True, capture_output=True, text=True)
        peaks.append(int(printed.stdout.split()[-1]) / 1000)
        shutil.rmtree(out)
        shutil.rmtree(raw)
    few, many = peaks
    return [
        (f"peak memory at {arguments.few:,} images", f"{few:,.0f} MB"),
        (f"peak memory at {arguments.many:,} images", f"{many:,.0f} MB"),
        ("many / few", f"{many / few:.0%}"),
    ]


if __name__ == "__main__":
    main()
