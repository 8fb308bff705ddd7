"""`python -m demo`: pre-train on the embedded emoji, fine-tune VQA on scenes of them, evaluate, report.

Each step is a command that can be typed, and is printed as such. Ends with an error where VQA misses its threshold.
"""

import argparse
import sys
import time
from argparse import ArgumentParser
from pathlib import Path

from rich.console import Console
from rich.table import Table as Grid

from demo.baseline import majority_scores
from demo.report import Stage, write_report
from vlc.config import resolve
from vlc.objectives.base import to_json
from vlc.predictions import write_text
from vlc.run import run
from vlc.settings import Settings
from write_arrow.__main__ import main as write_arrow

console = Console()
QUESTION_TYPES = ("count", "exists", "where", "relation", "total")


def main() -> None:
    arguments = _parser().parse_args()
    started = time.perf_counter()
    for name in ("emoji", "emoji_scenes"):
        _announce(f"python -m write_arrow {name} --out {arguments.data}")
        write_arrow([name, "--out", str(arguments.data)])
    common = {"data_root": str(arguments.data), "log_dir": str(arguments.out / "log"), "seed": arguments.seed}
    pretrained = _run("task_pretrain_emoji", **common)
    finetuned = _run("task_finetune_vqa_emoji", load_path=pretrained.checkpoint, **common)
    pretraining_test = _run("task_pretrain_emoji", load_path=pretrained.checkpoint, test_only=True, **common)
    vqa_test = _run("task_finetune_vqa_emoji", load_path=finetuned.checkpoint, test_only=True, **common)

    majority = {split: majority_scores(arguments.data, split) for split in ("test", "held_out")}
    rows = _table(vqa_test.metrics, pretraining_test.metrics, majority)
    _print_table(rows)
    report = write_report(arguments.out / "report.html", rows, pretrained, finetuned)
    write_text(arguments.out / "table.json", to_json(rows))
    console.print(f"Report: {report}   ({time.perf_counter() - started:.0f} s in all)")

    score = 100 * vqa_test.metrics["vqa/test/score"]
    if score < arguments.min_vqa:
        sys.exit(
            f"VQA reached {score:.1f} % on test, below the {arguments.min_vqa:g} % that a sound model reaches here"
        )


def _parser() -> ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("result/demo"), help="folder of the report and logs")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"), help="folder of the arrow files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--min-vqa", type=float, default=65, metavar="PERCENT", help="fail below it (default: 65)")
    return parser


def _run(named: str, **updates) -> Stage:
    """One run.py command, in this process."""
    words = [f"{key}={value}" for key, value in updates.items()]
    _announce(" ".join(["python run.py with", named, *words]))
    started = time.perf_counter()
    settings = Settings.from_config(resolve(named, **updates))
    metrics = run(settings)
    console.print(f"{time.perf_counter() - started:.0f} s")
    return Stage(settings, metrics, Path(metrics.pop("log_dir")))


def _announce(command: str) -> None:
    console.rule(style="dim")
    console.print(f"$ {command}", style="bold", highlight=False, soft_wrap=True)


def _table(vqa: dict[str, float], pretraining: dict[str, float], majority: dict[str, dict[str, float]]) -> list[dict]:
    """Rows of the result table: label, value and majority-answer baseline on test and held_out."""
    rows = []
    for kind in ("", *QUESTION_TYPES):
        key = f"score/{kind}" if kind else "score"
        row = {"label": f"VQA accuracy, {kind or 'all questions'}", "unit": "%"}
        for split in ("test", "held_out"):
            row[split] = round(100 * vqa[f"vqa/{split}/{key}"], 1)
            row[f"{split}_majority"] = round(100 * majority[split][kind or "all"], 1)
        rows.append(row)
    for label, key, unit in (
        ("MLM accuracy", "mlm/{}/accuracy", "%"),
        ("ITM accuracy", "itm/{}/accuracy", "%"),
        ("MAE loss", "mae/{}/loss", ""),
    ):
        row = {"label": label, "unit": unit}
        for split in ("test", "held_out"):
            value = pretraining[key.format(split)]
            row[split] = round(100 * value, 1) if unit else round(value, 3)
            row[f"{split}_majority"] = 50.0 if label.startswith("ITM") else None
        rows.append(row)
    return rows


def _print_table(rows: list[dict]) -> None:
    grid = Grid(title="Embedded data, held back from training")
    grid.add_column("")
    for column in ("test", "majority", "held_out", "majority"):
        grid.add_column(column, justify="right")
    for row in rows:
        cells = [row[key] for key in ("test", "test_majority", "held_out", "held_out_majority")]
        grid.add_row(row["label"], *("" if cell is None else f"{cell} {row['unit']}".strip() for cell in cells))
    console.print(grid)


if __name__ == "__main__":
    main()
