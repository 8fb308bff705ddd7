"""Walking through folders that people keep their pictures and data in."""

import os
from collections.abc import Iterator
from pathlib import Path

# Folders that systems put beside pictures: macOS into archives, Synology's indexer for its previews.
_BYSTANDERS = frozenset({"__MACOSX", "@eaDir"})


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no data: `._a.jpg`, `.ipynb_checkpoints`, `__MACOSX`, `@eaDir`."""
    return name.startswith(".") or name in _BYSTANDERS


def visible_files(root: str | Path, *, follow_links: bool = True) -> Iterator[str]:
    """Paths of the files below a folder, each beginning with `root`, in the order of their names.

    Hidden files and folders are left out. follow_links: enter folders that are symbolic links, each folder once, and
    list files that are. Names that are not UTF-8 come as `os.fsdecode` gives them. Raises OSError where a folder cannot
    be listed.
    """
    return (entry.path for entry in visible_entries(root, follow_links=follow_links) if entry.is_file())


def visible_entries(root: str | Path, *, follow_links: bool = True) -> Iterator[os.DirEntry]:
    """The same as entries of their folders, with links that lead nowhere among them."""
    return _below(os.fspath(root), follow_links, set())


def _below(folder: str, follow_links: bool, entered: set[tuple[int, int]]) -> Iterator[os.DirEntry]:
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in entered:  # a link that leads back up
        return
    entered.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as listed:
        entries = sorted((entry for entry in listed if not is_hidden(entry.name)), key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_symlink() and not follow_links:
            continue
        if entry.is_dir():
            yield from _below(entry.path, follow_links, entered)
        elif entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)):
            yield entry
