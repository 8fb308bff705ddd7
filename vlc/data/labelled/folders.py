"""Labelled images in a folder for each class."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa

from vlc.common.errors import MissingFile, UserError
from vlc.data.folders import image_files, is_hidden, read_image_file
from vlc.data.labelled.source import LabelledImages, Place


class FolderImages(LabelledImages):
    """A folder for each class, labels in the order of the sorted names (as torchvision and MAE read ImageNet)."""

    def __init__(self, root: Path):
        self.root = root
        try:
            names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not is_hidden(entry.name))
        except OSError as error:
            raise UserError(f"{root} cannot be listed: {error.strerror}") from error
        if not names:
            raise MissingFile(f"{root} holds no folder for any class: expected {root}/CLASS/IMAGE.jpg")
        self.class_names: tuple[str, ...] | None = tuple(names)
        files = [[os.fsencode(entry.path) for entry in image_files(root / name)] for name in names]
        self.labels = np.repeat(np.arange(len(names)), [len(own) for own in files])
        self._paths = pa.array([path for own in files for path in own], pa.binary())  # a name need not be UTF-8

    def _path(self, number: int) -> str:
        return os.fsdecode(self._paths[number].as_py())

    def read(self, number: int) -> pa.Buffer:
        return read_image_file(self._path(number))

    def place(self, number: int) -> Place:
        return Place(self._path(number), 0)
