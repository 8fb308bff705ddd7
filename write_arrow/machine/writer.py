"""Streaming rows into files that are either whole or absent: record batches of bounded bytes, one at a time."""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from vlc.common.errors import UserError
from vlc.data.identity import Mark
from vlc.data.values import value_problems
from write_arrow.machine.plans import Digest, Plan, Plans
from write_arrow.machine.readers import readers_of
from write_arrow.machine.shards import ARROW, FileFormat
from write_arrow.machine.storage import Folder
from write_arrow.machine.workers import Images, InProcess, Prepared, Rejected, Task, Workers

BATCH_BYTES = 16 * 2**20  # image bytes held before a record batch is written
BATCH_PLANS = 4 * 2**20  # characters of their plans; in memory, the values take several times as much
BATCH_ROWS = 8192  # rows of small or no images
SHARD_ROWS = 100_000  # rows of a numbered file, as in the published ones
_UNKNOWN_BYTES = 2**18  # assumed of an image whose size is not known before it is read
_FORMAT = 3  # of what this writes: raise it when the same plans give other bytes

Advance = Callable[[int, int], None]  # hears the rows and the bytes that were written


@dataclass(frozen=True)
class Table:
    """One file to write, whose rows are made here.

    stem: its name without suffix.
    rows: dictionaries with a value for each column of the schema.
    num_rows: how many there will be.
    prefix: the stem without its number, of a numbered file.
    form: the format of the file.
    """

    stem: str
    schema: pa.Schema
    rows: Iterable[Mapping[str, Any]]
    num_rows: int
    prefix: str | None = None
    form: FileFormat = ARROW

    @property
    def name(self) -> str:
        return f"{self.stem}{self.form.suffix}"


@dataclass(frozen=True)
class PlannedTable:
    """One file to write from plans [start, stop). Binary columns of the schema hold the plans' images, in order.

    stem: its name without suffix.
    prefix: the stem without its number, of a numbered file.
    form: the format of the file.
    measured: takes the values of a row, and width and height of its picture, which no annotation states; returns the values
        to write, and reasons for what it has left out of them.
    """

    stem: str
    schema: pa.Schema
    plans: Plans
    start: int = 0
    stop: int | None = None
    prefix: str | None = None
    form: FileFormat = ARROW
    measured: Callable[[dict[str, Any], int, int], tuple[dict[str, Any], list[str]]] | None = None

    @property
    def name(self) -> str:
        return f"{self.stem}{self.form.suffix}"

    @property
    def bounds(self) -> tuple[int, int]:
        return self.start, len(self.plans) if self.stop is None else min(self.stop, len(self.plans))

    @property
    def num_rows(self) -> int:
        start, stop = self.bounds
        return stop - start


@dataclass(frozen=True)
class Written:
    """A finished file.

    size: bytes.
    version: changes when the file does.
    inputs: a hash of all that it was made from; None where that is not certain.
    kept: an interrupted run had finished it.
    """

    name: str
    num_rows: int
    num_rejected: int
    size: int
    version: str | None
    inputs: str | None
    kept: bool = False


def numbered(
    prefix: str, schema: pa.Schema, plans: Plans, num_rows: int | None = None, form: FileFormat = ARROW
) -> list[PlannedTable]:
    """Plans divided over files PREFIX0, PREFIX1, ... of num_rows rows each (fewer where images are rejected).

    By default there are SHARD_ROWS in each.
    """
    num_rows = num_rows or SHARD_ROWS
    starts = range(0, max(len(plans), 1), num_rows)
    return [
        PlannedTable(f"{prefix}{number}", schema, plans, start, start + num_rows, prefix, form)
        for number, start in enumerate(starts)
    ]


def write_table(table: Table, folder: Path, advance: Callable[[int], None] = lambda rows: None) -> Path:
    """Write FOLDER/STEM.arrow, one record batch after the other; `advance` is called with the rows written.

    The file gets its name when it is complete and on disk: an interrupted run leaves nothing that reads as data.
    """
    _write(table, _row_batches(table), Folder(folder), lambda rows, size: advance(rows))
    return Path(folder) / f"{table.stem}.arrow"


def write_tables(
    tables: Sequence[Table | PlannedTable],
    out: Folder,
    *,
    root: Folder | None = None,
    pool: Workers | None = None,
    verify: bool = True,
    made_from: str = "",
    advance: Callable[[Table | PlannedTable, int, int], None] = lambda table, rows, size: None,
) -> Iterator[Written]:
    """Write files one after the other; images are read from root by the pool. Yields each when it is finished.

    Each file is marked as one of this conversion. What an interrupted run finished is kept where it is certain to come
    from the same plans, files and options; readers refuse what it leaves until the same command has finished it.
    root: the folder that images are read from.
    pool: the workers that read images; without it, this process does.
    verify: decode each image as a check, and leave out those that fail. An image of another size than the columns
        `width` and `height` state is left out in any case.
    made_from: all that the rows of tables without plans depend on.
    advance: is called with table, rows and bytes after each record batch.
    Raises UserError if the folder holds numbered files that belong to another conversion and would be read together
        with these.
    """
    _refuse_strange_shards(tables, out)
    digests = [table.plans.digest(*table.bounds) if isinstance(table, PlannedTable) else None for table in tables]
    run = _identity(tables, digests, made_from)
    names = tuple(table.name for table in tables)
    journal = _Journal(out, tables[0].stem, names)
    for table, digest in zip(tables, digests, strict=True):
        mark = Mark(run, table.name, names)
        inputs = _inputs(table, verify, digest, run)
        finished = journal.finished(table.name, inputs)
        if finished is None:
            made = (
                _row_batches(table)
                if isinstance(table, Table)
                else _planned(table, root, pool or InProcess(), verify=verify)
            )
            told = partial(advance, table)
            finished = _write(table, made, out, told, inputs, mark, journal.begin)
            journal.add(finished)
        yield finished
    journal.close()


class _Made(NamedTuple):
    """A record batch, how many planned rows it covers, and what was left out of it."""

    batch: pa.RecordBatch
    num_planned: int
    rejected: list[Rejected]


def _row_batches(table: Table) -> Iterator[_Made]:
    weighed = bytes if any(pa.types.is_binary(field.type) for field in table.schema) else str
    for rows in _chunks(table.rows, weighed):
        yield _Made(pa.RecordBatch.from_pylist(rows, schema=table.schema), len(rows), [])


def _chunks(rows: Iterable[Mapping[str, Any]], weighed: type[bytes] | type[str]) -> Iterable[list[Mapping[str, Any]]]:
    chunk: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, weighed))
        if size >= BATCH_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _planned(table: PlannedTable, root: Folder, pool: Workers, *, verify: bool) -> Iterator[_Made]:
    tasks = ((plans, _task(table, plans, root, verify=verify)) for plans in _plan_chunks(table))
    images = [field.name for field in table.schema if pa.types.is_binary(field.type)]
    for plans, prepared in pool.run(tasks):
        kept, rejected = [plans[row] for row in prepared.rows], prepared.rejected
        if table.measured is not None:
            kept, left_out = _measured(table, kept, prepared)
            rejected = rejected + left_out
        columns = dict(zip(images, prepared.images, strict=True))
        arrays = [
            _binary(columns[field.name]) if field.name in columns else _column(table.stem, field, kept)
            for field in table.schema
        ]
        made = _Made(pa.RecordBatch.from_arrays(arrays, schema=table.schema), len(plans), rejected)
        _check_values(table.stem, made.batch, kept)
        del prepared, columns, arrays  # the next images are read without these in memory
        yield made
        del made


def _task(table: PlannedTable, plans: list[Plan], root: Folder, *, verify: bool) -> Task:
    measures = table.measured is not None
    sizes = None if measures else _stated_sizes(table.schema, plans)
    return Task(root, [plan.images for plan in plans], verify, sizes, measures)


def _measured(table: PlannedTable, plans: list[Plan], prepared: Prepared) -> tuple[list[Plan], list[Rejected]]:
    """The plans with the values that depend on the sizes of their pictures, and what was left out of them."""
    assert table.measured is not None
    kept, rejected = [], []
    for plan, row, size in zip(plans, prepared.rows, prepared.sizes, strict=True):
        values, problems = table.measured(plan.values, *size)
        kept.append(plan._replace(values=values))
        rejected += [Rejected(row, plan.images[0].name, problem) for problem in problems]
    return kept, rejected


def _stated_sizes(schema: pa.Schema, plans: list[Plan]) -> list[tuple[int, int]] | None:
    """The sizes of pictures that annotations state; None where the table has no numbers `width` and `height`."""
    if all(name in schema.names and pa.types.is_integer(schema.field(name).type) for name in ("width", "height")):
        return [(plan.values["width"], plan.values["height"]) for plan in plans]
    return None


def _binary(images: Images) -> pa.Array:
    """The column, without a copy of its content."""
    offsets = np.array([0, *images.ends], dtype=np.int32)
    return pa.Array.from_buffers(
        pa.binary(), len(images.ends), [None, pa.py_buffer(offsets), pa.py_buffer(images.content)]
    )


def _plan_chunks(table: PlannedTable) -> Iterator[list[Plan]]:
    """Plans of a record batch each. Sizes known beforehand decide, so that workers do not."""
    chunk: list[Plan] = []
    size = planned = 0
    for plan in table.plans.read(*table.bounds):
        chunk.append(plan)
        size += sum(_UNKNOWN_BYTES if image.size is None else image.size for image in plan.images)
        planned += plan.size
        if size >= BATCH_BYTES or planned >= BATCH_PLANS or len(chunk) >= BATCH_ROWS:
            yield chunk
            chunk, size, planned = [], 0, 0
    if chunk:
        yield chunk


_UNSTORABLE = (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError, OverflowError)


def _column(stem: str, field: pa.Field, plans: list[Plan]) -> pa.Array:
    try:
        return pa.array([plan.values[field.name] for plan in plans], field.type)
    except _UNSTORABLE:
        for plan in plans:
            try:
                pa.array([plan.values[field.name]], field.type)
            except _UNSTORABLE as error:
                raise UserError(
                    f"{stem}: {field.name} of {plan.images[0].name} cannot be stored as {field.type} ({error}). "
                    "Mend the annotation and run the same command"
                ) from error
        raise


def _check_values(stem: str, batch: pa.RecordBatch, plans: list[Plan]) -> None:
    """Raise UserError where a data set that reads the file would not understand an annotation."""
    for reader in readers_of(stem):
        if reader.spec.fields:  # captions alone may be missing
            for row, problem in value_problems(batch, reader.spec, reader.fields, withheld=True):
                raise UserError(
                    f"{stem}: {problem}, beside {plans[row].images[0].name}. Mend the annotation and run the same command"
                )


def _write(
    table: Table | PlannedTable,
    made: Iterable[_Made],
    out: Folder,
    advance: Advance,
    inputs: str | None = None,
    mark: Mark | None = None,
    before_naming: Callable[[], None] = lambda: None,
) -> Written:
    num_rows, rejected = 0, []
    with out.create(table.name) as file:
        with table.form.open(file, table.schema, mark) as writer:
            for batch, num_planned, left_out in made:
                if batch.num_rows:
                    writer.write_batch(batch)
                num_rows += batch.num_rows
                rejected += left_out
                advance(num_planned, batch.nbytes)
                del batch  # before the next one is made
        if rejected and not num_rows:
            raise UserError(
                f"None of the {len(rejected)} images of {table.name} can be used; the first is "
                f"{rejected[0].path} ({rejected[0].reason})"
            )
        num_rejected = _write_rejected(table, rejected, out)  # before the table gets its name
        before_naming()
    status = out.stat(table.name)
    return Written(table.name, num_rows, num_rejected, status.size, status.version, inputs)


def _write_rejected(table: Table | PlannedTable, rejected: list[Rejected], out: Folder) -> int:
    """STEM.rejected.jsonl, if anything was left out. What could not be planned stands with the first numbered file."""
    name = f"{table.stem}.rejected.jsonl"
    unplanned = table.plans.rejected() if isinstance(table, PlannedTable) and table.start == 0 else ()
    found = [*unplanned, *((path, reason) for _, path, reason in rejected)]
    if not found:
        out.remove(name)
        return 0
    with out.create(name) as file:
        for path, reason in found:
            file.write(json.dumps({"path": path, "reason": reason}).encode() + b"\n")
    return len(found)


def _refuse_strange_shards(tables: Sequence[Table | PlannedTable], out: Folder) -> None:
    names = {table.name for table in tables}
    patterns = {rf"{re.escape(table.prefix)}\d+{re.escape(table.form.suffix)}" for table in tables if table.prefix}
    shard = re.compile("|".join(patterns))
    strange = sorted(name for name in out.names() if shard.fullmatch(name) and name not in names)
    if strange:
        raise UserError(
            f"{out} holds {', '.join(strange[:3])}{' and more' if len(strange) > 3 else ''} of another run, which would be "
            f"read together with the {len(tables)} files of this one: remove them, or choose another --out"
        )


def _identity(tables: Sequence[Table | PlannedTable], digests: list[Digest | None], made_from: str) -> str:
    """An identity of a conversion: another one for other rows, the same wherever and by however many workers it is made."""
    parts = [
        (table.name, table.schema.to_string(), made_from if digest is None else digest.contents)
        for table, digest in zip(tables, digests, strict=True)
    ]
    return hashlib.sha256(json.dumps([_FORMAT, parts]).encode()).hexdigest()[:32]


def _inputs(table: Table | PlannedTable, verify: bool, digest: Digest | None, run: str) -> str | None:
    """A hash of all that a planned file is made of; None where that is not certain."""
    versions = digest and digest.versions
    return versions and f"{_FORMAT} {BATCH_BYTES} {verify} {run} {table.schema.to_string()} {versions}"


class _Journal:
    """A record of what a run is writing and has finished so far.

    It is a file beside the tables, which exists from before the first table gets its name until all have theirs.
    """

    def __init__(self, out: Folder, first_stem: str, names: tuple[str, ...]):
        self.out, self.name, self.names = out, f".{first_stem}.unfinished.json", names
        self.begun = False
        self.written: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(ValueError):  # cut short: nothing is kept
            self.written = json.loads(out.read_text(self.name) or "{}").get("written", {})

    def begin(self) -> None:
        """Write the record before a file gets its name: from then on old and new files may lie side by side."""
        if not self.begun:
            self._save()
            self.begun = True

    def _save(self) -> None:
        with self.out.create(self.name) as file:
            file.write(json.dumps({"files": self.names, "written": self.written}).encode())

    def finished(self, name: str, inputs: str | None) -> Written | None:
        """The file, if it is there as it was finished from the same inputs."""
        found = self.written.get(name)
        if inputs is None or not found or found["inputs"] != inputs:
            return None
        written = Written(**(found | {"kept": True}))
        status = self.out.stat(name)
        unchanged = written.version is not None and (status.size, status.version) == (written.size, written.version)
        return written if unchanged else None

    def add(self, written: Written) -> None:
        if written.inputs is not None:
            self.written[written.name] = asdict(written)
            self._save()

    def close(self) -> None:
        self.out.remove(self.name)
