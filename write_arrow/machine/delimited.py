"""Tables of delimited text (CSV, TSV), read so that a quotation mark that is never closed swallows no other row.

A cell may be quoted, with "" for a mark inside. A lone mark at the beginning of a cell looks the same, and would take all
lines up to the next mark into its cell. Rows are therefore read line by line, and a quoted cell that would hold both a line
break and a delimiter is not believed unless the user says so.
"""

import codecs
import csv
import io
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import deque
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from vlc.common.errors import UserError

_LONGEST_LINE = 4 * 2**20  # characters
_MOST_LINES = 100  # of a quoted cell; --multiline has no limit
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
_OPTIONS = '--no-quotes if a " is a letter, --multiline if quoted cells hold line breaks'


class Row(NamedTuple):
    """The number of a row's first line, and its cells."""

    line: int
    cells: list[str]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--delimiter", type=_delimiter, metavar="X", help="between the cells of a CSV (default: a comma, in .tsv a tab)"
    )
    add_encoding(parser)
    parser.add_argument("--no-header", action="store_true", help="the CSV has no header: its columns are f0, f1, ...")
    parser.add_argument("--no-quotes", action="store_true", help='a " in the CSV is a letter, not a quote')
    parser.add_argument(
        "--multiline", action="store_true", help="quoted cells of the CSV may hold line breaks and delimiters together"
    )


def add_encoding(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--encoding",
        type=_encoding,
        metavar="NAME",
        help="of text files, such as latin-1 (default: UTF-8, or UTF-16 or -32 where a file begins with its mark)",
    )


def _delimiter(word: str) -> str:
    delimiter = {"\\t": "\t", "tab": "\t"}.get(word, word)
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise ArgumentTypeError(f"{word!r} should be one character, or tab")
    return delimiter


def _encoding(word: str) -> str:
    try:
        "".encode(word)
        return "utf-8-sig" if codecs.lookup(word).name == "utf-8" else word
    except LookupError as error:
        raise ArgumentTypeError(f"{error}; known ones are utf-8, utf-16, latin-1, cp1252, gb18030, ...") from error


def encoding_of(start: bytes, asked: str | None) -> str:
    """The encoding of a text that begins with these bytes."""
    return asked or next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8-sig")


def decoded(content: bytes, asked: str | None) -> str:
    """A short text. Raises UnicodeError."""
    return content.decode(encoding_of(content[:4], asked))


def not_decoded(error: UnicodeError, asked: str | None) -> str:
    """What is wrong with a text that cannot be decoded, and the cure."""
    return f"not {asked or 'UTF-8'} ({error}): --encoding NAME names another encoding, such as latin-1"


def rows(file: BinaryIO, name: str, options: Namespace) -> Iterator[Row]:
    """The rows of a table, header included; empty lines are skipped.

    name: the name of the file, for its suffix and for messages.
    options: the arguments that `add_arguments` adds.
    Raises UserError where the text cannot be decoded, or where a quoted cell could as well be several rows.
    """
    delimiter = options.delimiter or ("\t" if name.lower().endswith(".tsv") else ",")
    lines = _Lines(file, name, options.encoding)
    if options.multiline:
        yield from _multiline(lines, name, delimiter)
        return
    for number, line in lines:
        if not line.strip("\r\n"):
            continue
        if options.no_quotes or '"' not in line:
            yield Row(number, _literal(line, delimiter))
        else:
            yield Row(number, _quoted(number, line, lines, name, delimiter))


def _literal(line: str, delimiter: str) -> list[str]:
    return line.rstrip("\r\n").split(delimiter)


def _multiline(lines: "_Lines", name: str, delimiter: str) -> Iterator[Row]:
    reader = csv.reader((line for _, line in lines), delimiter=delimiter, strict=True)
    first = 1
    try:
        for cells in reader:
            if cells:
                yield Row(first, cells)
            first = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{name} cannot be read: the row that begins in line {first} ({error})") from error


def _quoted(number: int, line: str, lines: "_Lines", name: str, delimiter: str) -> list[str]:
    """The cells of the row that begins with this line; further lines are taken from `lines` where a cell goes on."""
    taken = [line]
    while True:
        cells, is_open = _cells("".join(taken), delimiter)
        doubtful = cells and any(delimiter in cell and "\n" in cell.rstrip("\r\n") for cell in cells)
        if doubtful and delimiter != "\t":  # tabs inside of texts are rare, commas are not
            raise UserError(
                f"{name} cannot be read: the quotation mark in line {number} is closed in a later line, if at all, "
                f"and other rows may lie between. Pass {_OPTIONS}"
            )
        if cells and not is_open and not doubtful:
            return cells
        following = next(lines, None) if is_open and not doubtful and len(taken) < _MOST_LINES else None
        if following is None:  # the mark is a letter
            lines.put_back(number + 1, taken[1:])
            return _literal(line, delimiter)
        taken.append(following[1])


def _cells(text: str, delimiter: str) -> tuple[list[str] | None, bool]:
    """The cells of a row, None where a mark closes inside of a cell; and whether the last one is still open."""
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True)), False
    except csv.Error as error:
        if str(error) != "unexpected end of data":
            return None, False
        return next(csv.reader([text], delimiter=delimiter)), True


class _Lines:
    """Numbered lines of a text, with their ends; some may be put back. Raises UserError."""

    def __init__(self, file: BinaryIO, name: str, encoding: str | None):
        start = file.read(4)
        file.seek(0)
        self.text = io.TextIOWrapper(file, encoding_of(start, encoding), newline="")
        self.name, self.encoding, self.number = name, encoding, 0
        self.waiting: deque[tuple[int, str]] = deque()

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> tuple[int, str]:
        if self.waiting:
            return self.waiting.popleft()
        self.number += 1
        try:
            line = self.text.readline(_LONGEST_LINE)
        except UnicodeError as error:
            where = f"{self.name} cannot be read: near line {self.number} it is"
            raise UserError(f"{where} {not_decoded(error, self.encoding)}") from error
        if not line:
            raise StopIteration
        if len(line) == _LONGEST_LINE:
            raise UserError(
                f"{self.name} cannot be read: line {self.number} has more than {_LONGEST_LINE:,} characters"
            )
        return self.number, line

    def put_back(self, number: int, lines: Iterable[str]) -> None:
        self.waiting.extendleft(reversed(list(enumerate(lines, start=number))))
