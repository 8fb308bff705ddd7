"""Files that appear whole or not at all."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vlc.errors import UnwritableFile

_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}  # of writing, whoever writes


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """A path beside the target, to write the new content to; the target takes it when the block ends without exception.

    Content and name are on the disk then. After an exception, and for a reader until then, the target is what it was.
    Folders above it are made, a link is followed, and a device or pipe is written to as it is. What writers of the same
    target that died have left is removed. Raises UnwritableFile where the file system does not take the file.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _mended(path):
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
        with _mended(path):
            _sync(partial)
            os.replace(partial, path)
            _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)
        os.close(lock)


def _remove_abandoned(path: Path) -> None:
    """Remove the partial files of writers that live no more: a living one holds the lock of its own."""
    for partial in path.parent.iterdir():
        owner = partial.name.removeprefix(f".{path.name}.").removesuffix(".tmp")
        if not (owner.isdecimal() and partial.name == f".{path.name}.{owner}.tmp"):
            continue
        with suppress(FileNotFoundError):
            file = os.open(partial, os.O_RDWR)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                partial.unlink()
            except BlockingIOError:
                pass  # it is being written
            except OSError:  # a file system without locks
                if not _is_alive(int(owner)):
                    partial.unlink()
            finally:
                os.close(file)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, survive a power failure."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot do it for folders
            raise
    finally:
        os.close(file)


@contextmanager
def _mended(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> UnwritableFile:
    return UnwritableFile(
        f"{path} cannot be written ({error.strerror}): make room or give permission there, or choose another place"
    )
