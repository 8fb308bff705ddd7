"""Reading the elements of a large JSON array, or the items of a large JSON object, one by one.

Annotation files of data sets are single JSON documents of up to a gigabyte, which would take several times as much memory
as Python objects. (Python's decoder does the parsing; this module keeps a window of the text before it. ijson was slower
when we measured it, and it returns nothing where the key is missing.)
"""

import codecs
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from vlc.common.errors import UserError

CHUNK_BYTES = 2**20
_LONGEST_LINE = 2**26  # bytes
_NOT_JSON = (ValueError, RecursionError)
_SPACE = " \t\n\r"
_AFTER = {*_SPACE, *",:]}"}  # what may follow a value


def elements(file: BinaryIO, name: str, key: str | None = None) -> Iterator[Any]:
    """Yield the elements of a JSON array.

    name: the name of the file, for messages.
    key: the array is the value of this key in the outermost object, or of `outer.inner` in an object inside it; without a
        key, the whole document is the array.
    Raises UserError if the document is cut short, not JSON, or has no such array.
    """
    window = _Window(file, name)
    start = window.peek()
    for one in key.split(".") if key else ():
        if start != "{" or not window.enter(one):
            raise UserError(f"{name} should be a JSON object with a list under {key!r}")
        start = window.peek()
    if start != "[":
        raise UserError(f"{name} should be a JSON list" if key is None else f"{name}: {key!r} should be a list")
    yield from window.elements()


def items(file: BinaryIO, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the keys of a JSON object with their values; a key that stands twice comes twice.

    name: the name of the file, for messages.
    Raises UserError if the document is cut short, not JSON, or no object.
    """
    window = _Window(file, name)
    if window.peek() != "{":
        raise UserError(f"{name} should be a JSON object")
    window.skip()
    if window.peek() == "}":
        return
    while True:
        key = window.key()
        yield key, window.value()
        if window.separator("}") == "}":
            return


def lines(file: BinaryIO, name: str, reject: Callable[[str, str], None] | None = None) -> Iterator[Any]:
    """Yield the values of a file with a JSON document on each line (JSONL); blank lines are skipped.

    name: the name of the file, for messages.
    reject: is called with place and reason for each line that is no JSON; without it the first such line raises UserError.
    """
    return (value for _, value in numbered_lines(file, name, reject))


def numbered_lines(
    file: BinaryIO, name: str, reject: Callable[[str, str], None] | None = None
) -> Iterator[tuple[int, Any]]:
    """Do as `lines`, and yield each value with the number of its line."""
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if len(line) == _LONGEST_LINE:
            raise UserError(f"{name}, line {number}: longer than {_LONGEST_LINE:,} bytes; is this JSON lines?")
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except _NOT_JSON as error:
            if reject is None:
                raise UserError(f"{name}, line {number}: not JSON ({reason(error)})") from error
            reject(f"{name}, line {number}", f"not JSON ({reason(error)})")
            continue
        yield number, value


def reason(error: Exception) -> str:
    """Why a text is not JSON."""
    return "nested too deep" if isinstance(error, RecursionError) else str(error)


class _Window:
    """The part of a document that has been read and not yet parsed."""

    def __init__(self, file: BinaryIO, name: str):
        self.file, self.name = file, name
        self.decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self.parse = json.JSONDecoder().raw_decode
        self.text, self.position, self.ended = "", 0, False

    def _grow(self) -> None:
        """Read as much again as the window holds, so that a long element is not parsed too often."""
        data = self.file.read(max(CHUNK_BYTES, len(self.text) - self.position))
        self.ended = not data
        try:
            self.text = self.text[self.position :] + self.decode(data, final=self.ended)
        except UnicodeDecodeError as error:
            raise UserError(f"{self.name} is not UTF-8 ({error})") from error
        self.position = 0

    def peek(self) -> str:
        """The next character that is not space."""
        while True:
            while self.position < len(self.text) and self.text[self.position] in _SPACE:
                self.position += 1
            if self.position < len(self.text):
                return self.text[self.position]
            if self.ended:
                raise UserError(f"{self.name} is cut short: fetch it again")
            self._grow()

    def skip(self) -> None:
        self.position += 1

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self.parse(self.text, self.position)
                if self.ended or self.text[end : end + 1] in _AFTER:  # a number may go on
                    self.position = end
                    return value
            except RecursionError as error:
                raise UserError(f"{self.name} is not JSON of a data set: it is nested too deep") from error
            except ValueError as error:
                if self.ended:
                    raise UserError(f"{self.name} is cut short or not JSON ({error}): fetch it again") from error
            self._grow()

    def elements(self) -> Iterator[Any]:
        """Yields the elements of the list that starts here, and moves behind it."""
        self.skip()
        if self.peek() == "]":
            self.skip()
            return
        while True:
            yield self.value()
            if self.separator("]") == "]":
                return

    def skip_value(self) -> None:
        """Moves behind a value; a list is not held whole, as other lists of a data set may be long."""
        if self.peek() == "[":
            for _ in self.elements():
                pass
        else:
            self.value()

    def separator(self, closing: str) -> str:
        """Skips and returns a comma or the closing bracket."""
        found = self.peek()
        if found not in ("," + closing):
            raise UserError(f"{self.name} is not JSON: {found!r} where ',' or {closing!r} should be")
        self.skip()
        return found

    def key(self) -> str:
        """Skips and returns a key with its colon."""
        found = self.value()
        if self.peek() != ":":
            raise UserError(f"{self.name} is not JSON: no ':' after {found!r}")
        self.skip()
        return found

    def enter(self, key: str) -> bool:
        """Moves to the value under a key of the object that starts here; False if it has no such key."""
        self.skip()
        while self.peek() != "}":
            if self.key() == key:
                return True
            self.skip_value()
            if self.separator("}") == "}":
                return False
        return False
