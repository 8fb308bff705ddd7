"""Walking through folders that people keep their pictures and data in."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from vlc.common.errors import MissingFile, UserError
from vlc.data.images import SUFFIXES

# Folders that systems put beside pictures: macOS into archives, Synology's indexer for its previews.
_BYSTANDERS = frozenset({"__MACOSX", "@eaDir"})


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no data: `._a.jpg`, `.ipynb_checkpoints`, `__MACOSX`, `@eaDir`."""
    return name.startswith(".") or name in _BYSTANDERS


def image_files(root: str | Path) -> list[os.DirEntry]:
    """The image files below a folder, by their suffixes, in the order of `visible_files`.

    Raises MissingFile where a link leads to no file, and UserError where a folder cannot be listed.
    """
    try:
        found = [entry for entry in visible_files(root) if os.path.splitext(entry.name)[1].lower() in SUFFIXES]
    except OSError as error:
        raise UserError(f"{error.filename or root} cannot be listed: {error.strerror}") from error
    for entry in found:
        if not entry.is_file():
            raise MissingFile(f"{entry.path} is a link to a file that does not exist: mend or remove it")
    return found


def read_image_file(path: str) -> pa.Buffer:
    """The bytes of a file that `image_files` found. Raises UserError where it cannot be read any more."""
    try:
        return pa.py_buffer(Path(path).read_bytes())
    except OSError as error:
        raise UserError(
            f"{path} was there at the start and cannot be read now ({error.strerror}): images are needed until the end"
        ) from error


def visible_files(root: str | Path) -> Iterator[os.DirEntry]:
    """The files below a folder, in the order of their names; links that lead nowhere are among them.

    Hidden files and folders are left out. Folders that are symbolic links are entered, each once. Names that are not UTF-8
    come as `os.fsdecode` gives them. Raises OSError where a folder cannot be listed.
    """
    return _below(os.fspath(root), set())


def _below(folder: str, entered: set[tuple[int, int]]) -> Iterator[os.DirEntry]:
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in entered:  # a link that leads back up
        return
    entered.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as listed:
        entries = sorted((entry for entry in listed if not is_hidden(entry.name)), key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir():
            yield from _below(entry.path, entered)
        elif entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)):
            yield entry
