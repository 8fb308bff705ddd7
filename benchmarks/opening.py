"""Opening the data of tasks, as a run does before its first step: seconds and memory.

`python -m benchmarks.opening --rows 1000000` prints a row for each task of 12-in-1 and one for all together, each opened in
a process of its own; with --json it writes them. Every task's training file has so many rows, of two texts as a rule: 500
generated rows, repeated, with 20 bytes for an image.
"""

import argparse
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.data import memory
from benchmarks.report import report
from tests import tiny
from vlc.configuration.config import resolve
from vlc.configuration.recipes import RECIPES
from vlc.configuration.settings import Settings
from vlc.data.catalog import CATALOG
from vlc.tasks import TASKS
from vlc.training.run import build_data

BLOCK = 500  # generated rows
MIXED = tuple(RECIPES["task_12in1"]["tasks"])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.opening", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="of each training file (default: 1000000)")
    parser.add_argument("--tasks", nargs="+", default=list(MIXED), help="default: those of 12-in-1")
    parser.add_argument("--folder", type=Path, help="where temporary files go (default: the system's)")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        sizes = {name: _write(Path(folder), name, arguments.rows) for name in arguments.tasks}
        rows = [{"task": name, "file_mb": round(sizes[name])} | _opened(folder, [name]) for name in arguments.tasks]
        if len(arguments.tasks) > 1:
            together = {"task": "all together", "file_mb": round(sum(sizes.values()))}
            rows.append(together | _opened(folder, arguments.tasks))
    report(rows, f"opening {arguments.rows:,} rows of each task", arguments)


def _write(folder: Path, task: str, num_rows: int) -> float:
    """The data sets of a task, one training file of each in full length; returns their megabytes."""
    size = 0
    for name in TASKS[task].datasets:
        spec = CATALOG[name]
        tiny.write_dataset(folder, name, BLOCK)
        path = folder / f"{spec.tables['train'][0].replace('*', '0')}.arrow"
        block = pa.ipc.open_file(str(path)).read_all()
        for column in spec.images:
            place = block.schema.get_field_index(column)
            block = block.set_column(place, column, pa.array([bytes(20)] * len(block), pa.binary()))
        with pa.ipc.new_file(str(path), block.schema) as writer:
            for _ in range(num_rows // BLOCK):
                writer.write_table(block)
        if TASKS[task].options.get("choice", {}).get("hard_texts"):
            tiny.write_hard_pool(folder, name)
        size += path.stat().st_size
    return size / 1e6


def _opened(folder: str, tasks: Sequence[str]) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_open, (folder, tasks))


def _open(folder: str, tasks: Sequence[str]) -> dict[str, Any]:
    """Seconds, and the memory that opening adds: all that is mapped, and the process's own."""
    logging.disable(logging.WARNING)
    changes = {"tasks": list(tasks), "data_root": folder, "tokenizer": "emoji", "vocab_size": None}
    settings = Settings.from_config(resolve(**changes, per_gpu_batchsize=4))
    before, started = memory(), time.perf_counter()
    data = build_data(settings)
    seconds, after = time.perf_counter() - started, memory()
    return {
        "samples": sum(len(one.train) for one in data.tasks.values() if one.train is not None),
        "seconds": round(seconds, 2),
        "rss_mb": round(after["Rss"] - before["Rss"]),
        "own_mb": round(after["Anonymous"] - before["Anonymous"]),
    }


if __name__ == "__main__":
    main()
