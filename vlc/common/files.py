"""Files that become visible when they are complete, and errors of folders that cannot be written to."""

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from vlc.common.errors import UnwritableFile

_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Yield a path beside the target for the new content; it replaces the target if the block ends without exception.

    Content and name are then on the disk. Until then, and after an exception, the target keeps its old content. Missing
    folders are made, a link is followed, and a device or pipe is written to directly. Partial files that died writers of
    the same target left behind are removed. Raises UnwritableFile where the file system does not take the file.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _file_errors_as_user_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        lock = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield partial
        except OSError as error:
            if error.errno in _UNWRITABLE:
                raise _unwritable(path, error) from error
            raise
        with _file_errors_as_user_errors(path):
            _sync(partial)
            os.replace(partial, path)
            _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)
        os.close(lock)


def check_room(option: str, folder: str | Path, num_bytes: int = 0, *, what: str = "a checkpoint takes") -> None:
    """Raise UnwritableFile where a folder cannot be made or written to, or has no room for a file of num_bytes.

    option: the user's option, up to its value, as in "log_dir=".
    what: what takes the bytes, with its verb.
    """
    if "://" in str(folder):
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder, buffering=0) as probe:
            probe.write(b"x")
    except OSError as error:
        raise UnwritableFile(
            f"{option}{folder} cannot be written to ({error.strerror}): name another folder"
        ) from error
    if (free := shutil.disk_usage(folder).free) < num_bytes:
        raise UnwritableFile(
            f"{option}{folder} has room for {free / 1e9:.2f} GB, and {what} {num_bytes / 1e9:.2f} GB: make "
            "room, or name another folder"
        )


@contextmanager
def full_disk_told(option: str, folder: str | Path) -> Iterator[None]:
    """Raise UnwritableFile, with the option, for errors of a disk that became full or read-only in the block."""
    try:
        yield
    except UnwritableFile:
        raise
    except OSError as error:
        if error.errno in _UNWRITABLE:
            raise UnwritableFile(f"Something below {option}{folder} could not be written: {error.strerror}") from error
        raise


def _remove_abandoned(path: Path) -> None:
    """Remove the partial files of writers that have died: a living writer holds the lock of its file."""
    name = re.compile(rf"\.{re.escape(path.name)}\.\d+\.tmp")
    for partial in path.parent.iterdir():
        if not name.fullmatch(partial.name):
            continue
        with suppress(OSError):  # the writer lives, or the file system has no locks that would tell
            file = os.open(partial, os.O_RDWR)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                partial.unlink()
            finally:
                os.close(file)


def _sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power failure."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot do it for folders
            raise
    finally:
        os.close(file)


@contextmanager
def _file_errors_as_user_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> UnwritableFile:
    return UnwritableFile(
        f"{path} cannot be written ({error.strerror}): make room or give permission there, or choose another place"
    )


def to_json(content: Any) -> str:
    """Return readable JSON in which foreign letters are not escaped."""
    return json.dumps(content, ensure_ascii=False, indent=1)
