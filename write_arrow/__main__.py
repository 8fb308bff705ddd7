"""`python -m write_arrow NAME --out FOLDER`: write the Arrow files of a data set."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from write_arrow import emoji, emoji_groups, emoji_scenes, imagenet
from write_arrow.writer import write_table


@dataclass(frozen=True)
class Source:
    """A data set that can be written. module: has add_arguments(parser) and tables(arguments) -> list of Table."""

    module: ModuleType
    summary: str


SOURCES = {
    "emoji": Source(emoji, "3,781 emoji with names and keywords in ten languages (embedded)"),
    "emoji_groups": Source(emoji_groups, "the emoji with their nine groups as classes (embedded)"),
    "emoji_scenes": Source(emoji_scenes, "scenes of emoji with captions and questions (embedded, from a seed)"),
    "imagenet": Source(imagenet, "ImageNet-1K, or any folder of classes, as shards for main_finetune.py"),
}


def main(words: list[str] | None = None) -> None:
    """words: the command line, by default that of the process."""
    parser = argparse.ArgumentParser(prog="python -m write_arrow", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, source in SOURCES.items():
        command = commands.add_parser(name, help=source.summary, description=source.module.__doc__)
        command.add_argument("--out", type=Path, required=True, help="folder for the arrow files")
        source.module.add_arguments(command)
    arguments = parser.parse_args(words)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    ) as progress:
        for table in SOURCES[arguments.name].module.tables(arguments):
            task = progress.add_task(table.stem, total=table.num_rows)
            write_table(table, arguments.out, lambda rows, task=task: progress.advance(task, rows))


if __name__ == "__main__":
    main()
