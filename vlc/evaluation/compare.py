"""Tables of the metrics of tests, a column for each set of runs: `python -m vlc.evaluation.compare NAME=FOLDER ...`.

A folder is the log folder of a test, or has several of them inside. A further folder without a name belongs to the column
before it, as in `single=A B all=C tuned=D`.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vlc.common.errors import UserError
from vlc.common.files import to_json
from vlc.common.terminal import cell, printable
from vlc.evaluation.predictions import require_writable, write_text
from vlc.evaluation.results import FILE, Results

Column = dict[str, float]  # the values of headlines by their names


def main(words: list[str] | None = None) -> dict[str, Column]:
    """Print the headlines of tests side by side, and return them by column.

    words: the command line, by default the one of the process.
    Raises UserError for folders that cannot be compared.
    """
    parser = argparse.ArgumentParser(prog="python -m vlc.evaluation.compare", description=__doc__)
    parser.add_argument("columns", nargs="+", metavar="[NAME=]FOLDER", help="a column, and where its tests are")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the values into this file")
    arguments = parser.parse_args(words)
    if arguments.json:
        require_writable("--json", arguments.json)
    columns = {name: read_column(name, folders) for name, folders in _folders(arguments.columns).items()}
    Console().print(_table(columns), soft_wrap=True)
    if arguments.json:
        write_text(arguments.json, to_json(columns))
    return columns


def _folders(words: Sequence[str]) -> dict[str, list[Path]]:
    """The folders of each column."""
    columns: dict[str, list[Path]] = {}
    folders = None
    for word in words:
        name, named, folder = word.partition("=")
        if named:
            if not name or name in columns:
                raise UserError(f"{word}: every column needs a name of its own, as in single=FOLDER all=FOLDER")
            folders = columns[name] = []
        if folders is None:
            raise UserError(f"{word} belongs to no column: write NAME={word}")
        folders.append(Path(folder if named else word))
    return columns


def read_column(name: str, folders: Iterable[Path]) -> Column:
    """Return the headlines of all tests in some folders. Raises UserError where there are none, or two have the same."""
    values: Column = {}
    sources: dict[str, Path] = {}
    for folder in folders:
        if not (paths := sorted(folder.rglob(FILE))):
            what = "has no test inside" if folder.is_dir() else "is no folder"
            raise UserError(
                f"{name}={folder} {what}: name the log folder of a run with test_only=True, which holds {FILE}"
            )
        for path in paths:
            results = Results.read(path)
            for headline in results.headlines:
                if headline in values:
                    raise UserError(
                        f"Column {name} has {headline} twice, in {sources[headline].parent} and {path.parent}: name one "
                        "of them"
                    )
                values[headline], sources[headline] = results.metrics[headline], path
    if not values:
        raise UserError(f"Column {name}: the tests in its folders have no metric that judges a task")
    return values


def _table(columns: dict[str, Column]) -> Table:
    """A row for each headline of any column; "-" where a column does not have it."""
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
