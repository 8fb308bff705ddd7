"""Images and texts by themselves, to be embedded once each: the rows of data sets, or the files below a folder."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from torch import Tensor
from torch.utils.data import Dataset

from vlc.common.errors import ChangedFile, MissingFile, UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.folders import image_files, read_image_file
from vlc.data.geometry import Shown
from vlc.data.identity import FileIdentity, file_state
from vlc.data.images import Picture, UndecodableImage, open_image


class Location(NamedTuple):
    """The location of an image or text: a row in an arrow file of a data set, or an image file.

    source: the path of the file.
    dataset, row: None for an image file.
    text: the text, or the first text of an image's row.
    """

    source: str
    dataset: str | None = None
    row: int | None = None
    text: str | None = None

    def __str__(self) -> str:
        return self.source if self.row is None else f"{self.source}:{self.row}"


class Images(Protocol):
    """Encoded images by number."""

    def __len__(self) -> int: ...

    def read(self, number: int) -> pa.Buffer: ...

    def place(self, number: int) -> Location: ...

    def identity(self, number: int) -> FileIdentity:
        """The identity of the file that the image is read from."""


class FolderImages:
    """The image files below a folder, in the order of their names. Raises MissingFile or UserError if there are none."""

    def __init__(self, folder: str | Path):
        if not Path(folder).is_dir():
            raise MissingFile(f"image_folder={folder} is not a folder")
        entries = sorted(image_files(Path(folder).resolve()), key=lambda entry: entry.path)
        if not entries:
            raise UserError(f"image_folder={folder} holds no image: expected files such as .jpg or .png below it")
        for entry in entries:
            if (encoded := os.fsencode(entry.path)) != entry.path.encode(errors="replace"):
                shown = encoded.decode(errors="backslashreplace")
                raise UserError(f"{shown} has a name that is not UTF-8, which an index cannot hold: rename it")
        self._paths = pa.array([entry.path for entry in entries])
        # Taken before the files are read: one that is written meanwhile counts as another.
        self._states = np.array([[(s := entry.stat()).st_size, s.st_mtime_ns] for entry in entries], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, number: int) -> pa.Buffer:
        return read_image_file(self._paths[number].as_py())

    def place(self, number: int) -> Location:
        return Location(self._paths[number].as_py())

    def identity(self, number: int) -> FileIdentity:
        return FileIdentity(*self._states[number].tolist())


class RowImages:
    """The images of a data set's tables, a row each."""

    def __init__(self, rows: ArrowSplit):
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, number: int) -> pa.Buffer:
        return self._rows.image(self._rows.locate(number), self._rows.spec.images[0])

    def place(self, number: int) -> Location:
        where = self._rows.locate(number)
        texts = [text for text in self._rows.texts(where) if text]
        return _place(self._rows, number, texts[0] if texts else None)

    def identity(self, number: int) -> FileIdentity:
        file, _ = self._rows.place(*self._rows.locate(number)[:2])
        return self._rows.states[file].identity


def texts(rows: ArrowSplit) -> Iterator[Location]:
    """All texts of a data set's tables."""
    for sample in range(len(rows)):
        where = rows.locate(sample)
        yield _place(rows, sample, rows.text(where))


def _place(rows: ArrowSplit, sample: int, text: str | None) -> Location:
    file, row = rows.place(*rows.locate(sample)[:2])
    return Location(str(file.resolve()), rows.dataset, row, text)


def read_image(place: Location, identity: FileIdentity | None = None) -> pa.Buffer:
    """The encoded image of a place. Raises UserError or MissingFile if it is no longer there.

    identity: the identity of the file when the place was found, where it is known. Raises ChangedFile if it differs now.
    """
    path = Path(place.source)
    if not path.is_file():
        raise MissingFile(f"{path}, where an image of the index lies, does not exist")
    if place.dataset is None or place.row is None:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            _require_same(path, identity, FileIdentity(status.st_size, status.st_mtime_ns))
            return pa.py_buffer(file.read())
    if identity is not None:
        _require_same(path, identity, file_state(path).identity)
    spec = CATALOG[place.dataset]
    rows = ArrowSplit([path], spec, place.dataset, set(spec.images), read_texts=False)
    if place.row >= len(rows):
        raise ChangedFile(f"{path} has {len(rows):,} rows now, and none with number {place.row}")
    return rows.image(rows.locate(place.row), spec.images[0])


def _require_same(path: Path, indexed: FileIdentity | None, now: FileIdentity) -> None:
    if difference := indexed and indexed.difference(now):
        raise ChangedFile(f"{path} is another file than was indexed: {difference}")


class DecodedImages(Dataset):
    """Batches by lists of numbers: the numbers and images (3, H, W) uint8 that can be decoded, and the other images.

    The others are pairs of place and reason.
    """

    def __init__(self, images: Images, transform: Callable[[Picture, np.random.Generator], Shown]):
        self.images, self.transform = images, transform

    def __getitem__(self, numbers: list[int]) -> tuple[list[int], list[Tensor], list[tuple[Location, str]]]:
        good, pixels, bad = [], [], []
        for number in numbers:
            try:
                picture = open_image(self.images.read(number))
                pixels.append(self.transform(picture, np.random.default_rng(0)).pixels)
                good.append(number)
            except UndecodableImage as error:
                bad.append((self.images.place(number), str(error)))
        return good, pixels, bad
