"""`python -m demo.multitask`: train embedded replicas of many tasks in one model, and test each.

Every run starts from the checkpoint that `make demo` pre-trains, and is printed as a command that can be typed. With
--compare, a model for each task is trained too, on as many batches of the task as the model of all tasks sees; the table
has the metrics of both on test, their parameters and their time. Runs that are finished are not run again.
"""

import argparse
import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table as Grid

from demo.baseline import majority_scores
from demo.comparison import HEADER, Measured, cells, compared
from demo.replicas import REPLICAS, Replica, make_hard_pool, one_in, pretrain
from vlc.common.files import to_json
from vlc.configuration.recipes import RECIPES
from vlc.data.hard_pool import pool_name
from vlc.evaluation.predictions import write_text
from vlc.evaluation.results import FILE, Results
from vlc.tasks import TASKS
from vlc.workflows.commands import console, run_command, typed, write

RECIPE = "task_12in1_emoji"
OF_ALL: dict[str, Replica] = {
    replica.task: replica
    for replica in (
        Replica("vqa_emoji", "emoji_scenes", {"score": lambda folder: majority_scores(folder, "test")["all"]}),
        Replica("nlvr2_emoji", "emoji_nlvr2", {"accuracy": one_in(2)}),
        *REPLICAS,
    )
}


def main(words: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(words)
    prepare(arguments)
    if arguments.compare:
        compare(arguments)
    else:
        demonstrate(arguments)


def _parser() -> ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.multitask", description=__doc__)
    names = RECIPES[RECIPE]["tasks"]
    of_each = RECIPES[RECIPE]["max_steps"] // len(names)
    parser.add_argument("--compare", action="store_true", help="train a model for each task too")
    parser.add_argument("--tasks", nargs="+", choices=names, default=names, metavar="TASK", help="default: all")
    parser.add_argument(
        "--steps", type=int, default=of_each, metavar="ROUNDS", help=f"batches of each task (default: {of_each})"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="without --compare the first one (default: 0)"
    )
    parser.add_argument("--out", type=Path, default=Path("result/multitask"), help="folder of logs and tables")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"), help="folder of the arrow files")
    parser.add_argument("--pretrained", type=Path, help="checkpoint to start from (default: pre-train one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the comparison here: docs/multitask.json")
    return parser


def prepare(arguments: Namespace) -> None:
    """Write the data that are not there yet, pre-train where no checkpoint is given, and find images that look alike."""
    wanted = [OF_ALL[name] for name in arguments.tasks]
    for name in dict.fromkeys(replica.dataset for replica in wanted):
        if not all(
            (arguments.data / f"{name}_{split}.arrow").exists() for split in ("train", "val", "test", "held_out")
        ):
            write(name, arguments.data)
    if not arguments.pretrained:
        finished = arguments.out / "pretrained.txt"  # a run that was killed leaves a checkpoint too
        if not finished.exists():
            keys = {"data_root": str(arguments.data), "log_dir": str(arguments.out / "log"), "seed": 0}
            write_text(finished, pretrain(arguments.data, keys))
        arguments.pretrained = Path(finished.read_text(encoding="utf-8"))
    for replica in wanted:
        if replica.hard_pool and not (arguments.data / pool_name(replica.dataset)).exists():
            make_hard_pool(replica.dataset, arguments.pretrained, arguments.data)


def demonstrate(arguments: Namespace) -> None:
    """Train the tasks together with the mixing of the recipe, and print the metrics beside guesses."""
    run = measured("demo", arguments.tasks, arguments.seeds[0], arguments)
    grid = Grid("task", "metric", title="One model of all tasks, on test")
    for column in ("value", "guess"):
        grid.add_column(column, justify="right")
    for name, value in run.metrics.items():
        task, _, metric = name.split("/", 2)
        grid.add_row(task, metric, f"{100 * value:.1f}", f"{100 * OF_ALL[task].guesses[metric](arguments.data):.1f}")
    console.print(grid)


def compare(arguments: Namespace) -> None:
    """Train the tasks together and alone with every seed; write and print the comparison of the seeds so far."""
    visits = {"multitask.mixing": "round_robin", "val_check_interval": arguments.steps}
    single, together = [], []
    for number, seed in enumerate(arguments.seeds, 1):
        together.append(measured("together", arguments.tasks, seed, arguments, **visits))
        visits_alone = {**visits, "multitask.task_tokens": False}
        single.append([measured(task, [task], seed, arguments, **visits_alone) for task in arguments.tasks])
        comparison = compared(arguments.steps, arguments.seeds[:number], single, together)
        for row in comparison["rows"]:
            row["guess"] = OF_ALL[row["task"]].guesses[row["metric"]](arguments.data)
        for path in filter(None, (arguments.out / "comparison.json", arguments.json)):
            write_text(path, to_json(comparison))
        grid = Grid(*HEADER, title=f"{arguments.steps} batches of each task, {number} of {len(arguments.seeds)} seeds")
        for row in cells(comparison):
            grid.add_row(*row)
        console.print(grid)


def measured(name: str, tasks: list[str], seed: int, arguments: Namespace, **keys: Any) -> Measured:
    """Train and test some tasks, or read what an earlier call of the same command has measured."""
    keys = {
        "tasks": tasks,
        "exp_name": f"multitask_{name}",
        "max_steps": arguments.steps * len(tasks),
        "seed": seed,
        "data_root": str(arguments.data),
        "log_dir": str(arguments.out / "log"),
        "load_path": str(arguments.pretrained),
        **keys,
    }
    path = arguments.out / f"{name}_seed{seed}.json"
    if path.exists() and (known := json.loads(path.read_text(encoding="utf-8")))["command"] == typed(keys):
        console.print(f"{path} has the run {name} of seed {seed}")
        return Measured(**known["measured"])
    started = time.perf_counter()
    trained = run_command(RECIPE, **keys)
    minutes = (time.perf_counter() - started) / 60
    # Tests with the images of other rows, and without texts, take longer than the test itself.
    less = {f"{task}.evaluators.inputs": None for task in tasks if "inputs" in TASKS[task].evaluators}
    testing = keys | {"load_path": trained.checkpoint, "test_only": True, "splits": ["test"], **less}
    results = Results.read(run_command(RECIPE, **testing).log_dir / FILE)
    found = Measured({name: results.metrics[name] for name in results.headlines}, results.parameters, minutes)
    write_text(path, to_json({"command": typed(keys), "measured": asdict(found)}))
    return found


if __name__ == "__main__":
    main()
