"""Repeated texts of a row, which count once: found once for each file and remembered.

Finding them takes a look at every text, so it is the one part of opening a file that grows with the number of texts: about
a second for ten million. What is found is small, and is kept in the user's cache folder, with a checksum, under a name made
of the file's path, size, time of change and inode, and of its own checksum where our writer left one; from then on opening
a file costs a look at each record batch. (A mark in the file itself would save the first look too, but files that other
programs wrote do not have it, and data folders are often read-only.)
"""

import hashlib
import os
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlc.common.files import write_atomically
from vlc.data.identity import file_state
from vlc.data.ipc import in_plain_layout, is_list, record_batches

_AT_ONCE = 1 << 18  # texts; bounds the memory that looking takes
_WORTH_KEEPING = 100_000  # texts; finding them anew takes milliseconds below


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/vlc, or ~/.cache/vlc."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlc"


def repeated_texts(path: Path, column: str, num_texts: int) -> np.ndarray:
    """Sorted numbers (R,) int64 of the texts of a file that stand earlier in their own row; num_texts is for all rows.

    Raises pyarrow's errors if the file is damaged.
    """
    remembered = _cache_file(path, column)
    try:
        kept = remembered.read_bytes()
    except OSError:
        kept = b""  # not looked at yet
    if len(kept) % 8 == 4 and kept[:4] == _checksum(kept[4:]):
        return np.frombuffer(kept[4:], dtype="<i8")
    found = find_repeated(path, column)
    if num_texts >= _WORTH_KEEPING:
        _remember(remembered, found)
    return found


def _cache_file(path: Path, column: str) -> Path:
    identity = "\0".join(map(str, (*file_state(path), column))).encode() + os.fsencode(path.resolve())
    return cache_folder() / "repeated_texts" / f"{hashlib.sha256(identity).hexdigest()[:32]}.int64"


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "little")


def _remember(file: Path, found: np.ndarray) -> None:
    """Several processes may do so at once."""
    try:
        content = found.astype("<i8").tobytes()
        with write_atomically(file) as partial:
            partial.write_bytes(_checksum(content) + content)
    except OSError:
        pass  # no room or no permission: the next process looks again


def find_repeated(path: Path, column: str) -> np.ndarray:
    """What `repeated_texts` returns, by looking at all texts. Their pages are let go with the mapping."""
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


def _in_batch(values: pa.Array, offsets: np.ndarray):
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
