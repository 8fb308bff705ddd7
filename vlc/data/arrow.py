"""Reading Arrow files: memory-mapped tables, and an index from sample number to (row, text).

A sample is one text of one row (or one row, where texts are not read). Nothing is copied out of the files until a
sample is used; what is kept in memory is a few numbers for each record batch.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlc.data.spec import DatasetSpec
from vlc.errors import MissingFile, UserError


class Location(NamedTuple):
    """Where a sample lies: record batch, row inside it, text inside the row."""

    batch: int
    row: int
    text: int


def find_tables(data_root: str | Path, stems: tuple[str, ...], dataset: str, writer: str) -> list[Path]:
    """Arrow files of the given stems, shards in numerical order.

    Raises MissingFile, naming the path, the data set and the command that writes it, if a stem has no file.
    """
    root = Path(data_root)
    if not str(data_root) or not root.is_dir():
        raise MissingFile(
            f"data_root={str(data_root)!r} is not a folder. Pass data_root=FOLDER with the arrow files of data set "
            f"{dataset!r}; write them with: python -m write_arrow {writer} --out FOLDER"
        )
    found = []
    for stem in stems:
        paths = _shards(root, stem) if stem.endswith("*") else [root / f"{stem}.arrow"]
        if not paths or not paths[0].is_file():
            raise MissingFile(
                f"Data set {dataset!r} needs {root / stem}.arrow, which does not exist. "
                f"Write it with: python -m write_arrow {writer} --out {root}"
            )
        found += paths
    return found


def _shards(root: Path, stem: str) -> list[Path]:
    pattern = re.compile(re.escape(stem[:-1]) + r"(\d+)\.arrow")
    numbered = [(int(match[1]), path) for path in root.iterdir() if (match := pattern.fullmatch(path.name))]
    return [path for _, path in sorted(numbered)]


class ArrowSplit:
    """The rows of one split of one data set, from one or more Arrow IPC files, addressed by sample number.

    columns: what must be there; read_texts=False makes every row one sample without text.
    Raises MissingFile or UserError if a file is missing, damaged or lacks a column.
    """

    def __init__(
        self, paths: list[Path], spec: DatasetSpec, dataset: str, columns: set[str], *, read_texts: bool = True
    ):
        self.paths, self.spec, self.dataset, self.columns = paths, spec, dataset, columns
        self.read_texts = read_texts
        self._open()

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._tables: list[str] = []  # the file of each record batch
        self._first_rows: list[int] = []  # the number of its first row in that file
        for path in self.paths:
            row = 0
            for batch in _record_batches(path, self.columns, self.dataset, self.spec.writer):
                self._batches.append(batch)
                self._tables.append(path.stem)
                self._first_rows.append(row)
                row += batch.num_rows
        self._offsets = [self._text_offsets(batch) for batch in self._batches]
        counts = [offsets[-1] - offsets[0] for offsets in self._offsets]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._repeated = self._find_repeated() if self.read_texts and self.spec.unique_texts else np.empty(0, np.int64)

    def _text_offsets(self, batch: pa.RecordBatch) -> np.ndarray:
        """Number of texts before each row of a record batch, and in all (rows + 1,)."""
        if not self.read_texts:
            return np.arange(batch.num_rows + 1)
        texts = batch.column(self.spec.text)
        if pa.types.is_null(texts.type):
            return np.zeros(batch.num_rows + 1, dtype=np.int64)
        if not pa.types.is_list(texts.type) and not pa.types.is_large_list(texts.type):
            return np.arange(batch.num_rows + 1)  # one plain string a row
        return texts.offsets.to_numpy()

    def _find_repeated(self) -> np.ndarray:
        """Sorted numbers of the samples whose text stands earlier in the same row."""
        found = [np.empty(0, dtype=np.int64)]
        for batch, offsets, start in zip(self._batches, self._offsets, self._starts, strict=False):
            texts = batch.column(self.spec.text)
            if not pa.types.is_list(texts.type) and not pa.types.is_large_list(texts.type):
                continue
            codes = pc.dictionary_encode(texts.flatten()).indices.to_numpy().astype(np.int64)
            rows = np.repeat(np.arange(len(texts)), np.diff(offsets))
            _, first = np.unique(rows * (codes.max(initial=0) + 1) + codes, return_index=True)
            repeated = np.ones(len(codes), dtype=bool)
            repeated[first] = False
            found.append(start + np.flatnonzero(repeated))
        return np.concatenate(found)

    def __len__(self) -> int:
        """Number of samples."""
        return int(self._starts[-1]) - len(self._repeated)

    @property
    def num_rows(self) -> int:
        return sum(batch.num_rows for batch in self._batches)

    def locate(self, sample: int) -> Location:
        """Where a sample lies. Raises IndexError outside [0, len)."""
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        if len(self._repeated):  # count the repeated texts that lie before it
            sample += int(np.searchsorted(self._repeated - np.arange(len(self._repeated)), sample, side="right"))
        batch = int(np.searchsorted(self._starts, sample, side="right")) - 1
        offsets = self._offsets[batch]
        position = sample - int(self._starts[batch]) + int(offsets[0])
        row = int(np.searchsorted(offsets, position, side="right")) - 1
        return Location(batch, row, position - int(offsets[row]))

    def table_and_row(self, where: Location) -> tuple[str, int]:
        """File stem and row number in that file, for messages."""
        return self._tables[where.batch], self._first_rows[where.batch] + where.row

    def image(self, where: Location, column: str) -> pa.Buffer:
        """Encoded bytes of an image, a view into the file. (A scalar's buffer would be a copy.)"""
        cells = self._batches[where.batch].column(column)
        _, offsets, content = cells.buffers()
        width = np.int64 if pa.types.is_large_binary(cells.type) else np.int32
        start, end = np.frombuffer(offsets, width)[cells.offset + where.row :][:2].tolist()
        return content.slice(start, end - start)

    def texts(self, where: Location) -> list[str]:
        """All texts of the row."""
        cell = self._cell(where, self.spec.text).as_py()
        return [cell] if isinstance(cell, str) else cell or []

    def text(self, where: Location) -> str:
        cell = self._cell(where, self.spec.text)
        return cell.values[where.text].as_py() if hasattr(cell, "values") else cell.as_py()

    def provides(self, name: str) -> bool:
        """Whether every file has the column of a catalogue field."""
        column = self.spec.fields.get(name)
        return column is not None and all(column.name in batch.schema.names for batch in self._batches)

    def field(self, where: Location, name: str):
        """Value of a catalogue field for this sample, as a Python object."""
        column = self.spec.fields[name]
        if column.fallback and column.name not in self._batches[where.batch].schema.names:
            column = column.fallback
        cell = self._cell(where, column.name)
        value = cell.values[where.text].as_py() if column.per_text else cell.as_py()
        return f"{value}-{where.text}" if column.numbered else value

    def _cell(self, where: Location, column: str) -> pa.Scalar:
        return self._batches[where.batch].column(column)[where.row]

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column, for work on all rows at once."""
        return pa.chunked_array([batch.column(name) for batch in self._batches if batch.num_rows])


def _record_batches(path: Path, columns: set[str], dataset: str, writer: str) -> list[pa.RecordBatch]:
    advice = f"Write it again with: python -m write_arrow {writer} --out {path.parent}"
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        missing = columns - set(reader.schema.names)
        if missing:
            raise UserError(
                f"{path} lacks column {', '.join(sorted(missing))}, which data set {dataset!r} reads; it has "
                f"{', '.join(reader.schema.names)}. {advice}"
            )
        return [reader.get_batch(number) for number in range(reader.num_record_batches)]
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is damaged or not an Arrow IPC file ({error}). {advice}") from error
