"""Row plans: what a table will hold, before any image is read. They lie on disk, so that memory does not grow with them.

A converter joins annotations with the files that exist (`Files`, `Groups`) and appends a `Plan` for each row to `Plans`.
All of it is kept in one temporary SQLite database, which vanishes with the process, even a killed one.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from vlc.common.errors import UserError
from write_arrow.machine.storage import StoredFile, printable_path

_CACHE_KIB = 4 * 1024
Key = TypeVar("Key", str, int)
_INSERTED = 1_000  # rows handed to SQLite at a time


class Scratch:
    """A temporary database, by default in /tmp (TMPDIR or SQLITE_TMPDIR says otherwise)."""

    def __init__(self):
        self.connection = sqlite3.connect("", isolation_level=None)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE", f"cache_size=-{_CACHE_KIB}"):
            self.connection.execute(f"PRAGMA {pragma}")
        self._tables = 0

    def table(self, columns: str) -> str:
        """Creates a table and returns its name."""
        self._tables += 1
        name = f"t{self._tables}"
        self.execute(f"CREATE TABLE {name} ({columns})")
        return name

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self.connection.execute(statement, values)

    def insert(self, table: str, rows: list[tuple]) -> None:
        if rows:
            self.execute("BEGIN")
            self.connection.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(rows[0]))})", rows)
            self.execute("COMMIT")


class _Appended:
    """Rows of a scratch table, collected before they are inserted."""

    def __init__(self, scratch: Scratch, columns: str):
        self.scratch, self.table = scratch, scratch.table(columns)
        self.waiting: list[tuple] = []

    def append(self, *row: Any) -> None:
        self.waiting.append(row)
        if len(self.waiting) >= _INSERTED:
            self.flush()

    def flush(self) -> None:
        self.scratch.insert(self.table, self.waiting)
        self.waiting = []


def is_valid_unicode(text: str) -> bool:
    """Whether a string can be stored: it holds no half of a character (a lone surrogate)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Groups(Generic[Key]):
    """Values by key, kept in the order of their adding."""

    def __init__(self, scratch: Scratch):
        self._rows = _Appended(scratch, "key, value")
        self._indexed = False
        self.num_values = 0

    def add(self, key: Key, value: Any) -> None:
        assert not self._indexed, "all values are added before the first is asked for"
        self._rows.append(_stored(key), json.dumps(value))
        self.num_values += 1

    def __getitem__(self, key: Key) -> list[Any]:
        """The values of a key, [] if there are none."""
        table = self._ready()
        found = self._rows.scratch.execute(f"SELECT value FROM {table} WHERE key = ? ORDER BY rowid", (_stored(key),))
        return [json.loads(value) for (value,) in found]

    def __iter__(self) -> Iterator[tuple[Key, list[Any]]]:
        """Keys with their values, in the order of the keys' first appearance."""
        table = self._ready()
        first = f"SELECT key, MIN(rowid) AS number FROM {table} GROUP BY key ORDER BY number"
        for stored, _ in self._rows.scratch.execute(first):
            key: Any = stored.decode("utf-8", "surrogatepass") if isinstance(stored, bytes) else stored
            yield key, self[key]

    def _ready(self) -> str:
        if not self._indexed:
            self._rows.flush()
            self._rows.scratch.execute(f"CREATE INDEX i{self._rows.table} ON {self._rows.table} (key)")
            self._indexed = True
        return self._rows.table


def _stored_text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _stored(key: str | int) -> bytes | int:
    """A key as the database takes it: text as bytes, as it may come from names that are not UTF-8. Raises UserError."""
    if isinstance(key, str):
        return _stored_text(key)
    if isinstance(key, int) and not isinstance(key, bool) and -(2**63) <= key < 2**63:
        return key
    raise UserError(f"An annotation has {key!r:.80} where an identifier or a path should be")


class Files:
    """Files that exist, found by path or by name. Names that are not UTF-8 are kept, as os.fsdecode gives them."""

    def __init__(self, scratch: Scratch, files: Iterable[StoredFile]):
        rows = _Appended(scratch, "path, name, size, version")
        self._scratch, self._table, self.num_files = scratch, rows.table, 0
        for file in files:
            path = _stored_text(file.path)  # bytes: in the order of the letters too
            rows.append(path, os.path.basename(path), file.size, file.version)
            self.num_files += 1
        rows.flush()
        for column in ("path", "name"):
            scratch.execute(f"CREATE INDEX i{rows.table}_{column} ON {rows.table} ({column})")

    def get(self, path: str) -> StoredFile | None:
        """The file of exactly this path."""
        return next(self._select("path = ?", path), None)

    def lookup(self, *paths: str) -> dict[str, StoredFile | None]:
        """The files of exactly these paths, None for those that do not exist."""
        return {path: self.get(path) for path in paths}

    def named(self, name: str) -> list[StoredFile]:
        """All files of this name, sorted by path."""
        return list(self._select("name = ?", name))

    def __iter__(self) -> Iterator[StoredFile]:
        """All files, sorted by path."""
        return self._select("1")

    def _select(self, condition: str, *values: str) -> Iterator[StoredFile]:
        query = f"SELECT path, size, version FROM {self._table} WHERE {condition} ORDER BY path"
        found = self._scratch.execute(query, [_stored_text(value) for value in values])
        return (StoredFile(path.decode("utf-8", "surrogatepass"), size, version) for path, size, version in found)


class Plan(NamedTuple):
    """A row: the files of its image columns, in the schema's order, and the values of its other columns.

    size: the characters of the plan as it is stored.
    """

    images: tuple[StoredFile, ...]
    values: dict[str, Any]
    size: int = 0


class Plans:
    """The rows of a table, or of a run of numbered tables, in order.

    num_planned: how many rows were appended.
    num_rejected: how many were left out and listed.
    num_missing: how many were left out, and only counted, because their image has no file.
    """

    def __init__(self, scratch: Scratch):
        self._rows = _Appended(scratch, "number INTEGER PRIMARY KEY, plan")
        self._rejected = _Appended(scratch, "path, reason")
        self._order: np.ndarray | None = None
        self._stop: int | None = None
        self.num_planned = self.num_rejected = self.num_missing = 0

    def append(self, images: Iterable[StoredFile], **values: Any) -> None:
        """A row; it is rejected where its values hold text that is not valid Unicode."""
        images = list(images)
        plan = json.dumps([images, values])
        if "\\ud" in plan and not is_valid_unicode(json.dumps(values, ensure_ascii=False)):
            self.reject(
                images[0].name, "its name or a text is not valid Unicode: rename the file or mend the annotation"
            )
            return
        self._rows.append(self.num_planned, plan)
        self.num_planned += 1

    def reject(self, path: str, reason: str) -> None:
        """Leave a row out, and say so in the list of rejected images."""
        self._rejected.append(printable_path(path), printable_path(reason))
        self.num_rejected += 1

    def rejected(self) -> Iterator[tuple[str, str]]:
        """Path and reason of what was left out."""
        self._rejected.flush()
        return self._rejected.scratch.execute(f"SELECT path, reason FROM {self._rejected.table} ORDER BY rowid")

    def shuffle(self, seed: int | None) -> None:
        """Put the rows into an order that the seed fixes; None leaves them as they are."""
        if seed is not None:
            self._order = np.random.default_rng(seed).permutation(self.num_planned)

    def limit(self, num_rows: int | None) -> None:
        """Keep the first rows only; None keeps all."""
        self._stop = num_rows

    def __len__(self) -> int:
        return self.num_planned if self._stop is None else min(self.num_planned, self._stop)

    def texts(self, start: int, stop: int) -> Iterator[str]:
        """Plans of the positions [start, stop) as they are stored."""
        self._rows.flush()
        query = f"SELECT plan FROM {self._rows.table} WHERE number = ?"
        for position in range(start, min(stop, len(self))):
            number = position if self._order is None else int(self._order[position])
            yield self._rows.scratch.execute(query, (number,)).fetchone()[0]

    def read(self, start: int, stop: int) -> Iterator[Plan]:
        """Plans of the positions [start, stop)."""
        for text in self.texts(start, stop):
            images, values = json.loads(text)
            yield Plan(tuple(StoredFile(*image) for image in images), values, len(text))

    def digest(self, start: int, stop: int) -> "Digest":
        """Hashes of the plans, with the versions of their files and without."""
        versions, contents = hashlib.sha256(), hashlib.sha256()
        if start == 0:  # the list of what was left out stands beside the first file
            for path, reason in self.rejected():
                versions.update(json.dumps([path, reason]).encode())
        for text in self.texts(start, stop):
            images, values = json.loads(text)
            if any(image[2] is None for image in images):
                versions = None
            if versions is not None:
                versions.update(text.encode() + b"\n")
            named = [[path, member, offset] for path, _, _, offset, member in images]
            contents.update(json.dumps([named, values]).encode() + b"\n")
        return Digest(None if versions is None else versions.hexdigest(), contents.hexdigest())


class Digest(NamedTuple):
    """Hashes of plans.

    versions: changes when an image file changes; None where the file system cannot tell that.
    contents: covers paths and values alone, and is the same wherever the files lie.
    """

    versions: str | None
    contents: str
