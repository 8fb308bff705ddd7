"""Images and texts by themselves, to be embedded once each: the rows of data sets, or the files below a folder."""

import hashlib
import os
from collections.abc import Callable, Sequence, Sized
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from torch import Tensor
from torch.utils.data import Dataset

from vlc.common.errors import ChangedFile, MissingFile, UserError
from vlc.data import keys
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


class Readable(Protocol):
    """Encoded images by number."""

    def read(self, number: int) -> pa.Buffer: ...

    def place(self, number: int) -> Location: ...


class Images(Readable, Protocol):
    """Encoded images by number, of known files."""

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """The image's id in the data, or else its file's name without the suffix, or else table and row."""

    def identity(self, number: int) -> FileIdentity:
        """The identity of the file that the image is read from."""

    def digest(self) -> str:
        """A hash of the identities of all files. It changes where the images may have changed."""


class FolderImages:
    """The image files below a folder, in the order of their names. Raises MissingFile or UserError if there are none."""

    def __init__(self, folder: str | Path):
        if not Path(folder).is_dir():
            raise MissingFile(f"image_folder={folder} is not a folder")
        self._folder = Path(folder).resolve()
        entries = sorted(image_files(self._folder), key=lambda entry: entry.path)
        if not entries:
            raise UserError(f"image_folder={folder} holds no image: expected files such as .jpg or .png below it")
        for entry in entries:
            if (encoded := os.fsencode(entry.path)) != entry.path.encode(errors="replace"):
                shown = encoded.decode(errors="backslashreplace")
                raise UserError(f"{shown} has a name that is not UTF-8, which a table cannot hold: rename it")
        self._paths = pa.array([entry.path for entry in entries])
        # Taken before the files are read: one that is written meanwhile counts as another.
        self._states = np.array([[(s := entry.stat()).st_size, s.st_mtime_ns] for entry in entries], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, number: int) -> pa.Buffer:
        return read_image_file(self._paths[number].as_py())

    def place(self, number: int) -> Location:
        return Location(self._paths[number].as_py())

    def name(self, number: int) -> str:
        return str(Path(self._paths[number].as_py()).relative_to(self._folder).with_suffix(""))

    def identity(self, number: int) -> FileIdentity:
        return FileIdentity(*self._states[number].tolist())

    def digest(self) -> str:
        names = "\n".join(self._paths.to_pylist())
        return hashlib.sha256(names.encode() + self._states.tobytes()).hexdigest()


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
        return _place(self._rows, where, texts[0] if texts else None)

    def name(self, number: int) -> str:
        return name_of_row(self._rows, self._rows.locate(number))

    def identity(self, number: int) -> FileIdentity:
        file, _ = self._rows.place(*self._rows.locate(number)[:2])
        return self._rows.states[file].identity

    def digest(self) -> str:
        return digest_of_tables([self._rows])


SourceT = TypeVar("SourceT", bound=Sized)


class _InSuccession(Generic[SourceT]):
    """The items of several sources by number, one source behind the other."""

    def __init__(self, sources: Sequence[SourceT]):
        self._sources = list(sources)
        self._starts = np.cumsum([0, *map(len, self._sources)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _at(self, number: int) -> tuple[SourceT, int]:
        """The source of an item, and its number there."""
        source = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._sources[source], number - int(self._starts[source])


class Joined(_InSuccession[Images]):
    """Images of several sources, one behind the other. It has the methods of `Images`."""

    def read(self, number: int) -> pa.Buffer:
        source, own = self._at(number)
        return source.read(own)

    def place(self, number: int) -> Location:
        source, own = self._at(number)
        return source.place(own)

    def name(self, number: int) -> str:
        source, own = self._at(number)
        return source.name(own)

    def identity(self, number: int) -> FileIdentity:
        source, own = self._at(number)
        return source.identity(own)

    def digest(self) -> str:
        return hashlib.sha256("".join(source.digest() for source in self._sources).encode()).hexdigest()


class Texts(_InSuccession[ArrowSplit]):
    """All texts of the tables of data sets, by number; or the rows, of tables that were opened without texts."""

    def at(self, number: int) -> tuple[ArrowSplit, keys.Location]:
        """The tables of a text, and where it lies in them."""
        table, own = self._at(number)
        return table, table.locate(own)

    def place(self, number: int) -> Location:
        rows, where = self.at(number)
        return _place(rows, where, rows.text(where) if rows.read_texts else None)


def name_of_row(rows: ArrowSplit, where: keys.Location) -> str:
    """The id of a row's image, where the tables have ids and were opened with their column, or else table and row."""
    if "image_id" in rows.columns:
        return str(rows.field(where, "image_id"))
    return "{}:{}".format(*rows.table_and_row(where))


def digest_of_tables(tables: Sequence[ArrowSplit]) -> str:
    """A hash of the identities of all files of tables. Files with checksums may be copied and touched."""
    identities = [(path.name, one.states[path].identity) for one in tables for path in one.paths]
    known = [(name, size, checksum or changed) for name, (size, changed, checksum) in identities]
    return hashlib.sha256(repr(known).encode()).hexdigest()


def _place(rows: ArrowSplit, where: keys.Location, text: str | None) -> Location:
    file, row = rows.place(where.batch, where.row)
    return Location(_resolved(file), rows.dataset, row, text)


@lru_cache
def _resolved(path: Path) -> str:
    return str(path.resolve())


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


class Decoded(NamedTuple):
    """A batch of images that were read.

    numbers: of the images that can be decoded.
    pixels: these images, prepared, (3, H, W) uint8 each.
    sizes: their widths and heights in the files, upright.
    failed: the places of the others, with the reason.
    """

    numbers: list[int]
    pixels: list[Tensor]
    sizes: list[tuple[int, int]]
    failed: list[tuple[Location, str]]


class DecodedImages(Dataset):
    """Batches of images by pairs of anything and a list of numbers; the former comes back with the batch."""

    def __init__(self, images: Readable, transform: Callable[[Picture, np.random.Generator], Shown]):
        self.images, self.transform = images, transform

    def __getitem__(self, asked: tuple[Any, Sequence[int]]) -> tuple[Any, Decoded]:
        key, numbers = asked
        decoded = Decoded([], [], [], [])
        for number in numbers:
            try:
                picture = open_image(self.images.read(number))
                decoded.pixels.append(self.transform(picture, np.random.default_rng(0)).pixels)
                decoded.sizes.append(picture.size)
                decoded.numbers.append(number)
            except UndecodableImage as error:
                decoded.failed.append((self.images.place(number), str(error)))
        return key, decoded
