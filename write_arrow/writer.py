"""Streaming rows into Arrow IPC files that are either whole or absent."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

BATCH_BYTES = 16 * 2**20  # image bytes held before a record batch is written


@dataclass(frozen=True)
class Table:
    """One file to write: its stem, its schema, its rows and how many there will be."""

    stem: str
    schema: pa.Schema
    rows: Iterable[Mapping[str, Any]]
    num_rows: int


def write_table(table: Table, folder: Path, advance: Callable[[int], None] = lambda rows: None) -> Path:
    """Write FOLDER/STEM.arrow, one record batch after the other; `advance` hears how many rows were written.

    The file gets its name when it is complete and on disk: an interrupted run leaves nothing that reads as data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{table.stem}.arrow"
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "wb") as file:
        with pa.ipc.new_file(file, table.schema) as writer:
            for rows in _chunks(table.rows):
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=table.schema))
                advance(len(rows))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return path


def _chunks(rows: Iterable[Mapping[str, Any]]) -> Iterable[list[Mapping[str, Any]]]:
    chunk: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, bytes))
        if size >= BATCH_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
