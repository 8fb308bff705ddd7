"""Folders on any fsspec file system: raw files are read from one, and files appear in one whole or not at all."""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any, BinaryIO, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from vlc.common.errors import MissingFile, UserError

# Why a single file cannot be read, as opposed to a disk or network that fails.
UNREADABLE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")


def printable_path(path: str) -> str:
    """A path that any file can hold: bytes of its name that are not UTF-8 as \\xNN."""
    try:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # no file has such a name
        return path.encode("utf-8", "backslashreplace").decode()


class StoredFile(NamedTuple):
    """A file under a folder, or a stretch of one (a member of a tar).

    size: bytes; None where unknown.
    version: changes when the content changes; None where the file system cannot tell.
    offset: first byte of the stretch; None for a whole file.
    member: its name in the tar, for messages.
    """

    path: str
    size: int | None = None
    version: str | None = None
    offset: int | None = None
    member: str | None = None

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return printable_path(self.path if self.member is None else f"{self.path}/{self.member}")


class Folder:
    """A folder by path or URL (s3://, gs://, file://, ...). It can be pickled, for workers.

    Relative paths lie below it; absolute paths and URLs are taken as they are.

    follow_links: let symbolic links of a local folder lead out of it.
    Raises UserError for a URL of unknown kind.
    """

    def __init__(self, url: str | os.PathLike, *, follow_links: bool = True):
        self.url, self.follow_links = os.fspath(url), follow_links
        try:
            self.file_system, self.path = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:  # unknown protocol; its package is not installed
            raise UserError(f"{self.url} cannot be opened: {error}") from error
        self.is_local = isinstance(self.file_system, LocalFileSystem)

    def __reduce__(self):
        return partial(Folder, follow_links=self.follow_links), (self.url,)

    def __str__(self) -> str:
        return self.url

    def where(self, path: str) -> str:
        """The whole path or URL of a file, for messages."""
        return path if "://" in path else os.path.join(self.url, path)

    def _locate(self, path: str) -> tuple[Any, str]:
        if "://" in path:
            other = Folder(path)
            return other.file_system, other.path
        return self.file_system, os.path.join(self.path, path)

    def require(self) -> "Folder":
        """Itself. Raises MissingFile if there is no such folder."""
        with self._file_errors_as_user_errors(""):
            if not self.file_system.isdir(self.path):
                raise MissingFile(f"{self.url} is not a folder")
        return self

    # -- reading

    def open(self, path: str) -> BinaryIO:
        """A file for reading. Raises MissingFile or UserError."""
        file_system, location = self._locate(path)
        with self._file_errors_as_user_errors(path):
            return file_system.open(location, "rb")

    def open_mapped(self, path: str) -> Any:
        """A file for Arrow's readers; a local one is mapped, so that only what is looked at is read."""
        import pyarrow as pa  # workers that write need not load it

        if not self.is_local or "://" in path:
            return self.open(path)
        with self._file_errors_as_user_errors(path):
            return pa.memory_map(os.fsencode(os.path.join(self.path, path)))

    def read_text(self, path: str) -> str | None:
        """A small UTF-8 file, None if it does not exist."""
        if not self.exists(path):
            return None
        with self.open(path) as file:
            return file.read().decode()

    def stat(self, path: str) -> StoredFile:
        """Size and version of a file; size None and version "absent" if it does not exist."""
        file_system, location = self._locate(path)
        try:
            if isinstance(file_system, LocalFileSystem):
                return _local_file(path, os.stat(location))
            return StoredFile(path, *_described(file_system.info(location)))
        except UNREADABLE:
            return StoredFile(path, None, "absent")

    def exists(self, path: str) -> bool:
        file_system, location = self._locate(path)
        with self._file_errors_as_user_errors(path):
            return file_system.exists(location)

    def names(self) -> list[str]:
        """Names of what lies in the folder, [] if it does not exist yet."""
        with self._file_errors_as_user_errors(""), contextlib.suppress(FileNotFoundError):
            return [os.path.basename(path.rstrip("/")) for path in self.file_system.ls(self.path, detail=False)]
        return []

    def folders(self, path: str) -> list[str]:
        """Names of the folders in a sub-folder, sorted; hidden ones are left out. [] if it does not exist."""
        location = os.path.join(self.path, path)
        with self._file_errors_as_user_errors(path), contextlib.suppress(FileNotFoundError):
            if self.is_local:
                names = [entry.name for entry in os.scandir(location) if entry.is_dir()]
            else:
                entries = self.file_system.ls(location, detail=True)
                names = [os.path.basename(e["name"].rstrip("/")) for e in entries if e["type"] == "directory"]
            return sorted(name for name in names if not name.startswith("."))
        return []

    def leads_outside(self, path: str, asked: str = "") -> bool:
        """Whether a relative path ends outside of the folder, by `..` or by a symbolic link, and may not.

        asked: a sub-folder that was named explicitly. It may be a link itself, and its contents count as inside.
        """
        if self.follow_links or not self.is_local or os.path.isabs(path) or "://" in path:
            return False
        folder, name = os.path.split(os.path.join(self.path, path))
        place = os.path.join(_real_folder(folder), name)
        if name in (os.curdir, os.pardir) or os.path.islink(place):
            place = os.path.realpath(place)
        tops = {_real_folder(self.path), _real_folder(os.path.join(self.path, asked))}
        return all(os.path.commonpath([top, place]) != top for top in tops)

    def walk(self, *folders: str) -> Iterator[StoredFile]:
        """All files below the given sub-folders, in no particular order; hidden ones are left out.

        Links that lead nowhere and other files that are not regular are listed too; reading them fails.
        Raises MissingFile if a sub-folder does not exist, and UserError if a link below one `leads_outside`.
        """
        for folder in folders:
            with self._file_errors_as_user_errors(folder):
                if not self.file_system.isdir(os.path.join(self.path, folder)):
                    raise MissingFile(f"{self.where(folder)} is not a folder")
                yield from self._walk_local(folder, set(), folder) if self.is_local else self._walk_remote(folder)

    def _walk_local(self, folder: str, seen: set[tuple[int, int]], asked: str) -> Iterator[StoredFile]:
        status = os.stat(os.path.join(self.path, folder))
        if (status.st_dev, status.st_ino) in seen:  # links may lead back up
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(os.path.join(self.path, folder)) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = os.path.join(folder, entry.name)
                if entry.is_symlink():
                    if self.leads_outside(path, asked):
                        target = printable_path(os.path.realpath(os.path.join(self.path, path)))
                        raise UserError(
                            f"{printable_path(self.where(path))} is a link to {target}, outside of --root: pass "
                            "--follow-links to follow such links, or remove it"
                        )
                    if not os.path.exists(os.path.join(self.path, path)):  # leads nowhere, or in a circle
                        yield StoredFile(path, None, "absent")
                        continue
                if entry.is_dir():
                    yield from self._walk_local(path, seen, asked)
                else:
                    yield _local_file(path, entry.stat())

    def _walk_remote(self, folder: str) -> Iterator[StoredFile]:
        top = os.path.join(self.path, folder).rstrip("/")
        for place, _, files in self.file_system.walk(top, detail=True):
            inner = place[len(top) :].strip("/")
            if any(name.startswith(".") for name in inner.split("/")):
                continue
            below = os.path.join(folder, inner)
            for name, description in files.items():
                if not name.startswith("."):
                    yield StoredFile(os.path.join(below, name), *_described(description))

    def read_many(self, files: list[StoredFile]) -> list[bytes | OSError]:
        """Contents of files, for each that cannot be read the error; remote ones are fetched side by side.

        Raises UserError if the disk or the network fails.
        """
        if not files:
            return []
        with self._file_errors_as_user_errors(files[0].path):
            if self.is_local and not any("://" in file.path for file in files):
                return [self._read_local(file) for file in files]
            batches = [[file] for file in files] if _mixed(files) else [files]
            return [content for batch in batches for content in self._read_remote(batch)]

    def _read_local(self, file: StoredFile) -> bytes | OSError:
        try:
            # A pipe is opened without waiting for one who writes into it, and a device is not read for ever.
            with open(os.path.join(self.path, file.path), "rb", buffering=0, opener=_open_at_once) as opened:
                if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                    return OSError(errno.EINVAL, "not a regular file")
                if file.offset is None:
                    return opened.readall()
                opened.seek(file.offset)
                content = opened.read(file.size)
                return content if len(content) == file.size else OSError(errno.EIO, "cut short since it was listed")
        except UNREADABLE as error:
            return error
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return error

    def _read_remote(self, files: list[StoredFile]) -> list[bytes | OSError]:
        places = [self._locate(file.path) for file in files]
        starts = [file.offset for file in files]
        ends = [None if file.offset is None else file.offset + file.size for file in files]
        contents = places[0][0].cat_ranges([path for _, path in places], starts, ends, on_error="return")
        for content in contents:
            if isinstance(content, Exception) and not isinstance(content, UNREADABLE):
                raise content
        return contents

    # -- writing

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """A file to write, which gets its name when the block ends without exception, complete and on disk.

        An exception, and a run that is killed, leave the file of that name as it was. Raises UserError if the disk is
        full, the folder cannot be written to, or another run is writing the same file.
        """
        partial = os.path.join(self.path, os.path.dirname(name), f".{os.path.basename(name)}.partial")
        with self._file_errors_as_user_errors(name):
            self.file_system.makedirs(os.path.dirname(partial), exist_ok=True)
            with self._open_partial(partial) as file:
                try:
                    yield file
                    file.flush()
                    if self.is_local:
                        os.fsync(file.fileno())
                        os.replace(partial, os.path.join(self.path, name))  # under the lock
                except BaseException:
                    if self.is_local:
                        with contextlib.suppress(OSError):
                            os.remove(partial)
                    raise
            if self.is_local:
                _sync_folder(os.path.dirname(partial))
            else:
                self.file_system.mv(partial, os.path.join(self.path, name))

    def _open_partial(self, partial: str) -> BinaryIO:
        if not self.is_local:
            return self.file_system.open(partial, "wb")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT, 0o666)  # not truncated before it is ours
        file = os.fdopen(descriptor, "wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UserError(f"Another run is writing {partial} now: wait for it, or choose another --out") from None
        except OSError:
            pass  # a file system without locks
        file.truncate()
        return file

    def remove(self, name: str) -> None:
        """Remove a file of ours, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self.file_system.rm_file(os.path.join(self.path, name))

    @contextlib.contextmanager
    def _file_errors_as_user_errors(self, path: str) -> Iterator[None]:
        """Turn errors of the file system into a UserError with advice."""
        try:
            yield
        except UserError:
            raise
        except FileNotFoundError as error:
            raise MissingFile(f"{error.filename or self.where(path)} does not exist") from error
        except NotImplementedError as error:
            raise UserError(f"{self.where(path)} cannot be written: this kind of folder is read-only") from error
        except OSError as error:
            if error.errno is None:
                raise  # not from the operating system
            where, reason = error.filename or self.where(path), error.strerror
            if error.errno in _FULL:
                raise UserError(
                    f"No space is left for {where} ({reason}). Free some and run the same command"
                ) from error
            raise UserError(f"{where}: {reason}") from error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


@lru_cache(maxsize=4096)
def _real_folder(path: str) -> str:
    return os.path.realpath(path)


def _local_file(path: str, status: os.stat_result) -> StoredFile:
    return StoredFile(path, status.st_size, str(status.st_mtime_ns))


def _described(description: dict[str, Any]) -> tuple[int | None, str | None]:
    versions = (description[key] for key in _VERSION_KEYS if description.get(key) is not None)
    return description.get("size"), next(map(str, versions), None)


def _mixed(files: list[StoredFile]) -> bool:
    """Whether files come from several file systems (a table of URLs may)."""
    return len({file.path.partition("://")[0] if "://" in file.path else "" for file in files}) > 1


def _sync_folder(folder: str) -> None:
    """Write the folder to disk, so that a rename in it survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
