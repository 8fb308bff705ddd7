"""`python -m demo.replicas`: fine-tune the tasks whose data set is an embedded replica, and test what each model relies on.

Every run starts from the checkpoint that `make demo` pre-trains, and is printed as a command that can be typed. The table
has the metric on test, the value of a guess, and the values of the same model with the images of other rows and with empty
texts.
"""

import argparse
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table as Grid

from demo.baseline import any_box, candidates, most_frequent_answer, same_box
from vlc.common.files import to_json
from vlc.configuration.config import resolve_use
from vlc.evaluation.predictions import write_text
from vlc.use.hard_pool import make_hard_pools
from vlc.workflows.commands import announce, console, run_command, typed, write


@dataclass(frozen=True)
class Replica:
    """A task on embedded data in the form of a published data set.

    dataset: the name by which `python -m write_arrow` writes it.
    guesses: by the metric of each head, what a guess reaches on test, from the folder of the Arrow files.
    hard_pool: whether training draws texts of images that look alike.
    """

    task: str
    dataset: str
    guesses: Mapping[str, Callable[[Path], float]]
    hard_pool: bool = False


def one_in(count: int) -> Callable[[Path], float]:
    """A guess among so many."""
    return lambda folder: 1 / count


REPLICAS = (
    Replica("gqa_emoji", "emoji_gqa", {"score": lambda folder: most_frequent_answer(folder, "emoji_gqa", "test")}),
    Replica("snli_ve_emoji", "emoji_snli_ve", {"accuracy": one_in(3)}),
    Replica("foil_emoji", "emoji_foil", {"accuracy": one_in(2)}),
    Replica(
        "visdial_emoji", "emoji_visdial", {"accuracy": lambda folder: 1 / candidates(folder, "emoji_visdial", "test")}
    ),
    Replica("irtr_mc4_emoji", "emoji_scenes", {"accuracy": one_in(4)}, hard_pool=True),
    Replica(
        "refer_emoji",
        "emoji_refer",
        {
            "refer_accuracy": lambda folder: any_box(folder, "emoji_refer", "test"),
            "refer_box_accuracy": lambda folder: same_box(folder, "emoji_refer", "test"),
        },
    ),
    Replica("pointing_emoji", "emoji_pointing", {"accuracy": one_in(4)}),
    Replica("guess_emoji", "emoji_guess", {"accuracy": lambda folder: any_box(folder, "emoji_guess", "test")}),
    Replica("vcr_qa_emoji", "emoji_vcr", {"accuracy": one_in(4)}),
    Replica("vcr_qar_emoji", "emoji_vcr", {"accuracy": one_in(4)}),
)


def main() -> None:
    arguments = _parser().parse_args()
    wanted = [replica for replica in REPLICAS if not arguments.tasks or replica.task in arguments.tasks]
    rows = [row for replica in wanted for row in _measured(replica, arguments)]
    grid = Grid(title="Embedded replicas on test")
    for column in ("task", "metric", "value", "guess", "wrong images", "no text", "minutes"):
        grid.add_column(column, justify="left" if column in ("task", "metric") else "right")
    for row in rows:
        grid.add_row(*(f"{value:.1f}" if isinstance(value, float) else value for value in row.values()))
    console.print(grid)
    write_text(arguments.out / "replicas.json", to_json(rows))


def _parser() -> ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.replicas", description=__doc__)
    names = [replica.task for replica in REPLICAS]
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"some of {', '.join(names)} (default: all)")
    parser.add_argument("--out", type=Path, default=Path("result/replicas"), help="folder of logs and table")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"), help="folder of the arrow files")
    parser.add_argument("--pretrained", type=Path, help="checkpoint to start from (default: pre-train one)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _measured(replica: Replica, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row of the table for each metric: percentages, and the minutes of the training."""
    write(replica.dataset, arguments.data)
    common = {"data_root": str(arguments.data), "log_dir": str(arguments.out / "log"), "seed": arguments.seed}
    if not arguments.pretrained:
        arguments.pretrained = pretrain(arguments.data, common)
    if replica.hard_pool:
        make_hard_pool(replica.dataset, arguments.pretrained, arguments.data)
    named, started = f"task_finetune_{replica.task}", time.perf_counter()
    trained = run_command(named, load_path=str(arguments.pretrained), **common)
    minutes = (time.perf_counter() - started) / 60
    tested = run_command(named, load_path=trained.checkpoint, test_only=True, **common).metrics
    rows = []
    for metric, guess in replica.guesses.items():
        value, wrong_images, no_text = (
            100 * tested[f"{replica.task}/test/{metric}{suffix}"]
            for suffix in ("", "_with_wrong_images", "_without_text")
        )
        percentages = {
            "value": value,
            "guess": 100 * guess(arguments.data),
            "wrong_images": wrong_images,
            "no_text": no_text,
        }
        rounded = {name: round(number, 1) for name, number in percentages.items()}
        rows.append({"task": replica.task, "metric": metric, **rounded, "minutes": round(minutes, 1)})
    return rows


def pretrain(data: Path, common: Mapping[str, Any]) -> str:
    """Pre-train as `make demo` does. Returns the path of the checkpoint."""
    for name in ("emoji", "emoji_scenes"):
        write(name, data)
    return run_command("task_pretrain_emoji", **common).checkpoint


def make_hard_pool(dataset: str, checkpoint: str | Path, data: Path) -> None:
    """Find the images that look alike, from which training draws texts."""
    keys = {"load_path": str(checkpoint), "data_root": str(data), "datasets": [dataset]}
    announce(f"python run.py hard_pool with {typed(keys)}")
    make_hard_pools(*resolve_use(**keys))


if __name__ == "__main__":
    main()
