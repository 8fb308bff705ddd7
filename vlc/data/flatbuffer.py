"""Reads from Arrow's flatbuffers what pyarrow does not show: where messages lie, and how long their buffers will be.

See https://arrow.apache.org/docs/format/Columnar.html and format/{File,Message}.fbs there.
"""

import struct
from typing import Any, NamedTuple

MAGIC = b"ARROW1"
_RECORD_BATCH = 3  # in the union MessageHeader
_ERRORS = (struct.error, IndexError, ValueError)


class Malformed(ValueError):
    """Bytes that are no flatbuffer of Arrow's."""


class Block(NamedTuple):
    """Where a message lies in a file: its first byte, and the bytes of its metadata and of its body."""

    offset: int
    metadata: int
    body: int

    @property
    def end(self) -> int:
        return self.offset + self.metadata + self.body


class _Table:
    """A table of a flatbuffer, its fields by number."""

    def __init__(self, data: memoryview, place: int):
        self._data, self._place = data, place
        vtable = place - self._number("<i", place)
        size = self._number("<H", vtable)
        self._fields = struct.unpack_from(f"<{(size - 4) // 2}H", data, vtable + 4)

    def _number(self, kind: str, place: int) -> int:
        if place < 0:
            raise Malformed("an offset leads out of the data")
        return struct.unpack_from(kind, self._data, place)[0]

    def _where(self, field: int) -> int | None:
        offset = self._fields[field] if field < len(self._fields) else 0
        return self._place + offset if offset else None

    def number(self, field: int, kind: str) -> int:
        where = self._where(field)
        return 0 if where is None else self._number(kind, where)

    def table(self, field: int) -> "_Table | None":
        where = self._where(field)
        return None if where is None else _Table(self._data, where + self._number("<I", where))

    def structs(self, field: int, kind: str) -> list[tuple[Any, ...]]:
        where = self._where(field)
        if where is None:
            return []
        start = where + self._number("<I", where)
        first, size = start + 4, struct.calcsize(kind) * self._number("<I", start)
        if first + size > len(self._data):
            raise Malformed("a vector is longer than the data")
        return list(struct.iter_unpack(kind, self._data[first : first + size]))


def footer_blocks(file: memoryview) -> tuple[list[Block], int]:
    """The messages of an Arrow file as its footer lists them, in the order of the file, and where the footer begins.

    Raises Malformed.
    """
    try:
        length = struct.unpack_from("<i", file, len(file) - 10)[0]
        start = len(file) - 10 - length
        if length < 4 or start < 8:
            raise Malformed("the length of the footer is wrong")
        footer = _root(file[start:-10])
        blocks = [Block(*found) for field in (2, 3) for found in footer.structs(field, "<qi4xq")]
    except _ERRORS as error:
        raise Malformed(f"the footer is damaged ({error})") from error
    return sorted(blocks), start


def inflated_size(metadata: memoryview, body: memoryview) -> int:
    """Bytes that the buffers of a compressed record batch (or dictionary) will take; 0 where it is not compressed.

    metadata: a message without its length. Raises Malformed.
    """
    try:
        message = _root(metadata)
        batch = message.table(2)
        if batch is not None and message.number(1, "<B") != _RECORD_BATCH:  # a dictionary holds a record batch
            batch = batch.table(1)
        if batch is None or batch.table(3) is None:
            return 0
        buffers = batch.structs(2, "<qq")
        declared = [struct.unpack_from("<q", body, offset)[0] for offset, length in buffers if length >= 8]
    except _ERRORS as error:
        raise Malformed(f"a message is damaged ({error})") from error
    return sum(size for size in declared if size > 0)  # -1: this one is not compressed


def _root(data: memoryview) -> _Table:
    return _Table(data, struct.unpack_from("<I", data, 0)[0])
