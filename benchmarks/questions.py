"""The speed and the peak memory of GQA's writer at few and at many questions: its annotations are one JSON object.

`python -m benchmarks.questions`; prints a table. Questions are made in GQA's layout, ten about each image; images are
random bytes, and verification is off.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.write import PEAK

QUESTIONS_OF_AN_IMAGE = 10
FILES = 100  # different image files; the others are links to them


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.questions", description=__doc__)
    parser.add_argument("--questions", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--kilobytes", type=int, default=20, help="of each image (default: 20)")
    parser.add_argument("--folder", type=Path, help="where temporary files go (default: the system's)")
    arguments = parser.parse_args()
    table = Table("questions", "rows", "annotations", "seconds", "questions/s", "rows/s", "peak memory")
    for count in arguments.questions:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            table.add_row(*_measured(Path(folder), count, arguments.kilobytes))
    Console().print(table)


def _measured(folder: Path, count: int, kilobytes: int) -> Iterator[str]:
    rows = count // QUESTIONS_OF_AN_IMAGE
    size = _raw_data(folder / "raw", count, rows, kilobytes)
    words = ["gqa", "--root", str(folder / "raw"), "--no-verify", "--workers", "1", "--out", str(folder / "out")]
    start = time.perf_counter()
    printed = subprocess.run([sys.executable, "-c", PEAK, *words], check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    peak = int(printed.stdout.split()[-1]) / 1000
    yield from (f"{count:,}", f"{rows:,}", f"{size / 1e6:,.0f} MB", f"{seconds:.1f}")
    yield from (f"{count / seconds:,.0f}", f"{rows / seconds:,.0f}", f"{peak:,.0f} MB")


def _raw_data(root: Path, count: int, num_images: int, kilobytes: int) -> int:
    """Questions and images in GQA's layout, nine tenths of them in train; returns the bytes of the annotations."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    for number in range(num_images):
        path = root / f"images/{number}.jpg"
        if number < FILES:
            path.write_bytes(rng.bytes(kilobytes * 1000))
        else:
            os.link(root / f"images/{number % FILES}.jpg", path)
    size = 0
    for split, numbers in (("train", range(count // 10, count)), ("val", range(count // 10))):
        path = root / f"{split}_balanced_questions.json"
        path.write_text(json.dumps({f"{number:09}": _question(number) for number in numbers}))
        size += path.stat().st_size
    return size


def _question(number: int) -> dict:
    answer = f"answer {number % 1842}"
    steps = ("select", "relate", "filter color", "query")
    pointers = {str(place): str(1_000_000 + number + place) for place in range(4)}
    return {
        "semantic": [{"operation": step, "dependencies": [0], "argument": f"thing ({number})"} for step in steps],
        "entailed": [f"{number // 10 * 10 + place:09}" for place in range(5)],
        "equivalent": [f"{number:09}"],
        "question": f"What is the thing number {number} on the left side of the picture made of?",
        "imageId": str(number // QUESTIONS_OF_AN_IMAGE),
        "isBalanced": True,
        "groups": {"global": "material", "local": f"13-thing_{number}"},
        "answer": answer,
        "semanticStr": "->".join(f"{step}: thing ({number}) [0]" for step in steps),
        "annotations": {"answer": pointers, "question": pointers, "fullAnswer": pointers},
        "types": {"detailed": "materialThis", "semantic": "attr", "structural": "query"},
        "fullAnswer": f"The thing number {number} is made of {answer}.",
    }


if __name__ == "__main__":
    main()
