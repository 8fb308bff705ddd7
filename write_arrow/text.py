"""Text corpora: every line (or paragraph) of the text files below --root becomes a row, in the order of the files."""

import fnmatch
import itertools
import os
from argparse import ArgumentParser
from collections.abc import Iterator

import pyarrow as pa

from vlc.errors import UserError
from write_arrow.conversion import Conversion
from write_arrow.plans import Files
from write_arrow.writer import Table

SCHEMA = pa.schema({"text": pa.string(), "file": pa.string()})
SHARD_ROWS = 1_000_000


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--pattern", default="*.txt", help="names of the files to read (default: *.txt)")
    parser.add_argument(
        "--unit", choices=("line", "paragraph"), default="line", help="what a row is; blank lines end a paragraph"
    )
    parser.add_argument("--stem", default="text", help="name of the files, before _0.arrow (default: text)")


def tables(conversion: Conversion) -> list[Table]:
    """STEM_0, STEM_1, ... of SHARD_ROWS rows."""
    options = conversion.options
    files = Files(conversion.scratch, conversion.root.walk(""))
    paths = [file.path for file in files if fnmatch.fnmatch(os.path.basename(file.path), options.pattern)]
    total = sum(1 for _ in itertools.islice(_rows(paths, conversion), options.limit))
    if not total:
        raise UserError(f"No text was found in files named {options.pattern} below {conversion.root}")
    conversion.notes.append(f"{len(paths):,} files, {total:,} {options.unit}s")
    rows = _rows(paths, conversion)  # read on from file to file
    return [
        Table(
            f"{options.stem}_{number}",
            SCHEMA,
            itertools.islice(rows, min(SHARD_ROWS, total - start)),
            min(SHARD_ROWS, total - start),
            f"{options.stem}_",
        )
        for number, start in enumerate(range(0, total, SHARD_ROWS))
    ]


def _rows(paths: list[str], conversion: Conversion) -> Iterator[dict[str, str]]:
    for path in paths:
        lines = _lines(path, conversion)
        if conversion.options.unit == "paragraph":
            lines = (" ".join(group) for filled, group in itertools.groupby(lines, key=bool) if filled)
        yield from ({"text": line, "file": path} for line in lines if line)


def _lines(path: str, conversion: Conversion) -> Iterator[str]:
    with conversion.root.open(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                where = conversion.root.where(path)
                raise UserError(f"{where}, line {number}, is not UTF-8 ({error}): convert the file") from error
