"""Building and searching an index of embeddings, and how much of the exact result it finds.

`python -m benchmarks.index` prints a table and, with --json, writes it. Vectors have the model's width and lie around
random centres on the unit sphere; queries are further such vectors. The exact result comes from comparing all vectors.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.report import report
from benchmarks.worker import status
from vlc.use.vectors import Vectors, build

K = 10
_BLOCK = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000], help="numbers of vectors")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--cluster", type=int, default=20, help="vectors around a centre, on average")
    parser.add_argument("--noise", type=float, default=1.0, help="length of the noise around centres of length 1")
    parser.add_argument("--folder", type=Path, help="where temporary files go (default: the system's)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            rows.append(_measured(Path(folder), size, arguments))
    report(rows, "searching an index", arguments)


def _measured(folder: Path, size: int, arguments: argparse.Namespace) -> dict[str, float]:
    rng = np.random.default_rng(0)
    centres = _unit(rng.standard_normal((max(1, size // arguments.cluster), arguments.width), dtype=np.float32))
    vectors = np.memmap(folder / "vectors", np.float32, "w+", shape=(size, arguments.width))
    for first in range(0, size, _BLOCK):
        vectors[first : first + _BLOCK] = _around(centres, min(_BLOCK, size - first), arguments.noise, rng)
    queries = _around(centres, arguments.queries, arguments.noise, rng)
    start = time.perf_counter()
    true = _exact(vectors, queries)
    exact_seconds = time.perf_counter() - start
    start = time.perf_counter()
    with peak_memory() as peak:
        files = build(vectors, folder, "index", flat_up_to=0)
    build_seconds = time.perf_counter() - start
    index = Vectors(folder, files)
    index.nearest(queries[:10], K)  # reads the lists into the page cache
    start = time.perf_counter()
    found = np.concatenate([index.nearest(query[None], K)[1] for query in queries])
    seconds = time.perf_counter() - start
    hits = [len(set(one) & set(other)) for one, other in zip(found.tolist(), true.tolist(), strict=True)]
    written = sum(path.stat().st_size for path in folder.glob("index.*"))
    return {
        "vectors": size,
        "build s": build_seconds,
        "ms a query": 1000 * seconds / len(queries),
        "ms a query, exact, all at once": 1000 * exact_seconds / len(queries),
        "recall@10": sum(hits) / (K * len(queries)),
        "GB on disk": written / 1e9,
        "GB of memory to build": max(peak) / 1e6,
    }


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Kilobytes of memory beyond what there was before, a few times a second; files that are mapped do not count."""
    done, sizes, before = threading.Event(), list[int](), status("RssAnon")

    def look() -> None:
        while True:
            sizes.append(status("RssAnon") - before)
            if done.wait(0.1):
                return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield sizes
    finally:
        done.set()
        thread.join()


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _around(centres: np.ndarray, count: int, noise: float, rng: np.random.Generator) -> np.ndarray:
    spread = rng.standard_normal((count, centres.shape[1]), dtype=np.float32) * (noise / centres.shape[1] ** 0.5)
    return _unit(centres[rng.integers(len(centres), size=count)] + spread)


def _exact(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Numbers (Q, K) of the nearest vectors, by comparing all."""
    scores, numbers = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(vectors), _BLOCK):
        block = queries @ vectors[start : start + _BLOCK].T
        scores = np.concatenate([scores, block], axis=1)
        here = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        numbers = np.concatenate([numbers, here], axis=1)
        best = np.argsort(-scores, axis=1)[:, :K]
        scores, numbers = np.take_along_axis(scores, best, 1), np.take_along_axis(numbers, best, 1)
    return numbers


if __name__ == "__main__":
    main()
