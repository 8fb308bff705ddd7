"""Repeated texts of a row, which count once.

Finding them takes a look at every text, so it is the one part of opening a file that grows with the number of texts: about
a second for ten million.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlc.data.ipc import in_plain_layout, is_list, record_batches

_AT_ONCE = 1 << 18  # texts; bounds the memory that looking takes


def repeated_texts(path: Path, column: str) -> np.ndarray:
    """Sorted numbers (R,) int64 of the texts of a file that stand earlier in their own row.

    Raises pyarrow's errors if the file is damaged. The pages of the texts are let go with the mapping.
    """
    found, first = [np.empty(0, dtype=np.int64)], 0
    for batch in record_batches(path)[1]:
        batch.column(column).validate(full=True)
        texts = in_plain_layout(batch.column(column))
        if is_list(texts.type):
            offsets = texts.offsets.to_numpy()
            found += [first + part for part in _in_batch(texts.values, offsets)]
            first += int(offsets[-1]) - int(offsets[0])
        elif not pa.types.is_null(texts.type):
            first += len(texts)
    return np.concatenate(found)


def _in_batch(values: pa.Array, offsets: np.ndarray) -> Iterator[np.ndarray]:
    """Parts of the sorted numbers of repeated texts; row i has the values [offsets[i], offsets[i + 1])."""
    row = 0
    while row < len(offsets) - 1:
        end = int(np.searchsorted(offsets, offsets[row] + _AT_ONCE, side="right")) - 1
        end = max(end, row + 1)  # a row is never divided
        first, last = int(offsets[row]), int(offsets[end])
        counts = np.diff(offsets[row : end + 1])
        if counts.max(initial=0) > 1:
            yield first - int(offsets[0]) + _repeated(values.slice(first, last - first), counts)
        row = end


def _repeated(texts: pa.Array, counts: np.ndarray) -> np.ndarray:
    """Sorted numbers of the texts that stand earlier in the same row; rows have `counts` texts each.

    Most texts differ from the others of their row in length already, and are not looked at further.
    """
    rows = np.repeat(np.arange(len(counts)), counts)
    lengths = pc.binary_length(texts).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    alike = _not_alone(rows * (lengths.max(initial=0) + 1) + lengths)
    codes = pc.dictionary_encode(texts.take(pa.array(alike)), null_encoding="encode").indices.to_numpy()
    _, first = np.unique(rows[alike] * (codes.max(initial=0) + 1) + codes, return_index=True)
    repeated = np.ones(len(alike), dtype=bool)
    repeated[first] = False
    return alike[repeated]


def _not_alone(keys: np.ndarray) -> np.ndarray:
    """Sorted positions of the values that occur more than once."""
    order = np.argsort(keys, kind="stable")
    same = np.diff(keys[order]) == 0
    found = np.zeros(len(keys), dtype=bool)
    found[order[1:][same]] = found[order[:-1][same]] = True
    return np.flatnonzero(found)
