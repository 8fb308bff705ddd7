"""What belongs together in a WebDataset shard: the names of its members."""

import posixpath
from typing import NamedTuple

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
