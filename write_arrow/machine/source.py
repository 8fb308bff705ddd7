"""What a data set states so that it can be written: a `RawSource` or an `EmbeddedSource`, a row of its file's SOURCES."""

import inspect
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from vlc.common.errors import MissingFile
from write_arrow.machine.conversion import Conversion
from write_arrow.machine.storage import Folder
from write_arrow.machine.workers import num_cores
from write_arrow.machine.writer import PlannedTable, Table

MAX_WORKERS = 8  # by default


class RowOrder(Enum):
    """The order in which rows are written."""

    ANNOTATED = "as the annotations stand; there is no --seed"
    SHUFFLED = "shuffled by --seed, which is 0 unless it is given"
    SHUFFLED_IF_ASKED = "as the annotations stand, or shuffled where --seed is given"


class Prepared(NamedTuple):
    """The tables of a data set before they are written.

    root: the folder that their images are read from; None where the tables carry them.
    notes: lines for the user, such as how much was found.
    """

    tables: Sequence[Table | PlannedTable]
    root: Folder | None = None
    notes: tuple[str, ...] = ()


def _no_options(parser: ArgumentParser) -> None:
    """A data set without options of its own."""


@dataclass(frozen=True)
class RawSource:
    """A data set that is made from files below --root.

    summary: a line for the list of commands.
    layout: what --root must hold.
    tables: makes the tables; it reads annotations and lists files, and opens no image.
    add_options: adds options of its own.
    order: the order of the rows.
    published: there was a published converter, whose output --compat gives.
    images: the rows have images, which workers read and check.
    """

    summary: str
    layout: str
    tables: Callable[[Conversion], list[PlannedTable] | list[Table]]
    add_options: Callable[[ArgumentParser], None] = _no_options
    order: RowOrder = RowOrder.ANNOTATED
    published: bool = False
    images: bool = True

    @property
    def description(self) -> str | None:
        """The docstring of the data set's file."""
        return inspect.getmodule(self.tables).__doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add all options of the command."""
        parser.epilog = f"--root holds: {self.layout}"
        parser.add_argument("--root", required=True, help="folder of the raw data, by path or URL; it is only read")
        _add_out(parser)
        self.add_options(parser)
        parser.add_argument(
            "--follow-links",
            action="store_true",
            help="follow symbolic links below --root (and .. in tables) that lead out of it",
        )
        parser.add_argument(
            "--limit", type=_positive, metavar="N", help="write the first N rows of each table, for a try"
        )
        if self.order is RowOrder.SHUFFLED:
            parser.add_argument("--seed", type=int, default=0, help="of the rows' order (default: 0)")
        elif self.order is RowOrder.SHUFFLED_IF_ASKED:
            parser.add_argument("--seed", type=int, help="shuffle the rows by this seed")
        if self.images:
            self._add_image_options(parser)

    def _add_image_options(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--no-verify", dest="verify", action="store_false", help="do not decode each image to check it"
        )
        if self.published:
            parser.add_argument("--compat", action="store_true", help="the published converter's output, see DATA.md")
        parser.add_argument(
            "--workers",
            type=_positive,
            metavar="N",
            default=min(MAX_WORKERS, num_cores()),
            help="processes that read and check images; the files do not depend on it (default here: %(default)s)",
        )
        parser.add_argument(
            "--ray",
            metavar="ADDRESS",
            help="read and check images on this Ray cluster; local: on a Ray of --workers processes here",
        )

    def prepare(self, arguments: Namespace, out: Folder) -> Prepared:
        """The tables, from the annotations. Raises UserError, and MissingFile with the layout that --root should have."""
        try:
            root = Folder(arguments.root, follow_links=arguments.follow_links).require()
            conversion = Conversion(root, out, arguments)
            tables = self.tables(conversion)
        except MissingFile as error:
            raise MissingFile(f"{error}. --root should hold: {self.layout}") from error
        return Prepared(tables, root, tuple(conversion.notes))


@dataclass(frozen=True)
class EmbeddedSource:
    """A data set that is made from this repository alone.

    summary: a line for the list of commands.
    tables: makes the tables, images included, from the command's arguments.
    add_options: adds options of its own.
    """

    summary: str
    tables: Callable[[Namespace], list[Table]]
    add_options: Callable[[ArgumentParser], None] = _no_options

    @property
    def description(self) -> str | None:
        """The docstring of the data set's file."""
        return inspect.getmodule(self.tables).__doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add all options of the command."""
        _add_out(parser)
        self.add_options(parser)

    def prepare(self, arguments: Namespace, out: Folder) -> Prepared:
        """The tables. out: not looked at."""
        return Prepared(self.tables(arguments))


Source = RawSource | EmbeddedSource


def _add_out(parser: ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="folder for the arrow files, by path or URL")


def _positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise ArgumentTypeError("should be 1 or more")
    return number
