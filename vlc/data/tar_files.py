"""Tar files: the places of their members according to the headers, and which members belong together."""

import os
import posixpath
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from vlc.common.errors import UserError
from vlc.data.folders import is_hidden


class Name(NamedTuple):
    """A member's sample (its path up to the first dot of the file name), its stem (without the last suffix) and the suffix.

    Files of one stem belong together: `a.jpg` and `a.txt`, `track 2.0.jpg` and `track 2.0.txt`. WebDataset ends a name at
    its first dot, so that `a.jpg` and `a.mask.png` are one sample: they have the same `sample`, and lie side by side.
    """

    sample: str
    stem: str
    suffix: str


def split_name(path: str) -> Name:
    """The parts of a member's name; `./a.jpg` and `a.jpg` are the same. The suffix is in small letters and has no dot."""
    path = posixpath.normpath(path)
    folder, name = posixpath.split(path)
    stem, _, suffix = name.rpartition(".") if "." in name else (name, "", "")
    return Name(posixpath.join(folder, name.partition(".")[0]), posixpath.join(folder, stem), suffix.lower())


def is_hidden_member(path: str) -> bool:
    """Whether a member, or a folder above it, is no data: macOS puts `._a.jpg` beside `a.jpg`."""
    return any(is_hidden(part) for part in path.split("/") if part not in (".", ".."))


class Member(NamedTuple):
    """A member of a tar file.

    path: its name as it is stored.
    offset: the place of its first byte in the file.
    size: bytes.
    is_regular: whether it is a plain file, and no link, device or sparse file.
    """

    path: str
    offset: int
    size: int
    is_regular: bool


class Section:
    """A part of an open file as a file of its own: `size` bytes from `start`, all that follow by default."""

    def __init__(self, file: BinaryIO, start: int = 0, size: int | None = None):
        self.file, self.start, self.position = file, start, 0
        self.size = file.seek(0, os.SEEK_END) - start if size is None else size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, size: int = -1) -> bytes:
        left = max(self.size - self.position, 0)
        self.file.seek(self.start + self.position)
        data = self.file.read(left if size < 0 else min(size, left))
        self.position += len(data)
        return data


@contextmanager
def open_tar(section: Section, name: str) -> Iterator[tarfile.TarFile]:
    """An uncompressed tar file.

    name: the name of the file, for messages.

    Raises UserError where the file turns out to be damaged or of another kind, also while the block reads it.
    """
    try:
        # The types ask for write and close too, which reading does not call.
        with tarfile.open(fileobj=section, mode="r:") as tar:  # type: ignore[call-overload]
            yield tar
    except UserError:
        raise
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise UserError(f"{name} is damaged or not an uncompressed tar file ({error})") from error


def members(tar: tarfile.TarFile) -> Iterator[Member]:
    """The members of a tar from `open_tar`, in its order; folders and hidden files are left out.

    Raises tarfile.ReadError where one would not lie in the file.
    """
    section = tar.fileobj
    assert isinstance(section, Section)
    for member in tar:
        if member.isdir() or is_hidden_member(member.name):
            continue
        if member.size < 0 or member.offset_data + member.size > section.size:
            raise tarfile.ReadError(f"{posixpath.normpath(member.name)} should have {member.size:,} bytes")
        is_regular = member.isfile() and not member.issparse()
        yield Member(member.name, section.start + member.offset_data, member.size, is_regular)
