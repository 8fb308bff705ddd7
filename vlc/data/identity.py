"""Finds out which conversion a file belongs to, and whether it is still the file that was opened.

Our writers leave a mark in each file they write: an identity of the conversion (the same for the same annotations and
options), the file's name, and the names of all files of the conversion. Files of other writers have no mark, and are not
checked.
"""

import json
import os
import re
import tarfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vlc.common.errors import UserError
from vlc.data.checksums import FILE

_RUN, _NAME, _FILES = "vlc.run", "vlc.name", "vlc.files"  # keys in the metadata of a file
_JOURNAL = re.compile(r"\..+\.unfinished\.json")
_SHARD = re.compile(r"(.*?)\d+(\.\w+)")


class Mark(NamedTuple):
    """run: identity of the conversion. name: of the file, when it was written. files: names of the conversion's files."""

    run: str
    name: str
    files: tuple[str, ...]

    def metadata(self) -> dict[str, str]:
        """The metadata by which a file carries the mark."""
        return {_RUN: self.run, _NAME: self.name, _FILES: json.dumps(self.files)}


def mark_of(metadata: Mapping | None) -> Mark | None:
    """The mark in the metadata of a file, None if it has none."""
    found = {_text(key): _text(value) for key, value in (metadata or {}).items()}
    if not {_RUN, _NAME, _FILES} <= set(found):
        return None
    return Mark(found[_RUN], found[_NAME], tuple(json.loads(found[_FILES])))


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def file_metadata(path: Path) -> Mapping:
    """The metadata in the footer of an Arrow or Parquet file, or in the first header of a tar file.

    Raises OSError, pyarrow's errors or tarfile's where it cannot be read.
    """
    if path.suffix == ".tar":
        with tarfile.open(path, "r:") as archive:
            return archive.pax_headers
    if path.suffix == ".parquet":
        with open(path, "rb") as file:
            return pq.read_metadata(file).metadata or {}
    with pa.memory_map(os.fsencode(path)) as file:
        return pa.ipc.open_file(file).metadata or {}


def read_mark(path: Path) -> Mark | None:
    """The mark of a file; None where it has none, or cannot be read. The code that opens the file reports the latter."""
    try:
        return mark_of(file_metadata(path))
    except (pa.ArrowException, tarfile.TarError, OSError, ValueError):
        return None


def require_one_conversion(paths: list[Path], again: str) -> None:
    """Raises UserError where other files of the same conversion are missing, or files are of different conversions.

    paths: files that are read together, as they are found in their folder.
    again: the advice for messages.

    It looks at these files, at numbered files of the same stem, and at the files beside them that the same conversion
    wrote, because labels of a data set's splits depend on each other. Files that were renamed are not compared.
    """
    found = {path.name: path for path in paths}
    marks: dict[Path, Mark | None] = {}

    def mark(path: Path) -> Mark | None:
        if path not in marks:
            made = read_mark(path) if path.exists() else None
            marks[path] = made if made and made.name == path.name else None
        return marks[path]

    def refuse(path: Path, other: Path) -> None:
        raise UserError(
            f"{path} and {other.name} were written by different conversions, and one of them may have been interrupted: "
            f"their rows and labels need not fit each other. {again}"
        )

    series: dict[tuple[str, str] | None, tuple[Path, str]] = {}
    conversions: set[Mark] = set()
    for path in paths:
        if (own := mark(path)) is None:
            continue
        stem = _stem(path.name)
        first, run = series.setdefault(stem, (path, own.run)) if stem else (path, own.run)
        if run != own.run:
            refuse(first, path)
        if (conversion := own._replace(name=str(stem))) in conversions:  # looked at with another of its files
            continue
        conversions.add(conversion)
        for name in own.files:
            other = found.get(name, path.with_name(name))
            if (mark_there := mark(other)) and mark_there.run != own.run:
                refuse(path, other)
            if stem and _stem(name) == stem and not other.exists():
                raise UserError(f"{other} is missing, which was written together with {path.name}. {again}")


def _stem(name: str) -> tuple[str, str] | None:
    """The parts of a numbered file's name that all files of its series have in common; None without a number."""
    match = _SHARD.fullmatch(name)
    return (match[1], match[2]) if match else None


def unfinished(journals: Iterable[Path]) -> set[str]:
    """Names of the files that conversions were writing when they were interrupted, by their journals."""
    names: set[str] = set()
    for journal in journals:
        try:
            read = json.loads(journal.read_text())
        except (OSError, ValueError):
            continue  # finished in the meantime; a journal is never half written
        if isinstance(read, dict):
            names.update(read.get("files", read))
    return names


def is_journal(name: str) -> bool:
    return _JOURNAL.fullmatch(name) is not None


def require_finished(names: Collection[str], journals: Iterable[Path], again: str) -> None:
    """Raises UserError where files belong to a conversion that was interrupted, or that is not finished yet."""
    if left := sorted(unfinished(journals) & set(names)):
        more = " and more" if len(left) > 3 else ""
        raise UserError(
            f"{', '.join(left[:3])}{more}: the conversion that writes this was interrupted, or is not finished yet, so "
            f"that old files may stand beside new ones. {again}"
        )


class FileIdentity(NamedTuple):
    """Recognises a file later and on other machines, where inodes differ. The fields are as in `FileState`."""

    size: int
    changed: int
    checksum: str | None = None

    def difference(self, now: "FileIdentity") -> str | None:
        """The reason, in words, why a file is no longer the same; None where it is.

        A file that has a checksum may be copied and touched. Any other file may have been written when its time changed.
        """
        if now.size != self.size:
            return f"it has {now.size:,} bytes now, and had {self.size:,}"
        if now.checksum != self.checksum:
            return "its checksum is another"
        if self.checksum is None and now.changed != self.changed:
            return "it was written, copied or touched since, and has no checksum to show that its content is the same"
        return None


class FileState(NamedTuple):
    """A file when it was opened.

    size: the number of bytes.
    changed: the time of the last change in nanoseconds.
    checksum: the checksum of all its bytes, where our writer left one.
    """

    size: int
    changed: int
    inode: int
    checksum: str | None

    @property
    def identity(self) -> FileIdentity:
        return FileIdentity(self.size, self.changed, self.checksum)


def file_state(path: Path) -> FileState:
    """Raises OSError where there is no such file."""
    status = os.stat(path)
    return FileState(status.st_size, status.st_mtime_ns, status.st_ino, _checksum(path))


def _checksum(path: Path) -> str | None:
    try:
        value = file_metadata(path).get(FILE) if path.suffix != ".tar" else None
    except (pa.ArrowException, OSError):
        return None
    return value and _text(value)


def require_unchanged(path: Path, state: FileState, status: os.stat_result | None = None) -> FileState:
    """The state of the file from now on. Raises UserError where it is not the file that was opened.

    status: the status of the file that is read; None: it is looked up by the path.

    A file of which only the time changed is the same if its checksum is.
    """
    try:
        status = os.stat(path) if status is None else status
    except OSError as error:
        raise UserError(f"{path} can no longer be read ({error.strerror}): it is needed until the end") from error
    now = FileState(status.st_size, status.st_mtime_ns, status.st_ino, state.checksum)
    if now == state or (now.size == state.size and state.checksum is not None and _checksum(path) == state.checksum):
        return now
    raise UserError(
        f"{path} was changed while this program was reading it, and would be mixed with what was read before. Start the "
        "program again when the file is complete"
    )
