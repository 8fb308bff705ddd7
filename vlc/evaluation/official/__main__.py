"""Score a file of predictions as the authors of the data do: `python -m vlc.evaluation.official NAME`."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vlc.common.errors import UserError
from vlc.common.files import to_json
from vlc.common.terminal import cell, printable
from vlc.evaluation.official import bleu, gqa, mlt, vcr, visdial, visual7w, vqa
from vlc.evaluation.official.scorer import Metrics, Scorer
from vlc.evaluation.predictions import require_writable, write_text

SCORERS: dict[str, Scorer] = {
    "bleu": bleu.SCORER,
    "gqa": gqa.SCORER,
    "mlt": mlt.SCORER,
    "vcr": vcr.SCORER,
    "visdial": visdial.SCORER,
    "visual7w": visual7w.SCORER,
    "vqa": vqa.SCORER,
}


def main(words: list[str] | None = None) -> Metrics:
    """Run one evaluator, print its metrics and return them.

    words: the command line, by default the one of the process.
    Raises UserError for files that cannot be scored.
    """
    parser = argparse.ArgumentParser(prog="python -m vlc.evaluation.official", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, scorer in SCORERS.items():
        command = commands.add_parser(name, help=scorer.summary, description=scorer.summary)
        scorer.add_arguments(command)
        command.add_argument("--json", type=Path, metavar="FILE", help="also write the metrics into this file")
    arguments = parser.parse_args(words)
    if arguments.json:
        require_writable("--json", arguments.json)
    metrics = SCORERS[arguments.name].score(arguments)
    table = Table("metric", "value", "examples", box=None)
    for name, value, count in _rows(metrics):
        table.add_row(cell(name), value if isinstance(value, str) else f"{value:.2f}", count)
    Console().print(table)
    if arguments.json:
        write_text(arguments.json, to_json(metrics))
    return metrics


def _rows(metrics: Metrics, prefix: str = "") -> Iterator[tuple[str, float | str, str]]:
    """Name, value (or the signature of values) and, where it is known, the number of examples of each metric."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{prefix}{name}/")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{name}", value[0], f"{value[1]:,}"
        else:
            yield f"{prefix}{name}", value, ""


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"official: {printable(error)}", file=sys.stderr)
        sys.exit(2)
