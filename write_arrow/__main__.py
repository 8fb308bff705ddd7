"""Write the Arrow files of a data set, check a folder of them, or look into one."""

import os
import sqlite3
import sys
from argparse import Namespace

from rich.console import Console
from rich.filesize import decimal

from vlc.common.errors import UserError
from vlc.common.terminal import cell, printable
from write_arrow.command_line import TOOLS, parser
from write_arrow.machine.storage import Folder
from write_arrow.machine.writer import Written
from write_arrow.progress import write_with_progress
from write_arrow.sources import SOURCES


def main(words: list[str] | None = None) -> None:
    """Run one command.

    words: the command line, by default that of the process.
    Raises UserError; `check` exits with status 1 on a folder with problems.
    """
    arguments = parser().parse_args(words)
    if arguments.name in TOOLS:
        TOOLS[arguments.name][1].run(arguments)
    else:
        _write(arguments)


def _write(arguments: Namespace) -> None:
    out, console = Folder(arguments.out), Console(highlight=False, soft_wrap=True)
    _require_writable(out)
    try:
        with console.status(f"{arguments.name}: reading annotations"):
            prepared = SOURCES[arguments.name].prepare(arguments, out)
        for note in prepared.notes:
            console.print(cell(note))
        written = write_with_progress(prepared, out, arguments, console)
    except sqlite3.OperationalError as error:
        raise UserError(f"Row plans cannot be kept ({error}): point TMPDIR to a folder with more space") from error
    for file in written:
        console.print(cell(_line(file, out)))


def _require_writable(out: Folder) -> None:
    """Raise UserError, before anything is read, where a local folder cannot be written to, nor made."""
    place = os.path.abspath(out.path)
    while out.is_local and not os.path.lexists(place):
        place = os.path.dirname(place)
    if out.is_local and not os.path.isdir(place):
        raise UserError(f"--out {out}: {place} is a file, and no folder")
    if out.is_local and not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: {place} cannot be written to: choose another folder, or change its permissions")


def _line(file: Written, out: Folder) -> str:
    """A line about a finished file: where it is, its rows and bytes, and how many images were left out."""
    stem = os.path.splitext(file.name)[0]
    rejected = f", {file.num_rejected:,} left out: {stem}.rejected.jsonl" if file.num_rejected else ""
    kept = ", kept from the interrupted run" if file.kept else ""
    return f"{out.where(file.name)}  {file.num_rows:,} rows, {decimal(file.size)}{rejected}{kept}"


def command_line() -> int:
    """As `main`, with mistakes that a user can mend as a message and exit status 2."""
    try:
        main()
    except UserError as error:
        print(f"write_arrow: {printable(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("write_arrow: interrupted; the same command goes on or starts again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(command_line())
