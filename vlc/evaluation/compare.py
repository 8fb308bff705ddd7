"""Tables of the metrics of tests, a column for each set of runs: `python -m vlc.evaluation.compare NAME=FOLDER ...`.

A folder is the log folder of a test, or has several of them inside. A further folder without a name belongs to the column
before it, as in `single=A B all=C tuned=D`. FOLDER@TASK has the metrics of one task, without its name, so that two tasks
stand side by side, as in `text=A@translation_retrieval image=B@translation_retrieval_image --difference`.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from vlc.common.errors import UserError
from vlc.common.files import to_json
from vlc.common.terminal import cell, printable
from vlc.evaluation.predictions import require_writable, write_text
from vlc.evaluation.results import FILE, Results

Column = dict[str, float]  # the values of metrics by their names: task/split/metric
DIFFERENCE = "difference"


class Place(NamedTuple):
    """Where tests are.

    task: the task whose metrics count; empty: all tasks.
    """

    folder: Path
    task: str = ""


def main(words: list[str] | None = None) -> dict[str, Column]:
    """Print the headlines of tests side by side, or the metrics that are asked for, and return them by column.

    words: the command line, by default the one of the process.
    Raises UserError for folders that cannot be compared.
    """
    parser = argparse.ArgumentParser(prog="python -m vlc.evaluation.compare", description=__doc__)
    parser.add_argument("columns", nargs="+", metavar="[NAME=]FOLDER", help="a column, and where its tests are")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the values into this file")
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=(),
        metavar="PATTERN",
        help="the metrics to show, such as 'r_mean_*', in place of those that judge the tasks",
    )
    parser.add_argument("--difference", action="store_true", help="add a column with the last one minus the first one")
    arguments = parser.parse_args(words)
    if arguments.json:
        require_writable("--json", arguments.json)
    places = _places(arguments.columns)
    columns = {name: read_column(name, own, arguments.metrics) for name, own in places.items()}
    if arguments.difference:
        (first, *_), (*_, last) = columns.values(), columns.values()
        columns[DIFFERENCE] = {name: last[name] - first[name] for name in first if name in last}
    Console().print(_table(columns), soft_wrap=True)
    if arguments.json:
        write_text(arguments.json, to_json(columns))
    return columns


def _places(words: Sequence[str]) -> dict[str, list[Place]]:
    """The places of the tests of each column."""
    columns: dict[str, list[Place]] = {}
    places = None
    for word in words:
        name, named, folder = word.partition("=")
        if named:
            if not name or name in columns:
                raise UserError(f"{word}: every column needs a name of its own, as in single=FOLDER all=FOLDER")
            places = columns[name] = []
        if places is None:
            raise UserError(f"{word} belongs to no column: write NAME={word}")
        places.append(_place(folder if named else word))
    return columns


def _place(word: str) -> Place:
    folder, separator, task = word.rpartition("@")
    return Place(Path(folder), task) if separator and not Path(word).exists() else Place(Path(word))


def read_column(name: str, places: Iterable[Place], patterns: Sequence[str] = ()) -> Column:
    """Return metrics of all tests in some places. Raises UserError where there are none, or two have the same.

    patterns: of the metrics' own names; empty: the headlines.
    """
    values: Column = {}
    sources: dict[str, Path] = {}
    for folder, task in places:
        if not (paths := sorted(folder.rglob(FILE))):
            what = "has no test inside" if folder.is_dir() else "is no folder"
            raise UserError(
                f"{name}={folder} {what}: name the log folder of a run with test_only=True, which holds {FILE}"
            )
        for path in paths:
            for metric, value in _chosen(Results.read(path), task, patterns).items():
                if metric in values:
                    raise UserError(
                        f"Column {name} has {metric} twice, in {sources[metric].parent} and {path.parent}: name one "
                        "of them"
                    )
                values[metric], sources[metric] = value, path
    if not values:
        what = f"no metric like {', '.join(patterns)}" if patterns else "no metric that judges a task"
        tasks = ", ".join(task for _, task in places if task)
        raise UserError(f"Column {name}: the tests in its folders have {what}{f' of task {tasks}' if tasks else ''}")
    return values


def _chosen(results: Results, task: str, patterns: Sequence[str]) -> Column:
    """The metrics of a test that are shown; the metrics of a named task have * for its name."""
    if patterns:
        names = [name for name in results.metrics if any(fnmatchcase(name.split("/", 2)[-1], one) for one in patterns)]
    else:
        names = results.headlines
    if not task:
        return {name: results.metrics[name] for name in names}
    return {
        f"*/{name.removeprefix(f'{task}/')}": results.metrics[name] for name in names if name.startswith(f"{task}/")
    }


def _table(columns: dict[str, Column]) -> Table:
    """A row for each metric of any column; "-" where a column does not have it."""
    grid = Table("task", "split", "metric", box=None)
    for name in columns:
        grid.add_column(cell(name), justify="right")
    for headline in dict.fromkeys(headline for values in columns.values() for headline in values):
        numbers = (values.get(headline) for values in columns.values())
        grid.add_row(
            *map(cell, headline.split("/", 2)), *("-" if number is None else f"{number:.4f}" for number in numbers)
        )
    return grid


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"compare: {printable(error)}", file=sys.stderr)
        sys.exit(2)
