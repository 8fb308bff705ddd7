"""Annotations of an opened split, checked before anything is trained or evaluated."""

from collections.abc import Collection, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pytorch_lightning.utilities import rank_zero_warn

from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.ipc import is_any_list
from vlc.data.values import flat_values, list_lengths, related_fields, text_problems, value_problems

_JOINED_BYTES = 8 * 2**20  # of record batches that are checked as one


def check_annotations(source: ArrowSplit, fields: Collection[str], *, training: bool) -> None:
    """Raise UserError, with file, row and value, where a cell of these fields holds a value that is not understood.

    Texts that are null are left out of training, with a warning; evaluation, which leaves nothing out, refuses them.
    """
    _check_values(source, fields)
    for path, count in source.num_missing.items():
        if count and training:
            rank_zero_warn(f"Left out {count:,} texts of {path}: column {source.spec.text} holds null there")
    if not training and any(source.num_missing.values()):
        for number, batch in source.batches():
            for row, problem in text_problems(batch.column(source.spec.text), source.spec.text):
                raise source.mistake(number, row, problem)


def _check_values(source: ArrowSplit, fields: Collection[str]) -> None:
    fields = {*fields, *related_fields(source.spec, fields)}
    for numbers, rows in _joined(source, fields) if fields else ():
        for row, problem in value_problems(rows, source.spec, fields, texts=source.read_texts):
            for number in numbers:
                if row < source.rows_of_batches[number]:
                    raise source.mistake(number, row, problem)
                row -= source.rows_of_batches[number]


def _joined(source: ArrowSplit, fields: Collection[str]) -> Iterator[tuple[list[int], pa.RecordBatch]]:
    """The checked columns of record batches, several as one, with their numbers: a check of few rows takes as long."""
    numbers: list[int] = []
    parts: list[pa.RecordBatch] = []
    size = 0
    for number, batch in source.batches(fields):
        names = source.checked_columns(batch, fields) - {*source.spec.images}
        part = batch.select(sorted(names))
        if parts and (part.schema != parts[0].schema or size + part.nbytes > _JOINED_BYTES):
            yield numbers, pa.concat_batches(parts)
            numbers, parts, size = [], [], 0
        numbers.append(number)
        parts.append(part)
        size += part.nbytes
    if parts:
        yield numbers, pa.concat_batches(parts)


def check_ids(source: ArrowSplit, fields: Collection[str]) -> None:
    """Raise UserError where an id stands twice, as predictions are matched by it. The annotations have been checked."""
    for name in sorted(fields):
        values = [ids for _, _, ids in _ids(source, name)]
        counts = pc.value_counts(pa.chunked_array(values, pa.large_string()))
        repeated = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(repeated):
            value = repeated[0]["values"]
            places = []
            for number, rows, ids in _ids(source, name):
                found = rows[pc.equal(ids, value).to_numpy(zero_copy_only=False)]
                places += [source.place(number, row) for row in found.tolist()]
            raise UserError(
                f"{' and '.join(f'row {row} of {path}' for path, row in places[:2])} both have the {name} "
                f"{value.as_py()!r}, which identifies predictions: give each its own"
            )


def _ids(source: ArrowSplit, name: str) -> Iterator[tuple[int, np.ndarray, pa.Array]]:
    """For each record batch its number, the rows of the ids, and the ids as strings."""
    for number, batch in source.batches((name,)):
        cells = batch.column(source.spec.fields[name].within(batch.schema.names).name)
        lengths = list_lengths(cells) if is_any_list(cells.type) else 1
        yield number, np.repeat(np.arange(len(cells)), lengths), flat_values(cells).cast(pa.large_string())


def labelled_answers(source: ArrowSplit) -> list[tuple[int, str]]:
    """The distinct pairs of label and answer of a table; none where the answers are withheld.

    Raises UserError, with file, row and value, where labels or answers are not understood.
    """
    if source.withholds("answer_labels"):
        return []
    _check_values(source, ("answer_labels", "answers"))
    parts = [
        pa.table(
            {
                "label": flat_values(batch.column("answer_labels")).cast(pa.int64(), safe=False),
                "answer": flat_values(batch.column("answers")).cast(pa.large_string()),
            }
        )
        for _, batch in source.batches()
    ]
    if not parts:
        return []
    distinct = pa.concat_tables(parts).group_by(["label", "answer"]).aggregate([])
    return list(zip(distinct["label"].to_pylist(), distinct["answer"].to_pylist(), strict=True))
