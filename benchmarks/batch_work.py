"""Work over whole data sets: rows a second in one process and in several, kills in between, and the memory.

`python -m benchmarks.batch_work` writes generated tables (small pictures with a caption each), trains a tiny checkpoint for
one step, and runs `run.py features` and `run.py index` on them: in one process without interruption; killed (SIGKILL) at
random moments and started again until it is done; and in several processes. The files of all must have the same bytes.
It prints a table and, with --json, writes it. Memory is the peak of a process with all that it imports, without the files
that it maps.
"""

import argparse
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks.report import ROOT, report
from vlc.configuration.config import resolve
from vlc.configuration.settings import Settings

_STEM = "coco_caption_karpathy_{}"
_PICTURES = 512  # different ones
_BATCH = 1000  # rows of a record batch
_START = 4.0  # seconds of imports, before which there is nothing to kill
_OTHER_ROWS = 16  # of the tables for the training


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch_work", description=__doc__)
    parser.add_argument("--commands", nargs="+", default=["features", "index"])
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[10_000, 100_000], help="numbers of rows, each by itself"
    )
    parser.add_argument("--kills", type=int, default=4, help="of the largest number of rows; 0: none")
    parser.add_argument("--processes", type=int, default=2, help="beside one; 1: only one")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--folder", type=Path, help="where temporary files go (default: the system's)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        checkpoint = _checkpoint(folder)
        for count in arguments.rows:
            _write_table(folder / f"data{count}" / f"{_STEM.format('test')}.arrow", count)
            kills = arguments.kills if count == max(arguments.rows) else 0
            for command in arguments.commands:
                rows.append(_measured(command, folder, checkpoint, count, kills, arguments))
                print(rows[-1], flush=True)  # the table comes late
    report(rows, "work over whole data sets", arguments)


def _measured(
    command: str, folder: Path, checkpoint: str, count: int, kills: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    values: dict[str, Any] = {
        "load_path": checkpoint,
        "data_root": folder / f"data{count}",
        "datasets": "[coco]",
        "splits": "[test]",
    }
    values |= {"num_gpus": 0, "num_workers": 0, "per_gpu_batchsize": arguments.batch}

    def words(name: str) -> list[str]:
        out = {"index" if command == "index" else "out": folder / f"{command}{count}{name}"}
        return ["run.py", command, "with", *(f"{key}={value}" for key, value in (values | out).items())]

    seconds, used, memory = _run([sys.executable, *words("")])
    whole = _contents(folder / f"{command}{count}")
    row: dict[str, Any] = {
        "command": command,
        "rows": count,
        "s": seconds,
        "rows/s": count / seconds,
        "peak MB": memory,
    }
    if arguments.processes > 1:
        launch = ["-m", "launch", "--standalone", f"--nproc_per_node={arguments.processes}"]
        together, used, _ = _run([sys.executable, *launch, *words("together")])
        same = _contents(folder / f"{command}{count}together") == whole
        row |= {
            f"s, {arguments.processes} processes": together,
            "their CPU s": used,
            "times as fast": seconds / together,
            "equal bytes": same,
        }
    if kills:
        begun = _killed([sys.executable, *words("killed")], kills, seconds, random.Random(arguments.seed))
        _run([sys.executable, *words("killed")])
        row |= {"kills": kills, "s until each": begun, "equal": _contents(folder / f"{command}{count}killed") == whole}
    else:
        row |= {"kills": 0, "s until each": "", "equal": ""}
    return row


def _run(command: list[str]) -> tuple[float, float, float]:
    """Run a command; returns its seconds, the seconds of all its processes on cores, and megabytes of the first one.

    Raises RuntimeError where it fails.
    """
    start, memory = time.perf_counter(), 0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, cwd=ROOT, env=_environment(), stdout=said, stderr=subprocess.STDOUT)
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            with suppress(OSError):
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                memory = max(memory, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)
            time.sleep(0.1)
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{said.read().decode(errors='replace')}")
    return time.perf_counter() - start, ended[2].ru_utime + ended[2].ru_stime, memory / 1000


def _killed(command: list[str], kills: int, seconds: float, rng: random.Random) -> str:
    """Start a command several times, and kill it with all its processes; returns after how many seconds each."""
    moments = []
    for _ in range(kills):
        moments.append(rng.uniform(0.1, 1.0) * seconds / kills + _START)
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(moments[-1])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return " ".join(f"{moment:.0f}" for moment in moments)


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _write_table(path: Path, count: int) -> None:
    """Write rows of a picture and a caption, a record batch at a time."""
    rng = np.random.default_rng(0)
    pictures = [_jpeg(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(_PICTURES)]
    schema = pa.schema({"image": pa.binary(), "caption": pa.list_(pa.string()), "image_id": pa.int64()})
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_file(str(path), schema) as writer:
        for first in range(0, count, _BATCH):
            numbers = range(first, min(first + _BATCH, count))
            columns = {
                "image": [pictures[number % _PICTURES] for number in numbers],
                "caption": [[f"a dog beside {number} cats"] for number in numbers],
                "image_id": list(numbers),
            }
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema))


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def _checkpoint(folder: Path) -> str:
    """Train a tiny model with embeddings for one step; returns the checkpoint."""
    from vlc.training.run import run

    for split in ("train", "restval", "val", "test"):
        _write_table(folder / "training" / f"{_STEM.format(split)}.arrow", _OTHER_ROWS)
    values: dict[str, Any] = {
        "data_root": str(folder / "training"),
        "log_dir": str(folder / "log"),
        "vit": "mae_vit_tiny_patch16",
    }
    values |= {"image_size": 32, "tokenizer": "emoji", "vocab_size": None, "max_text_len": 16, "loss_names": {"itc": 1}}
    values |= {"datasets": ["coco"], "batch_size": 4, "per_gpu_batchsize": 4, "num_gpus": 0, "num_workers": 0}
    values |= {"max_steps": 1, "warmup_steps": 0, "is_pretrain": False}
    metrics = run(Settings.from_config(resolve(**values)))
    return f"{metrics['log_dir']}/checkpoints/last.ckpt"


if __name__ == "__main__":
    main()
