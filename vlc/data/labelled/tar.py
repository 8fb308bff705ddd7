"""Labelled images in WebDataset tar files."""

import json
import logging
import os
import tarfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from vlc.common.errors import UserError
from vlc.data.checksums import FILE, IMAGE_CHECKSUM, ROW_CHECKSUM, image_checksum, metadata_checksum, row_checksum
from vlc.data.identity import FileState, mark_of, require_unchanged
from vlc.data.images import SUFFIXES
from vlc.data.ipc import refuse_other_kinds
from vlc.data.labelled.source import LabelledImages, Place, blaming, class_names_of, states_of
from vlc.data.tar_files import Section, members, open_tar, split_name

_log = logging.getLogger(__name__)


class TarImages(LabelledImages):
    """WebDataset tar files: KEY.jpg beside KEY.cls (the label as text), or KEY.json with "label" and maybe "class_name".

    The headers are read once, at the start; images are then read from their places, in any order.
    """

    def __init__(self, paths: list[Path], *, verify: bool = False):
        self.paths = [str(path) for path in paths]
        self.states = states_of(self.paths)
        labels, names, members, checksums = [], [], [], []
        for file, path in enumerate(self.paths):
            found = _members(path)
            for key, parts in found.items():
                image = next((parts[suffix] for suffix in parts if f".{suffix}" in SUFFIXES), None)
                if image is None or _is_further_part(key, parts, found):
                    continue
                label, name, checksum = _tar_label(path, self.states[path], key, parts)
                labels.append(label)
                names.append(name)
                members.append((file, *image))
                checksums.append(checksum)
        self.has_checksums = None not in checksums
        self._checksums = np.array(checksums, dtype=np.uint32) if verify and self.has_checksums else None
        if verify and not self.has_checksums:
            _log.warning("Cannot be verified, as another writer left no checksums: %s", ", ".join(self.paths))
        self.labels = np.array(labels, dtype=np.int64)
        self._members = np.array(members, dtype=np.int64).reshape(-1, 3)
        self.class_names = None
        if names and None not in names:
            self.class_names = class_names_of(pa.chunked_array([pa.array(names)]), self.labels, paths[0])

    def read(self, number: int) -> pa.Buffer:
        file, offset, size = self._members[number].tolist()
        path = self.paths[file]
        image = _read_at(path, self.states[path], offset, size)
        if self._checksums is not None and image_checksum(image) != self._checksums[number]:
            row = self.place(number).row
            raise UserError(f"{path} is damaged: the image in row {row} does not have the checksum it was written with")
        return pa.py_buffer(image)

    def place(self, number: int) -> Place:
        file = int(self._members[number, 0])
        return Place(self.paths[file], number - int(np.searchsorted(self._members[:, 0], file)))


def _members(path: str) -> dict[str, dict[str, tuple[int, int]]]:
    """Key -> suffix -> (offset, size) of the regular files in a tar file, in its order."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    with blaming(path, "an uncompressed tar file"):
        with open(path, "rb") as opened:
            beginning = opened.read(4 * tarfile.BLOCKSIZE)
        refuse_other_kinds(beginning)
        with open(path, "rb") as opened, open_tar(Section(opened), path) as file:
            for member in members(file):
                if member.is_regular:
                    _, stem, suffix = split_name(member.path)
                    found.setdefault(stem, {})[suffix] = (member.offset, member.size)
            _require_end(path, file)
            if beginning[156:157] == tarfile.XGLTYPE and b"vlc." in beginning:  # typeflag of a header that we wrote
                header = file.pax_headers
                if mark_of(header) is None or header.get(FILE.decode()) != metadata_checksum(header):
                    raise ValueError("its global header is not as it was written")
    return found


def _require_end(path: str, file: tarfile.TarFile) -> None:
    """Raises ValueError where a file does not end as tar files do: tarfile takes a damaged header for the end."""
    with open(path, "rb") as opened:
        opened.seek(file.offset)
        end = opened.read(tarfile.BLOCKSIZE)
        follows = any(end) or any(any(chunk) for chunk in iter(lambda: opened.read(1 << 20), b""))
    if follows or (not end and mark_of(file.pax_headers) is not None):
        raise ValueError(f"no end of the file at byte {file.offset:,}: it is cut short, or a header is damaged")


def _is_further_part(key: str, parts: dict, found: dict[str, dict]) -> bool:
    """Whether an image without label, such as `a.mask.png`, belongs to a labelled one, `a.jpg` with `a.cls`."""
    sample = split_name(f"{key}.").sample
    return (
        parts.keys().isdisjoint(("cls", "json"))
        and key != sample
        and not found.get(sample, {}).keys().isdisjoint(("cls", "json"))
    )


def _tar_label(
    path: str, state: FileState, key: str, parts: dict[str, tuple[int, int]]
) -> tuple[int, str | None, int | None]:
    """The label, the class name if there is one, and the checksum of the image if our writer left one."""
    try:
        described = json.loads(_read_at(path, state, *parts["json"])) if "json" in parts else {}
        label = int(_read_at(path, state, *parts["cls"])) if "cls" in parts else int(described["label"])
        if {ROW_CHECKSUM, IMAGE_CHECKSUM} & set(described) and (
            row_checksum(described) != described.get(ROW_CHECKSUM) or label != described["label"]
        ):
            raise UserError(f"{path} is damaged: {key}.json or {key}.cls is not as it was written")
        return label, described.get("class_name"), described.get(IMAGE_CHECKSUM)
    except UserError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f'{path}: {key} has no label: expected {key}.cls or "label" in {key}.json') from error


def _read_at(path: str, state: FileState, offset: int, size: int) -> bytes:
    """Bytes of the file that had this state when it was opened."""
    descriptor = _descriptor(path, state)
    data = os.pread(descriptor, size, offset)
    require_unchanged(Path(path), state, os.fstat(descriptor))
    if len(data) != size:
        raise UserError(f"{path} ends before byte {offset + size:,}: it was cut short")
    return data


@lru_cache(maxsize=256)
def _descriptor(path: str, state: FileState) -> int:
    """The number of an open file. state: distinguishes it from an older file of this name, so that this is not kept."""
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{path} can no longer be read ({error.strerror}): it is needed until the end") from error
