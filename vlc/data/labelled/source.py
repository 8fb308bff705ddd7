"""The base of all forms of labelled images: a source of samples whose labels are known from the start."""

import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from vlc.common.errors import UserError
from vlc.data.catalog import CATALOG
from vlc.data.identity import FileState, file_state
from vlc.data.ipc import is_list, is_text
from vlc.data.keys import Location
from vlc.data.kinds import MOST_LABELS, are_labels
from vlc.data.values import plain

WRITER = "python -m write_arrow imagenet"
SPEC = CATALOG["labelled_images"]


class Place(NamedTuple):
    """Where an image lies, for messages: a folder or file, and the row in it."""

    table: str
    row: int


class LabelledImages:
    """The images of one split, without texts: a `Source` whose rows are numbered throughout.

    labels: (N,) int64.
    class_names: the names by label; None where the data have no names.
    """

    spec, dataset, suffix = SPEC, "labelled images", ""
    labels: np.ndarray
    class_names: tuple[str, ...] | None

    def read(self, number: int) -> pa.Buffer:
        """Return the encoded image. Raises UserError where its file is damaged, gone or has changed."""
        raise NotImplementedError

    def place(self, number: int) -> Place:
        """Return where the image lies."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.labels)

    def locate(self, sample: int) -> Location:
        return Location(0, sample, 0)

    def table_and_row(self, where: Location) -> Place:
        return self.place(where.row)

    def image(self, where: Location, column: str) -> pa.Buffer:
        return self.read(where.row)

    def text(self, where: Location) -> str:
        return ""

    def texts(self, where: Location) -> list[str]:
        return []

    def field(self, where: Location, name: str) -> int:
        """Return the label of an image; `label` is the only field."""
        return int(self.labels[where.row])

    def provides(self, name: str) -> bool:
        return name in self.spec.fields

    def withholds(self, name: str) -> bool:
        return False


def states_of(paths: list[str]) -> dict[str, FileState]:
    """The state of each file. Raises UserError where one cannot be read."""
    states = {}
    for path in paths:
        with blaming(path, "a data file"):
            states[path] = file_state(Path(path))
    return states


@contextmanager
def blaming(path: str, kind: str) -> Iterator[None]:
    """Turns the errors of a damaged file into a UserError that names it."""
    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, tarfile.TarError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or not {kind} ({error})") from error


def labels_of(column: pa.Array, place: Callable[[int], tuple[Path | str, int]]) -> np.ndarray:
    """Labels (N,) int64. Raises UserError for the first row that holds none, naming the place that `place` gives."""
    values = plain(column)
    understood = ~values.is_null().to_numpy(zero_copy_only=False)
    known = are_labels(values.drop_null())
    understood[understood] = False if known is None else known
    if not understood.all():
        row = int(understood.argmin())
        path, number = place(row)
        raise UserError(
            f"Row {number} of {path}: label is {values[row].as_py()!r}, expected a whole number from 0 to "
            f"{MOST_LABELS - 1:,}"
        )
    return values.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False)


def names_of(column: pa.Array, path: Path | str) -> pa.Array:
    """Class names as strings. Raises UserError where they are of another type."""
    values = plain(column)
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type) or pa.types.is_null(values.type)):
        raise UserError(f"{path}: column class_name is {column.type}, expected strings")
    return values.cast(pa.large_string())


def class_names_of(column: pa.ChunkedArray, labels: np.ndarray, path: Path) -> tuple[str, ...]:
    """Names by label; "" for labels that do not occur. Raises UserError where one label has two names, or no text."""
    if not is_text(column.type) or is_list(column.type):
        raise UserError(f"{path}: column class_name holds {column.type}, expected strings")
    pairs = pa.table({"label": labels, "name": column}).group_by(["label", "name"]).aggregate([]).to_pylist()
    names = [""] * (int(labels.max(initial=-1)) + 1)
    for pair in pairs:
        label, name = pair["label"], pair["name"] or ""
        if label < 0 or (names[label] and names[label] != name):
            raise UserError(f"{path}: label {label} has names {names[label]!r} and {name!r}")
        names[label] = name
    return tuple(names)
