"""`python -m demo`: pre-train on the embedded emoji, learn to answer questions, evaluate, report.

Each step is a command that can be typed, and is printed as such. With --all, further tasks are trained and tested: pairs of
images (NLVR2), retrieval and image classification. Ends with an error where VQA misses its threshold.
"""

import argparse
import shlex
import sys
import time
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table as Grid

import main_finetune
from demo.baseline import majority_class, majority_scores, num_rows
from demo.report import write_report
from vlc.common.files import to_json
from vlc.evaluation.predictions import write_text
from vlc.workflows.commands import announce, console, run_command, write

# Augmentation is mild: a crop or a colour off, and many an emoji is another one.
GROUPS_RECIPE = "--epochs 6 --warmup_epochs 1 --blr 0.016 --layer_decay 0.9 --drop_path 0 --smoothing 0".split()
GROUPS_RECIPE += "--aa none --reprob 0".split()
# Pre-training joins two data sets that both have a split "test": metrics tell them apart by name.
SCENES = {"test": "test_emoji_scenes", "held_out": "held_out"}
# Muon takes fewer steps than the recipes have, which are AdamW's.
PRETRAINING_STEPS, VQA_STEPS = 600, 1000
ONE_ANSWER: dict[str, Any] = {"answers.loss": "cross_entropy"}  # each question has a single right answer
QUESTION_TYPES = ("count", "exists", "where", "relation", "total")


def main() -> None:
    arguments = _parser().parse_args()
    started = time.perf_counter()
    for name in ("emoji", "emoji_scenes"):
        write(name, arguments.data)
    common = {"data_root": str(arguments.data), "log_dir": str(arguments.out / "log"), "seed": arguments.seed}
    pretrained = run_command("task_pretrain_emoji", "optim_muon", max_steps=PRETRAINING_STEPS, **common)
    vqa = {**ONE_ANSWER, **common}
    start = {"load_path": pretrained.checkpoint, "max_steps": VQA_STEPS}
    finetuned = run_command("task_finetune_vqa_emoji", "optim_muon", **start, **vqa)
    pretraining_test = run_command("task_pretrain_emoji", load_path=pretrained.checkpoint, test_only=True, **common)
    vqa_test = run_command("task_finetune_vqa_emoji", load_path=finetuned.checkpoint, test_only=True, **vqa)

    majority = {split: majority_scores(arguments.data, split) for split in ("test", "held_out")}
    rows = _table(vqa_test.metrics, pretraining_test.metrics, majority)
    if arguments.all:
        rows += _other_tasks(arguments, common, pretrained.checkpoint, finetuned.checkpoint)
    _print_table(rows)
    report = write_report(arguments.out / "report.html", rows, pretrained, finetuned)
    write_text(arguments.out / "table.json", to_json(rows))
    write_text(arguments.out / "pretrained.txt", pretrained.checkpoint)
    console.print(f"Report: {report}   ({time.perf_counter() - started:.0f} s in all)")

    score = 100 * vqa_test.metrics["vqa/test/score"]
    if score < arguments.min_vqa:
        sys.exit(
            f"VQA reached {score:.1f} % on test, below the {arguments.min_vqa:g} % that a sound model reaches here"
        )


def _parser() -> ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--all", action="store_true", help="fine-tune NLVR2, retrieval and image classification too")
    parser.add_argument("--out", type=Path, default=Path("result/demo"), help="folder of the report and logs")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"), help="folder of the arrow files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--min-vqa", type=float, default=70, metavar="PERCENT", help="fail below it (default: 70)")
    return parser


def _other_tasks(
    arguments: argparse.Namespace, common: Mapping[str, Any], pretrained: str, finetuned: str
) -> list[dict[str, Any]]:
    """Fine-tune and test NLVR2, retrieval and image classification; returns their rows of the result table."""
    for name in ("emoji_groups", "emoji_nlvr2"):
        write(name, arguments.data)
    pairs = run_command("task_finetune_nlvr2_emoji", load_path=finetuned, **common)
    pairs_test = run_command("task_finetune_nlvr2_emoji", load_path=pairs.checkpoint, test_only=True, **common)
    retrieval = run_command("task_retrieval_emoji", "optim_muon", **common)
    retrieval_test = run_command("task_retrieval_emoji", load_path=retrieval.checkpoint, test_only=True, **common)
    groups_test = _classify(arguments, pretrained)
    candidates = num_rows(arguments.data / "emoji_compositional_test.arrow")
    return [
        _pairs_row(pairs_test.metrics),
        *_retrieval_rows(retrieval_test.metrics, candidates),
        _groups_row(groups_test["test_acc1"], majority_class(arguments.data, "emoji_groups", "test")),
    ]


def _classify(arguments: argparse.Namespace, pretrained: str) -> dict[str, float]:
    """Fine-tune a classifier of emoji's groups with main_finetune.py, and evaluate it on test."""
    out = arguments.out / "emoji_groups"
    common = ["--data_path", str(arguments.data / "emoji_groups"), "--nb_classes", "9", "--model", "vit_tiny_patch16"]
    common += ["--input_size", "64", "--batch_size", "32", "--num_workers", "0", "--seed", str(arguments.seed)]
    train = ["--finetune", pretrained, "--output_dir", str(out), "--log_dir", str(out), *GROUPS_RECIPE]
    evaluate = [
        "--eval",
        "--resume",
        str(out / "last.ckpt"),
        "--eval_split",
        "test",
        "--output_dir",
        "",
        "--log_dir",
        "",
    ]
    metrics: dict[str, float] = {}
    for words in (train, evaluate):
        announce(shlex.join(["python", "main_finetune.py", *common, *words]))
        started = time.perf_counter()
        metrics = main_finetune.main([*common, *words])
        console.print(f"{time.perf_counter() - started:.0f} s")
    return metrics


def _table(vqa: dict[str, float], pretraining: dict[str, float], majority: dict[str, dict[str, float]]) -> list[dict]:
    """Rows of the result table: label, value and majority-answer baseline on test and held_out."""
    rows: list[dict[str, Any]] = []
    row: dict[str, Any]
    for kind in ("", *QUESTION_TYPES):
        key = f"score/{kind}" if kind else "score"
        row = {"label": f"VQA accuracy, {kind or 'all questions'}", "unit": "%"}
        for split in ("test", "held_out"):
            row[split] = round(100 * vqa[f"vqa/{split}/{key}"], 1)
            row[f"{split}_chance"] = round(100 * majority[split][kind or "all"], 1)
        rows.append(row)
    for label, key, unit in (
        ("MLM accuracy", "mlm/{}/accuracy", "%"),
        ("ITM accuracy", "itm/{}/accuracy", "%"),
        ("MAE loss", "mae/{}/loss", ""),
    ):
        row = {"label": label, "unit": unit}
        for split in ("test", "held_out"):
            value = pretraining[key.format(SCENES[split])]
            row[split] = round(100 * value, 1) if unit else round(value, 3)
            row[f"{split}_chance"] = 50.0 if label.startswith("ITM") else None
        rows.append(row)
    return rows


def _pairs_row(metrics: dict[str, float]) -> dict:
    row: dict[str, Any] = {"label": "NLVR2 accuracy", "unit": "%"}
    for split in ("test", "held_out"):
        row |= {split: round(100 * metrics[f"nlvr2/{split}/accuracy"], 1), f"{split}_chance": 50.0}
    return row


def _retrieval_rows(metrics: dict[str, float], candidates: int) -> list[dict]:
    """Recall at 1 both ways; one image and one text are right of `candidates` each."""
    return [
        _test_row(f"{label}, R@1 of {candidates}", 100 * metrics[f"itc/test/{key}"], 100 / candidates)
        for label, key in (("Image for a text", "ir_r1"), ("Text for an image", "tr_r1"))
    ]


def _groups_row(accuracy: float, majority: float) -> dict:
    return _test_row("Emoji groups (nine classes), top-1", accuracy, 100 * majority)


def _test_row(label: str, value: float, majority: float) -> dict:
    """A row of a data set without a held_out split."""
    row = {"label": label, "unit": "%", "test": round(value, 1), "test_chance": round(majority, 1)}
    return row | {"held_out": None, "held_out_chance": None}


def _print_table(rows: list[dict]) -> None:
    grid = Grid(title="Embedded data, held back from training")
    grid.add_column("")
    for column in ("test", "chance", "held_out", "chance"):
        grid.add_column(column, justify="right")
    for row in rows:
        cells = [row[key] for key in ("test", "test_chance", "held_out", "held_out_chance")]
        grid.add_row(row["label"], *("" if cell is None else f"{cell} {row['unit']}".strip() for cell in cells))
    console.print(grid)


if __name__ == "__main__":
    main()
