"""Finds the values of annotation columns that are wrong, and their rows.

The writers, `write_arrow check` and the start of a run call the same function, `value_problems`, before batches are made.
It looks at whole columns: a million questions take about a second.
"""

from collections.abc import Collection, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlc.data.ipc import is_any_list
from vlc.data.kinds import BOXES, TEXTS, as_numbers, box_edges
from vlc.data.spec import Column, DatasetSpec

_SHOWN = 80  # letters of a value in a message
_ROUNDING = 1e-3  # pixels by which a box may end outside of its picture

Problem = tuple[int, str]  # number of the row, and what is wrong in it


def value_problems(
    batch: pa.RecordBatch, spec: DatasetSpec, fields: Collection[str], *, texts: bool = True, withheld: bool = False
) -> list[Problem]:
    """Return what is wrong with the annotations of some rows, sorted by row. The batch has been validated.

    fields: fields of the catalogue's row. Columns that the batch lacks are passed over.
    texts: whether annotations belong to texts, which are checked too.
    withheld: whether columns may be empty throughout.
    """
    names = set(batch.schema.names)
    problems: list[Problem] = []
    texts = texts and spec.text in names
    counts = num_texts(batch.column(spec.text)) if texts else None
    if texts:
        problems += text_problems(batch.column(spec.text), spec.text)
    for name in sorted(fields):
        column = spec.fields[name].within(names)
        if column.name not in names:
            continue
        cells = batch.column(column.name)
        if withheld and column.per_text and not num_values(cells):
            continue
        problems += _column_problems(column, cells, counts, spec.text)
        if column.beside in names:
            problems += _unpaired(column, cells, batch.column(column.beside))
        if column.index_of in names:
            problems += _misplaced(column, cells, batch.column(column.index_of), spec)
        if column.tags_of in names:
            problems += _without_box(column, cells, batch.column(column.tags_of))
        if column.kind is BOXES:
            problems += _box_problems(column, cells, _sizes(batch, spec))
    return sorted(problems, key=lambda problem: problem[0])


def related_fields(spec: DatasetSpec, fields: Collection[str]) -> set[str]:
    """The other fields that a check of these looks at: sizes of pictures with boxes, and lists that hold a place."""
    columns = [spec.fields[name] for name in fields]
    names = {"width", "height"} if any(column.kind is BOXES for column in columns) else set()
    lists = {name for column in columns for name in (column.index_of, column.tags_of)}
    return (names & spec.fields.keys()) | {name for name, column in spec.fields.items() if column.name in lists}


def _column_problems(column: Column, cells: pa.Array, counts: np.ndarray | None, text: str) -> Iterator[Problem]:
    kind, rows = column.kind, np.arange(len(cells))
    if column.per_text:
        if counts is not None:
            yield from uneven(cells, counts, column.name, text)
        if not is_any_list(cells.type):
            if len(cells):
                yield 0, f"{column.name} is {cells.type}, expected a list with an entry for each text"
            return
        cells, rows, _ = _entries(cells, rows)
    cells = plain(cells)
    if kind.several:
        yield from ((row, f"{column.name} holds null, expected a list") for row in rows[_nulls(cells)].tolist())
        cells, rows = _present(cells, rows)
        if not is_any_list(cells.type):
            yield from _unknown(column, cells, rows, f"a list of {kind.expected}")
            return
        cells, rows, owners = _entries(cells, rows)
    if not kind.nullable:
        yield from (
            (row, f"{column.name} holds null, expected {kind.expected}") for row in rows[_nulls(cells)].tolist()
        )
    known = ~_nulls(cells)
    cells, rows = _present(cells, rows)
    understood = kind.understood(cells) if len(cells) else np.ones(0, dtype=bool)
    wrong = np.ones(len(cells), dtype=bool) if understood is None else ~understood
    yield from _unknown(column, cells.filter(pa.array(wrong)), rows[wrong], kind.expected)
    if kind.distinct and not wrong.any():
        yield from _repeated(column, cells, rows, owners[known])


def _unknown(column: Column, values: pa.Array, rows: np.ndarray, expected: str) -> Iterator[Problem]:
    for row, value in zip(rows.tolist(), values, strict=True):
        shown = repr(value.as_py())
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        yield row, f"{column.name} holds {shown}, expected {expected}"


def _repeated(column: Column, labels: pa.Array, rows: np.ndarray, owners: np.ndarray) -> Iterator[Problem]:
    """Labels that stand twice in one list. owners (N,) int64: the number of each label's list."""
    numbers = as_numbers(labels)
    if numbers is None:
        numbers = labels.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    values, codes = np.unique(numbers, return_inverse=True)
    keys = owners * len(values) + codes
    order = np.argsort(keys, kind="stable")
    again = order[1:][np.diff(keys[order]) == 0]
    for place in again.tolist():
        owner = "text" if column.per_text else "row"
        yield int(rows[place]), f"{column.name} holds {labels[place].as_py()} twice for one {owner}"


def _unpaired(column: Column, cells: pa.Array, others: pa.Array) -> Iterator[Problem]:
    """Lists of values that are longer or shorter than another column's lists for the same text, or for the same row."""
    if not (is_any_list(cells.type) and is_any_list(others.type)):
        return
    own, other, rows, owner = cells, others, np.arange(len(cells)), "row"
    if column.per_text:
        (own, rows, _), (other, other_rows, _) = (_entries(part, np.arange(len(part))) for part in (cells, others))
        owner = "text"
        if not np.array_equal(rows, other_rows) or not (_may_be_lists(own.type) and _may_be_lists(other.type)):
            return  # this problem is listed already
    lengths, other_lengths = list_lengths(own), list_lengths(other)
    for place in np.flatnonzero(lengths != other_lengths).tolist():
        problem = f"{lengths[place]} {column.name} and {other_lengths[place]} {column.beside} for one {owner}"
        yield int(rows[place]), problem


def _misplaced(column: Column, cells: pa.Array, lists: pa.Array, spec: DatasetSpec) -> Iterator[Problem]:
    """Values that are no places in the lists of another column."""
    if not (is_any_list(cells.type) and is_any_list(lists.type)):
        return
    places, rows, _ = _entries(cells, np.arange(len(cells)))
    if any(one.name == column.index_of and one.per_text for one in spec.fields.values()):
        lists, list_rows, _ = _entries(lists, np.arange(len(lists)))
        if not np.array_equal(rows, list_rows) or not _may_be_lists(lists.type):
            return  # this problem is listed already
        lengths = list_lengths(lists)
    else:
        lengths = list_lengths(lists)[rows]
    numbers = as_numbers(places)
    for place in () if numbers is None else np.flatnonzero(numbers >= lengths).tolist():
        yield int(rows[place]), f"{column.name} holds {places[place].as_py()}, of {lengths[place]} {column.index_of}"


def _without_box(column: Column, tags: pa.Array, boxes: pa.Array) -> Iterator[Problem]:
    """Tags, in lists of any depth, that are larger than the number of boxes in their row."""
    rows, counts = np.arange(len(tags)), list_lengths(boxes) if _may_be_lists(boxes.type) else np.zeros(len(tags))
    while is_any_list(tags.type):
        tags, rows, _ = _entries(tags, rows)
    numbers = as_numbers(tags)
    for place in () if numbers is None else np.flatnonzero(numbers > counts[rows]).tolist():
        yield int(rows[place]), f"{column.name} names box {tags[place].as_py()} of {counts[rows[place]]:.0f}"


def _sizes(batch: pa.RecordBatch, spec: DatasetSpec) -> np.ndarray | None:
    """Width and height (N, 2) of each row's picture, null as NaN; None where they are not given as numbers."""
    columns = [spec.fields[name].name for name in ("width", "height") if name in spec.fields]
    if len(columns) < 2 or not set(columns) <= set(batch.schema.names):
        return None
    width, height = (as_numbers(plain(batch.column(name))) for name in columns)
    return None if width is None or height is None else np.stack([width, height], axis=1)


def _box_problems(column: Column, cells: pa.Array, sizes: np.ndarray | None) -> Iterator[Problem]:
    """Texts without any box, and boxes that end outside of their picture. Malformed boxes are listed already."""
    if not is_any_list(cells.type):
        return
    rows = np.arange(len(cells))
    if column.per_text:
        cells, rows, _ = _entries(cells, rows)
        if not is_any_list(cells.type):
            return
        empty = (list_lengths(cells) == 0) & ~_nulls(cells)
        yield from ((row, f"{column.name} holds no box for one text") for row in rows[empty].tolist())
    boxes, rows, _ = _entries(cells, rows)
    boxes, rows = _present(boxes, rows)
    edges = box_edges(boxes)
    if edges is None or sizes is None:
        return
    for place in np.flatnonzero((edges[:, 2:] > sizes[rows] + _ROUNDING).any(axis=1)).tolist():
        width, height = sizes[rows[place]].astype(int)
        told = f"{column.name} holds {boxes[place].as_py()}, which ends outside of the picture of {width}x{height}"
        yield int(rows[place]), told


def uneven(cells: pa.Array, counts: np.ndarray, column: str, text: str) -> Iterator[Problem]:
    """Rows of lists that do not hold an entry for each of the row's texts (N,)."""
    if is_any_list(cells.type) or pa.types.is_null(cells.type):
        lengths = list_lengths(cells)
        for row in np.flatnonzero(lengths != counts).tolist():
            yield row, f"{lengths[row]} {column} for {counts[row]} {text}"


def text_problems(texts: pa.Array, column: str) -> Iterator[Problem]:
    """Texts that are null, each with its row. A row without any text is no problem."""
    rows = np.arange(len(texts))
    if is_any_list(texts.type):
        texts, rows, _ = _entries(texts, rows)
    texts = plain(texts)
    yield from ((row, f"{column} holds null, expected {TEXTS.expected}") for row in rows[_nulls(texts)].tolist())


def null_texts(texts: pa.Array) -> np.ndarray:
    """Sorted numbers of the texts that are null, counted as the column's offsets count them."""
    if not pa.types.is_list(texts.type) and not pa.types.is_large_list(texts.type):
        return np.flatnonzero(_nulls(texts)) if texts.null_count and not pa.types.is_null(texts.type) else _NONE
    offsets = texts.offsets.to_numpy().astype(np.int64)
    values = texts.values.slice(offsets[0], offsets[-1] - offsets[0])
    if not texts.null_count and not values.null_count:
        return _NONE
    return np.flatnonzero(_nulls(values) | np.repeat(_nulls(texts), np.diff(offsets)))


_NONE = np.empty(0, dtype=np.int64)


def num_texts(texts: pa.Array) -> np.ndarray:
    """Number of texts of each row (N,) int64: entries of its list, or its one string."""
    if is_any_list(texts.type) or pa.types.is_null(texts.type):
        return list_lengths(texts)
    return np.ones(len(texts), dtype=np.int64)


def num_values(cells: pa.Array) -> int:
    """How many values a column holds, in lists of any depth, without nulls."""
    return len(flat_values(cells))


def flat_values(cells: pa.Array) -> pa.Array:
    """The values of a column, out of lists of any depth, without nulls."""
    while is_any_list(cells.type):
        cells = pc.list_flatten(cells)
    return plain(cells).drop_null()


def _may_be_lists(kind: pa.DataType) -> bool:
    return is_any_list(kind) or pa.types.is_null(kind)


def list_lengths(lists: pa.Array) -> np.ndarray:
    """(N,) int64; null lists are empty."""
    if pa.types.is_null(lists.type):
        return np.zeros(len(lists), dtype=np.int64)
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def plain(values: pa.Array) -> pa.Array:
    """The same values without dictionary, and strings as offsets and letters."""
    while pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.cast(pa.large_string()) if pa.types.is_string_view(values.type) else values


def _entries(lists: pa.Array, rows: np.ndarray) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """All entries of lists, the row that each belongs to, and the number of its list."""
    owners = np.repeat(np.arange(len(lists)), list_lengths(lists))
    return plain(pc.list_flatten(lists)), rows[owners], owners


def _nulls(values: pa.Array) -> np.ndarray:
    return values.is_null().to_numpy(zero_copy_only=False)


def _present(values: pa.Array, rows: np.ndarray) -> tuple[pa.Array, np.ndarray]:
    if not values.null_count:
        return values, rows
    present = ~_nulls(values)
    return values.filter(pa.array(present)), rows[present]
