"""Seconds from the command line to the printed configuration, and through a run of one training step.

`python -m benchmarks.startup --data ARROWS`, with the embedded scenes in ARROWS (`python -m write_arrow emoji_scenes`).
The run trains one batch, validates one and ends (`fast_dev_run`). Prints a table; writes it with --json.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.report import ROOT, report


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.startup", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the arrow files")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    step = [
        "with",
        "task_finetune_vqa_emoji",
        f"data_root={arguments.data.resolve()}",
        "fast_dev_run=True",
        "num_gpus=0",
    ]
    commands = {
        "print_config": ["print_config", "with", "task_mlm_itm_mae"],
        "one step, num_workers=0": step,
        "one step, num_workers=1": [*step, "num_workers=1"],
    }
    rows = []
    for name, words in commands.items():
        seconds = [_seconds(words) for _ in range(arguments.repeats)]
        spread = round(max(seconds) - min(seconds), 2)
        rows.append({"command": name, "median_s": round(statistics.median(seconds), 2), "spread_s": spread})
    report(rows, "starting", arguments)


def _seconds(words: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "run.py", *words], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
