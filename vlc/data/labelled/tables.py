"""Labelled images in Arrow or Parquet files."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.identity import FileState, require_unchanged
from vlc.data.ipc import inflation_limit, inflation_refusal, is_binary, refuse_other_kinds
from vlc.data.labelled.source import (
    SPEC,
    WRITER,
    LabelledImages,
    Place,
    blaming,
    class_names_of,
    labels_of,
    names_of,
    states_of,
)

_log = logging.getLogger(__name__)


class ArrowImages(LabelledImages):
    """Arrow files with columns image (encoded bytes), label (integer) and class_name (string), memory-mapped."""

    def __init__(self, paths: list[Path], *, verify: bool = False):
        columns = {"image", "label", "class_name"}
        self._split = ArrowSplit(paths, SPEC, "imagenet", columns, read_texts=False, verify=verify)
        if not len(self._split):
            raise UserError(f"{paths[0]} has no rows. Write it again with: {WRITER}")
        batches = list(self._split.batches())
        self.labels = np.concatenate(
            [labels_of(batch.column("label"), partial(self._split.place, number)) for number, batch in batches]
        )
        names = [names_of(batch.column("class_name"), self._split.place(number, 0)[0]) for number, batch in batches]
        self.class_names = class_names_of(pa.chunked_array(names), self.labels, paths[0])

    def read(self, number: int) -> pa.Buffer:
        return self._split.image(self._split.locate(number), "image")

    def place(self, number: int) -> Place:
        table, row = self._split.table_and_row(self._split.locate(number))
        return Place(f"{table}.arrow", row)


class ParquetImages(LabelledImages):
    """Parquet files with columns image (bytes, or a struct with field "bytes" as on the hub), label and maybe class_name.

    A row group is decoded whole for any of its rows, and the last one is kept: good in order, slow when shuffled.
    """

    def __init__(self, paths: list[Path], *, verify: bool = False):
        self.paths, self.verify = [str(path) for path in paths], verify
        self.states = states_of(self.paths)
        labels, names, groups = [], [], []
        for file, path in enumerate(self.paths):
            with blaming(path, "a Parquet file"), _parquet(path, verify) as opened:
                columns = opened.schema_arrow.names
                if missing := {"image", "label"} - set(columns):
                    raise UserError(f"{path} lacks column {', '.join(sorted(missing))}; it has {', '.join(columns)}")
                _check_parquet(path, opened)
                table = opened.read(columns=[name for name in ("label", "class_name") if name in columns])
                labels.append(labels_of(table["label"].combine_chunks(), partial(Place, path)))
                names += [names_of(table["class_name"].combine_chunks(), path)] if "class_name" in columns else []
                sizes = [opened.metadata.row_group(number).num_rows for number in range(opened.num_row_groups)]
            groups += [(file, number, size) for number, size in enumerate(sizes)]
        if verify and (without := [path for path in self.paths if self.states[path].checksum is None]):
            _log.warning("Can be verified only if their writer left checksums of pages: %s", ", ".join(without))
        self.labels = np.concatenate(labels)
        self._groups = np.array(groups, dtype=np.int64).reshape(-1, 3)
        self._starts = np.concatenate([[0], np.cumsum(self._groups[:, 2])])
        self.class_names = class_names_of(pa.chunked_array(names), self.labels, paths[0]) if names else None

    def _locate(self, number: int) -> tuple[int, int, int]:
        """File, row group, and row in the group."""
        group = int(np.searchsorted(self._starts, number, side="right")) - 1
        return *self._groups[group, :2].tolist(), number - int(self._starts[group])

    def read(self, number: int) -> pa.Buffer:
        file, group, row = self._locate(number)
        path = self.paths[file]
        image = _row_group(path, group, self.verify, self.states[path])[row]
        self.states[path] = require_unchanged(Path(path), self.states[path])  # after reading, so that nothing slips in
        return _present(image.as_py(), self.place(number))

    def place(self, number: int) -> Place:
        file, _, _ = self._locate(number)
        first = self._starts[np.flatnonzero(self._groups[:, 0] == file)[0]]
        return Place(self.paths[file], number - int(first))


@contextmanager
def _parquet(path: str, verify: bool) -> Iterator[pq.ParquetFile]:
    """A file, by a name that need not be UTF-8."""
    with pa.memory_map(os.fsencode(path)) as mapped:
        refuse_other_kinds(mapped.read(64))
        mapped.seek(0)
        yield pq.ParquetFile(mapped, page_checksum_verification=verify)


def _check_parquet(path: str, opened: pq.ParquetFile) -> None:
    """Raises UserError where images are no bytes; ValueError where a row group says that it grows out of proportion."""
    kind = opened.schema_arrow.field("image").type
    if pa.types.is_struct(kind):
        kind = next((kind.field(i).type for i in range(kind.num_fields) if kind.field(i).name == "bytes"), pa.int8())
    if not is_binary(kind):
        raise UserError(f"{path}: column image holds {kind}, expected encoded images as bytes, or a struct with bytes")
    size, limit = os.stat(path).st_size, inflation_limit(0)
    for number in range(opened.num_row_groups):
        group = opened.metadata.row_group(number)
        declared = group.total_byte_size
        if declared > max(limit, 16 * size):
            raise ValueError(inflation_refusal(size, declared))


@lru_cache(maxsize=1)
def _row_group(path: str, group: int, verify: bool, state: FileState) -> pa.ChunkedArray:
    """The images of a row group. state: of the file, so that what is kept is of no older one."""
    with blaming(path, "a Parquet file"), _parquet(path, verify) as opened:
        images = opened.read_row_group(group, columns=["image"])["image"].combine_chunks()
    return images.field("bytes") if pa.types.is_struct(images.type) else images


def _present(image: bytes | None, place: Place) -> pa.Buffer:
    if image is None:
        raise UserError(
            f"{place.table} has no image in row {place.row} (it is null): remove the row, or write it again"
        )
    return pa.py_buffer(image)
