"""Text corpora: every line (or paragraph) of the text files below --root becomes a row, in the order of the files."""

import codecs
import fnmatch
import io
import itertools
import os
from argparse import ArgumentParser
from collections.abc import Iterator

import pyarrow as pa

from vlc.common.errors import UserError
from write_arrow.machine import delimited
from write_arrow.machine.conversion import Conversion
from write_arrow.machine.plans import Files
from write_arrow.machine.source import RawSource
from write_arrow.machine.writer import Table

SCHEMA = pa.schema({"text": pa.string(), "file": pa.string()})
SHARD_ROWS = 1_000_000


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--pattern", default="*.txt", help="names of the files to read (default: *.txt)")
    parser.add_argument(
        "--unit", choices=("line", "paragraph"), default="line", help="what a row is; blank lines end a paragraph"
    )
    delimited.add_encoding(parser)
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
    asked, number = conversion.options.encoding, 0
    with conversion.root.open(path) as file:
        encoding = delimited.encoding_of(file.read(4), asked)
        file.seek(0)
        try:
            if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")):  # a line break is no single byte
                for line in io.TextIOWrapper(file, encoding):
                    number += 1
                    yield line.strip()
            else:
                for encoded in file:
                    number += 1
                    yield encoded.decode(encoding).strip()
                    encoding = encoding.removesuffix("-sig")
        except UnicodeError as error:
            where = f"{conversion.root.where(path)}, line {number}"
            raise UserError(f"{where}, is {delimited.not_decoded(error, asked)}, or convert the file") from error


SOURCES = {
    "text": RawSource(
        "text corpora, a line or paragraph a row",
        "**/*.txt",
        tables,
        add_options,
        images=False,
    )
}
