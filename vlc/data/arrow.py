"""Reading Arrow files: memory-mapped tables, and an index from sample number to (row, text).

A sample is one text of one row, or one row where texts are not read. A null is no text. Nothing is copied out of the files
until a sample is used. Memory holds a few numbers for each record batch, and one for each text that is left out because it
is repeated or null, or of a row that is left out.
"""

import logging
import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa

from vlc.common.errors import MissingFile, UserError
from vlc.data.checksums import BatchChecksums, DamagedData, batch_checksums, verify_columns
from vlc.data.identity import (
    FileState,
    file_state,
    is_journal,
    require_finished,
    require_one_conversion,
    require_unchanged,
)
from vlc.data.ipc import (
    in_plain_layout,
    is_binary,
    is_list,
    is_text,
    needs_plain_layout,
    open_mapped,
    record_batches,
)
from vlc.data.keys import Location
from vlc.data.remote import RemoteFolder, is_url
from vlc.data.repeated import repeated_texts
from vlc.data.spec import DatasetSpec
from vlc.data.values import null_texts, num_values, uneven

_log = logging.getLogger(__name__)


def find_tables(
    data_root: str | Path, stems: tuple[str, ...], dataset: str, writer: str, cache: str | None = None
) -> list[Path]:
    """Arrow files of the given stems, shards in numerical order. Files of a URL are copied to the folder `cache` first.

    Raises MissingFile, naming the path, the data set and the command that writes it, if a stem has no file; UserError if
    a URL cannot be read, or if the files are what an interrupted conversion left (see `vlc.data.identity`).
    """
    remote = RemoteFolder(str(data_root), cache) if is_url(data_root) else None
    root = Path(data_root)
    if remote is None and (not str(data_root) or not root.is_dir()):
        raise MissingFile(
            f"data_root={str(data_root)!r} is not a folder. Pass data_root=FOLDER with the arrow files of data set "
            f"{dataset!r}; write them with: python -m write_arrow {writer} --out FOLDER"
        )
    present = remote.names if remote else {path.name for path in root.iterdir()}
    found = []
    for stem in stems:
        names = _names(stem, present)
        if not names:
            folder = remote.url if remote else root
            raise MissingFile(
                f"Data set {dataset!r} needs {folder}/{stem}.arrow, which does not exist. "
                f"Write it with: python -m write_arrow {writer} --out {folder}"
            )
        found += [remote.fetch(name) if remote else root / name for name in names]
    again = f"Write them again with: python -m write_arrow {writer} --out {remote.url if remote else root}"
    journals = []
    for name in filter(is_journal, present):
        with suppress(FileNotFoundError):  # a conversion has just finished
            journals.append(remote.fetch(name) if remote else root / name)
    require_finished({path.name for path in found}, journals, again)
    require_one_conversion(found, again)
    return found


def has_tables(data_root: str | Path, stems: tuple[str, ...], cache: str | None = None) -> bool:
    """Whether a folder, or a URL, has a file of every stem."""
    root = Path(data_root)
    if is_url(data_root):
        present = RemoteFolder(str(data_root), cache).names
    else:
        present = {path.name for path in root.iterdir()} if root.is_dir() else set()
    return all(present.intersection(_names(stem, present)) for stem in stems)


def _names(stem: str, present: set[str]) -> list[str]:
    """The present file names of a stem; of one that ends in "*" all its numbered shards, in order."""
    if not stem.endswith("*"):
        return [f"{stem}.arrow"] if f"{stem}.arrow" in present else []
    pattern = re.compile(re.escape(stem[:-1]) + r"(\d+)\.arrow")
    numbered = [(int(match[1]), name) for name in present if (match := pattern.fullmatch(name))]
    return [name for _, name in sorted(numbered)]


class ArrowSplit:
    """The rows of one split of one data set, from one or more Arrow IPC files, addressed by sample number.

    columns: the columns that must be there.
    read_texts: False makes every row one sample without text.
    verify: compare what is read with the checksums that our writer left. A warning names files without any.
    leaves_out: returns the sorted numbers of the rows of a file that are left out.

    `chosen` (N, 4) int32 has the places of the samples where not all texts are samples (`vlc.data.selection`): record
    batch, row, text, and the second text of a pair or -1. None: every text is a sample.

    Raises UserError if a file is damaged or lacks a column. It does so at once where the metadata show this, and where
    offsets, texts or a checksum show it, when a record batch or an image is first used. It also does so if a file is no
    longer the one that was opened first, by this object or by the object that it was unpickled from.
    """

    suffix = ".arrow"

    def __init__(
        self,
        paths: list[Path],
        spec: DatasetSpec,
        dataset: str,
        columns: set[str],
        *,
        read_texts: bool = True,
        verify: bool = False,
        leaves_out: Callable[[Path], np.ndarray] | None = None,
    ):
        self.paths, self.spec, self.dataset, self.columns = paths, spec, dataset, columns
        self.read_texts, self.verify = read_texts, verify
        self.states: dict[Path, FileState] = {}
        self.repeated: dict[Path, np.ndarray] = {}  # from `repeated_texts`; loader processes get it too
        self.left_out: dict[Path, np.ndarray] = {}  # from `leaves_out`; loader processes get it too
        self.chosen: np.ndarray | None = None  # from `vlc.data.selection`; loader processes get it too
        self.language = ""  # of all chosen texts, or their direction, where a source is divided by it
        self._leaves_out = leaves_out
        self._open()
        if verify and (without := [path for path in paths if self.states[path].checksum is None]):
            _log.warning("Cannot be verified, as another writer left no checksums: %s", ", ".join(map(str, without)))

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._leaves_out = None  # left_out has what it found
        self._open()

    def _open(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._files: list[Path] = []  # the file of each record batch
        self._first_rows: list[int] = []  # the number of its first row in that file
        self._sound: set[int] = set()  # the numbers of record batches that were checked
        self._checksums: dict[int, BatchChecksums | None] = {}  # by number, where a record batch was checked
        self.num_missing: dict[Path, int] = {}  # texts of each file that are null; they are left out
        self.num_left_out = 0  # texts of rows that are left out, without repeated ones and nulls
        counts, left_out, first = [], [np.empty(0, dtype=np.int64)], 0
        for path in self.paths:
            self._recognise(path)
            rows, texts, missing, begin = 0, first, [np.empty(0, dtype=np.int64)], len(self._batches)
            for batch in self._read(path):
                self._batches.append(batch)
                self._files.append(path)
                self._first_rows.append(rows)
                with self._errors_name_the_file(path):
                    offsets = self._text_offsets(batch)
                    counts.append(batch.num_rows if offsets is None else int(offsets[-1]) - int(offsets[0]))
                    if self.read_texts:
                        missing.append(texts + null_texts(batch.column(self.spec.text)))
                texts += counts[-1]
                rows += batch.num_rows
            left_out.append(np.concatenate(missing))
            self.num_missing[path] = len(left_out[-1])
            if self.read_texts and self.spec.unique_texts:
                if path not in self.repeated:
                    with self._errors_name_the_file(path):
                        self.repeated[path] = repeated_texts(path, self.spec.text)
                left_out[-1] = np.union1d(left_out[-1], first + self.repeated[path])
            left_out[-1] = self._with_rows_left_out(path, left_out[-1], first, begin)
            first = texts
            self._recognise(path)
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        # For each text left out the number of samples before it, so that a search finds how many to skip.
        skipped = np.concatenate(left_out)
        self._skipped = skipped - np.arange(len(skipped))

    def _with_rows_left_out(self, path: Path, others: np.ndarray, first: int, begin: int) -> np.ndarray:
        """The sorted numbers of the texts that are left out: others, and all texts of the rows of a file that are.

        others: the numbers of repeated texts and nulls.
        first, begin: the numbers of the file's first text, and of its first record batch.
        """
        if path not in self.left_out:
            if self._leaves_out is None:
                return others
            with self._errors_name_the_file(path):
                self.left_out[path] = self._leaves_out(path)
        numbers = [others]
        for batch, row in zip(self._batches[begin:], self._first_rows[begin:], strict=True):
            start, end = np.searchsorted(self.left_out[path], (row, row + batch.num_rows))
            offsets = self._text_offsets(batch)
            widths = np.ones(batch.num_rows, dtype=np.int64) if offsets is None else np.diff(offsets)
            removed = np.zeros(batch.num_rows, dtype=bool)
            removed[self.left_out[path][start:end] - row] = True
            numbers.append(first + np.flatnonzero(np.repeat(removed, widths)))
            first += int(widths.sum())
        together = np.unique(np.concatenate(numbers))
        self.num_left_out += len(together) - len(others)
        return together

    def _recognise(self, path: Path) -> None:
        """Require that the file is the one that was opened first."""
        if path in self.states:
            self.states[path] = require_unchanged(path, self.states[path])
        else:
            with self._errors_name_the_file(path):
                self.states[path] = file_state(path)

    def _require_unchanged(self, number: int) -> None:
        """Require that nobody wrote into a record batch's file. A file that took its place is harmless: ours is mapped."""
        path = self._files[number]
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return
        state = self.states[path]
        if status.st_mtime_ns != state.changed and status.st_ino == state.inode:
            self.states[path] = require_unchanged(path, state, status)

    def _read(self, path: Path) -> list[pa.RecordBatch]:
        """The record batches of a file, their columns checked."""
        with self._errors_name_the_file(path):
            schema, batches = record_batches(path)
        missing = self.columns - set(schema.names)
        if missing:
            raise UserError(
                f"{path} lacks column {', '.join(sorted(missing))}, which data set {self.dataset!r} reads; it has "
                f"{', '.join(schema.names)}. {self._advice(path)}"
            )
        expected = dict.fromkeys(self.columns & set(self.spec.images), is_binary)
        expected |= {self.spec.text: is_text} if self.read_texts else {}
        for column, fits in expected.items():
            kind = schema.field(column).type
            if not fits(kind):
                raise UserError(
                    f"Column {column} of {path} has type {kind}, which data set {self.dataset!r} cannot read. "
                    f"{self._advice(path)}"
                )
        self._refuse_null_images(path, batches)
        with self._errors_name_the_file(path):
            return [self._in_plain_layout(batch) for batch in batches]

    def _in_plain_layout(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with texts and annotations copied where they have another layout; images stay where they are."""
        fields = self.spec.fields.values()
        read = self.columns | {column.name for field in fields for column in (field, field.fallback) if column}
        for place, name in enumerate(batch.schema.names):
            column = batch.column(place)
            if name in read and name not in self.spec.images and needs_plain_layout(column.type):
                column.validate(full=True)
                batch = batch.set_column(place, name, in_plain_layout(column))
        return batch

    def _refuse_null_images(self, path: Path, batches: list[pa.RecordBatch]) -> None:
        first = 0
        for batch in batches:
            for column in sorted(self.columns & set(self.spec.images)):
                if nulls := batch.column(column).null_count:
                    row = first + batch.column(column).is_null().index(True).as_py()
                    raise UserError(
                        f"{path} has {nulls:,} rows without an image, the first of them row {row} (null in column "
                        f"{column}): remove them. {self._advice(path)}"
                    )
            first += batch.num_rows

    def _advice(self, path: Path) -> str:
        return f"W{self._again(path)[1:]}"

    def _again(self, path: Path) -> str:
        return f"write it again with: python -m write_arrow {self.spec.writer} --out {path.parent}"

    @contextmanager
    def _errors_name_the_file(self, path: Path, where: Location | None = None) -> Iterator[None]:
        """Turns pyarrow's errors into one that names the file, and the row."""
        try:
            yield
        except UserError:
            raise
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:  # pyarrow raises these on damaged files
            row = "" if where is None else f", row {self.place(where.batch, where.row)[1]}"
            raise UserError(
                f"{path} is damaged or not an Arrow IPC file ({error}{row}). {self._advice(path)}"
            ) from error

    def _text_offsets(self, batch: pa.RecordBatch) -> np.ndarray | None:
        """Row i has the texts [offsets[i], offsets[i + 1]) of the column's values; None: each row has one."""
        if not self.read_texts:
            return None
        texts = batch.column(self.spec.text)
        if pa.types.is_null(texts.type):
            return np.broadcast_to(np.int64(0), len(texts) + 1)
        return texts.offsets.to_numpy() if is_list(texts.type) else None

    def _checked(self, number: int) -> pa.RecordBatch:
        """A record batch; when it is first used, its offsets and texts are checked, but not what images contain."""
        batch = self._batches[number]
        if number not in self._sound:
            self._require_unchanged(number)
            with self._errors_name_the_file(self._files[number]):
                for column in self.columns:
                    batch.column(column).validate(full=True)
                self._check_lengths(number)
                if self.verify and self.states[self._files[number]].checksum is not None:
                    self._checksums[number] = self._verified(number)
            self._sound.add(number)
        return batch

    def _verified(self, number: int) -> BatchChecksums:
        """The checksums of a record batch, its columns compared with them."""
        file = self._files[number]
        first = self._files.index(file)
        with open_mapped(file) as source:
            metadata = pa.ipc.open_file(source).get_batch_with_custom_metadata(number - first).custom_metadata
        checksums = batch_checksums(metadata)
        if checksums is None:
            raise ValueError("a record batch has lost its checksums")
        verify_columns(self._batches[number], checksums, self.columns)
        return checksums

    def _check_lengths(self, number: int) -> None:
        """Require as many annotations as texts in each row, or none in a whole record batch."""
        batch = self._batches[number]
        offsets = self._text_offsets(batch)
        if offsets is None:
            return
        for column in self.spec.fields.values():
            if column.per_text and column.name in self.columns and num_values(batch.column(column.name)):
                found = uneven(batch.column(column.name), np.diff(offsets), column.name, self.spec.text)
                for row, problem in found:
                    raise self.mistake(number, row, problem)

    def mistake(self, number: int, row: int, problem: str) -> UserError:
        """The error to raise for a row of a record batch."""
        path, row = self.place(number, row)
        return UserError(f"Row {row} of {path}: {problem}. Mend the file, or {self._again(path)}")

    def place(self, number: int, row: int) -> tuple[Path, int]:
        """The file of a row of a record batch, and the number of the row in it."""
        return self._files[number], self._first_rows[number] + row

    def batches(self, fields: Collection[str] = ()) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The record batches with rows, each with its number, in plain layouts. The columns that are read are checked.

        fields: the catalogue's fields whose columns are checked too.
        """
        for number in range(len(self._batches)):
            if self._batches[number].num_rows:
                batch = self._checked(number)
                with self._errors_name_the_file(self._files[number]):
                    for column in self.checked_columns(batch, fields) - self.columns:
                        batch.column(column).validate(full=True)
                yield number, batch

    def checked_columns(self, batch: pa.RecordBatch, fields: Collection[str]) -> set[str]:
        """The columns of a record batch that are read, and those of the fields and beside them."""
        names = set(batch.schema.names)
        columns = [self.spec.fields[name].within(names) for name in fields]
        beside = {column.beside for column in columns if column.beside}
        return (self.columns | {column.name for column in columns} | beside) & names

    def __len__(self) -> int:
        """Number of samples."""
        return int(self._starts[-1]) - len(self._skipped) if self.chosen is None else len(self.chosen)

    @property
    def num_rows(self) -> int:
        return sum(self.rows_of_batches)

    @property
    def rows_of_batches(self) -> list[int]:
        """The number of rows of each record batch."""
        return [batch.num_rows for batch in self._batches]

    def texts_of_batches(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """The record batches with rows: number, offsets (rows + 1,) of the rows' texts, and whether each text is kept."""
        skipped = self._skipped + np.arange(len(self._skipped))
        for number, batch in enumerate(self._batches):
            if batch.num_rows:
                offsets = self._text_offsets(self._checked(number))
                offsets = np.arange(batch.num_rows + 1) if offsets is None else offsets
                kept = np.ones(int(offsets[-1]) - int(offsets[0]), dtype=bool)
                begin, end = np.searchsorted(skipped, self._starts[number : number + 2])
                kept[skipped[begin:end] - self._starts[number]] = False
                yield number, offsets, kept

    def column(self, number: int, name: str) -> pa.Array:
        """The column of a catalogue field in a record batch."""
        batch = self._checked(number)
        return batch.column(self.spec.fields[name].within(batch.schema.names).name)

    def rows_with_samples(self) -> np.ndarray:
        """Whether a sample lies in each row, (num_rows,) bool."""
        skipped, found = self._skipped + np.arange(len(self._skipped)), [np.empty(0, dtype=bool)]
        for batch, start in zip(self._batches, self._starts[:-1].tolist(), strict=True):
            offsets = self._text_offsets(batch)
            ends = start + (np.arange(batch.num_rows + 1) if offsets is None else offsets - offsets[0])
            found.append(np.diff(ends - np.searchsorted(skipped, ends)) > 0)
        return np.concatenate(found)

    def rows_left_out(self) -> np.ndarray:
        """The sorted numbers (R,) int64 of the rows that are left out, counted through all files."""
        firsts: dict[Path, int] = {}
        for file, start in zip(self._files, np.cumsum([0, *self.rows_of_batches]).tolist(), strict=False):
            firsts.setdefault(file, start)
        rows = [firsts[path] + self.left_out[path] for path in self.paths if path in self.left_out and path in firsts]
        return np.concatenate([np.empty(0, dtype=np.int64), *rows])

    def has_column(self, name: str) -> bool:
        """Whether every file has a column of this name."""
        return all(name in batch.schema.names for batch in self._batches)

    def locate(self, sample: int) -> Location:
        """Where a sample lies. Raises IndexError outside [0, len)."""
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        if self.chosen is not None:
            where = Location(*self.chosen[sample].tolist())
            self._checked(where.batch)
            return where
        text = int(sample) + int(np.searchsorted(self._skipped, sample, side="right"))
        number = int(np.searchsorted(self._starts, text, side="right")) - 1
        text -= int(self._starts[number])
        offsets = self._text_offsets(self._checked(number))
        if offsets is None:
            return Location(number, text, 0)
        text += int(offsets[0])
        row = int(np.searchsorted(offsets, text, side="right")) - 1
        return Location(number, row, text - int(offsets[row]))

    def table_and_row(self, where: Location) -> tuple[str, int]:
        """File stem and row number in that file, for messages."""
        file, row = self.place(where.batch, where.row)
        return file.stem, row

    def image(self, where: Location, column: str) -> pa.Buffer:
        """Encoded bytes of an image, a view into the file. (A scalar's buffer would be a copy.)

        Raises UserError where it is not as it was written.
        """
        cells = self._checked(where.batch).column(column)
        self._require_unchanged(where.batch)
        image = _bytes(cells, where.row)
        checksums = self._checksums.get(where.batch)
        if checksums is not None and not checksums.holds(column, where.row, image):
            with self._errors_name_the_file(self._files[where.batch], where):
                raise DamagedData("the image does not have the checksum it was written with")
        return pa.py_buffer(b"") if image is None else image  # a null inside a dictionary: no image can be decoded

    def texts(self, where: Location) -> list[str]:
        """All texts of the row."""
        cell = self._cell(where, self.spec.text).as_py()
        return [cell] if isinstance(cell, str) else [text for text in cell or () if text is not None]

    def text(self, where: Location) -> str:
        cell = self._cell(where, self.spec.text)
        return cell.values[where.text].as_py() if hasattr(cell, "values") else cell.as_py()

    def provides(self, name: str) -> bool:
        """Whether every file has the column of a catalogue field."""
        column = self.spec.fields.get(name)
        return column is not None and self.has_column(column.name)

    def withholds(self, name: str) -> bool:
        """Whether a catalogue field of the texts is empty throughout, as in test sets whose annotations are kept back."""
        column = self.spec.fields[name]
        if not column.per_text or not len(self) or not self.provides(name):
            return False
        return not any(num_values(batch.column(column.name)) for _, batch in self.batches((name,)))

    def field(self, where: Location, name: str):
        """Value of a catalogue field for this sample, as a Python object."""
        column = self.spec.fields[name].within(self._batches[where.batch].schema.names)
        cell = self._cell(where, column.name)
        text = where.second if column.of_second else where.text
        value = cell.values[text].as_py() if column.per_text else cell.as_py()
        return f"{value}-{where.text}" if column.numbered else value

    def _cell(self, where: Location, column: str) -> pa.Scalar:
        return self._checked(where.batch).column(column)[where.row]


def _bytes(cells: pa.Array, row: int) -> pa.Buffer | None:
    """The content of a cell of bytes, in any layout; None where it is null."""
    kind = cells.type
    if pa.types.is_dictionary(kind):
        number = cells.indices[row].as_py()
        return None if number is None else _bytes(cells.dictionary, number)
    if cells.null_count and not cells[row].is_valid:
        return None
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return cells[row].as_buffer()
    _, offsets, content = cells.buffers()
    width = np.int64 if pa.types.is_large_binary(kind) else np.int32
    first = (cells.offset + row) * np.dtype(width).itemsize
    start, end = np.frombuffer(offsets, width, count=2, offset=first).tolist()
    return content.slice(start, end - start)
