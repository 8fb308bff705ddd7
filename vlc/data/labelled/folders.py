"""Labelled images in a folder for each class."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa

from vlc.common.errors import MissingFile, UserError
from vlc.data.folders import is_hidden, visible_entries
from vlc.data.images import SUFFIXES
from vlc.data.labelled.source import LabelledImages, Place


class FolderImages(LabelledImages):
    """A folder for each class, labels in the order of the sorted names (as torchvision and MAE read ImageNet)."""

    def __init__(self, root: Path):
        self.root = root
        try:
            names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not is_hidden(entry.name))
            found = {name: [e for e in visible_entries(root / name) if _is_image(e.name)] for name in names}
        except OSError as error:
            raise UserError(f"{error.filename or root} cannot be listed: {error.strerror}") from error
        if not names:
            raise MissingFile(f"{root} holds no folder for any class: expected {root}/CLASS/IMAGE.jpg")
        self.class_names: tuple[str, ...] | None = tuple(names)
        labels, paths = [], []
        for label, name in enumerate(names):
            labels += [label] * len(found[name])
            paths += [os.fsencode(entry.path) for entry in found[name]]
            if broken := [entry.path for entry in found[name] if not entry.is_file()]:
                raise MissingFile(f"{broken[0]} is a link to a file that does not exist: mend or remove it")
        self.labels = np.array(labels, dtype=np.int64)
        self._paths = pa.array(paths, pa.binary())  # a name need not be UTF-8

    def _path(self, number: int) -> str:
        return os.fsdecode(self._paths[number].as_py())

    def read(self, number: int) -> pa.Buffer:
        try:
            return pa.py_buffer(Path(self._path(number)).read_bytes())
        except OSError as error:
            raise UserError(
                f"{self._path(number)} was there at the start and cannot be read now ({error.strerror}): images are needed "
                "until the end"
            ) from error

    def place(self, number: int) -> Place:
        return Place(self._path(number), 0)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES
