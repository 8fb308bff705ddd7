"""Reading the elements of a pickled list of plain values, one by one, without running anything that the pickle names.

A pickle is a program of small operations. Only those that make numbers, texts, lists and dictionaries are known here. A
first pass looks at all operations and refuses the others before anything is made. It also finds which values are used again
later, so that the second pass remembers no others.
"""

import pickle
import pickletools
import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, ClassVar

from vlc.common.errors import UserError

_REMEMBERED = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_USED_AGAIN = ("GET", "BINGET", "LONG_BINGET")
_PLAIN = frozenset(
    "PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT LONG LONG1 BININT BININT1 BININT2 FLOAT BINFLOAT "
    "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 LIST EMPTY_LIST APPEND APPENDS "
    "DICT EMPTY_DICT SETITEM SETITEMS".split()
).union(_REMEMBERED, _USED_AGAIN)
_OPERATIONS = {operation.code.encode("latin-1"): operation for operation in pickletools.opcodes}
_LENGTHS = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4,
            pickletools.TAKEN_FROM_ARGUMENT4U: 4, pickletools.TAKEN_FROM_ARGUMENT8U: 8}  # fmt: skip
_LONGEST = 2**26  # bytes of a value
_MOST_VALUES = 100_000  # in an element: values that are used again could stand for endlessly many
_DAMAGE = (pickle.UnpicklingError, struct.error, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
           OverflowError, MemoryError)  # fmt: skip


def elements(file: BinaryIO, name: str) -> Iterator[Any]:
    """Yield the elements of a pickled list. Texts that Python 2 wrote as bytes are read as latin-1.

    name: the name of the file, for messages.
    Raises UserError if the file is no pickle, is cut short, holds other than plain values, or is no list.
    """
    try:
        again = _used_again(file, name)
        file.seek(0)
        yield from _ListReader(file, again).elements()
    except UserError:
        raise
    except _DAMAGE as error:
        raise UserError(f"{name} is cut short or no pickle of a list ({error}): fetch it again") from error


def _used_again(file: BinaryIO, name: str) -> set[int]:
    """The numbers of the remembered values that are used again. Raises UserError for operations that are not plain."""
    again = set()
    while (code := file.read(1)) != pickle.STOP:
        operation = _OPERATIONS[code]
        if operation.name not in _PLAIN:
            raise UserError(
                f"{name} holds more than plain values ({operation.name} at byte {file.tell() - 1:,}). Such a pickle can "
                "run code, so it is not read: fetch the published file again"
            )
        argument = _argument(file, operation)
        if operation.name in _USED_AGAIN:
            again.add(int(argument) if operation.name == "GET" else int.from_bytes(argument, "little"))
    return again


def _argument(file: BinaryIO, operation: pickletools.OpcodeInfo) -> bytes:
    """The bytes of an operation's argument. Raises ValueError where the file does not have as many."""
    size = 0 if operation.arg is None else operation.arg.n
    if size == pickletools.UP_TO_NEWLINE:
        return file.readline()
    if size < 0:
        size = int.from_bytes(file.read(_LENGTHS[size]), "little")
    argument = file.read(size) if size <= _LONGEST else b""
    if len(argument) < size:
        raise ValueError(f"a value of {size:,} bytes is not there")
    return argument


class _ListReader(pickle._Unpickler):  # the one written in Python, whose table of operations can be changed
    """Hands over the elements of the outermost list, and keeps none of them.

    again: the numbers of the values to remember.
    """

    memo: dict[int, Any]
    stack: list[Any]
    metastack: list[list[Any]]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        ord(operation.code): pickle._Unpickler.dispatch[ord(operation.code)]
        for operation in pickletools.opcodes
        if operation.name in _PLAIN
    }

    def __init__(self, file: BinaryIO, again: set[int]):
        super().__init__(file, encoding="latin1")
        self.read, self.readline = file.read, file.readline
        self.stack, self.metastack = [], []
        self.append = self.stack.append
        self._again, self._num_remembered = again, 0
        self._complete: list[Any] = []

    def elements(self) -> Iterator[Any]:
        """Yield the elements."""
        while (key := self.read(1)) != pickle.STOP:
            self.dispatch[key[0]](self)
            if self._complete:
                yield from self._complete
                self._complete = []
        if self.metastack or len(self.stack) != 1 or not isinstance(self.stack[0], list):
            raise ValueError("it holds something else")
        _check_size(self.stack[0])
        yield from self.stack[0]  # where the list was made at once, and not by appending

    def _add(self, items: list[Any]) -> None:
        if self.metastack or len(self.stack) > 1:
            self.stack[-1].extend(items)
        else:
            for item in items:
                _check_size(item)
            self._complete = items

    def _remember(self, number: int) -> None:
        self._num_remembered += 1
        if number in self._again:
            self.memo[number] = self.stack[-1]

    dispatch[pickle.FRAME[0]] = lambda self: self.read(8)  # how many bytes could be read at once
    dispatch[pickle.APPEND[0]] = lambda self: self._add([self.stack.pop()])
    dispatch[pickle.APPENDS[0]] = lambda self: self._add(self.pop_mark())
    dispatch[pickle.PUT[0]] = lambda self: self._remember(int(self.readline()))
    dispatch[pickle.BINPUT[0]] = lambda self: self._remember(self.read(1)[0])
    dispatch[pickle.LONG_BINPUT[0]] = lambda self: self._remember(struct.unpack("<I", self.read(4))[0])
    dispatch[pickle.MEMOIZE[0]] = lambda self: self._remember(self._num_remembered)


def _check_size(element: Any) -> None:
    """Raise ValueError where a value holds too many others, or itself."""
    waiting, count = [element], 0
    while waiting:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict | list):
            waiting.extend(value.values() if isinstance(value, dict) else value)
        if count + len(waiting) > _MOST_VALUES:
            raise ValueError(f"an element holds itself, or more than {_MOST_VALUES:,} values")
