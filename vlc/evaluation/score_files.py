"""The scores of a ranking on disk, written row by row: no process holds the scores of all rows with all columns."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np

from vlc.common.files import write_atomically
from vlc.data.corpus import Group, Rankable
from vlc.evaluation.scores import Block, Scores
from vlc.hardware.distributed import gather_to_first, is_first_process

ONE_FILE_UP_TO = 10**9  # bytes of scores; an archive with more would have to be unpacked to be read
_AT_ONCE = 2**24  # scores in memory


def scores_bytes(corpus: Rankable) -> int:
    """The bytes of all scores in half precision."""
    return sum(2 * len(group.rows) * len(group.columns) for group in corpus.groups)


def write_scores(out: Path, corpus: Rankable, scores: Scores) -> None:
    """Write OUT.npz on rank 0; every process takes part.

    It has `scores` (images, texts) float16 for image retrieval, `text_scores` for text retrieval where they differ, and
    `text_image` (texts,) int64. Of groups it has, with their names behind, `scores`, `text_scores`, and `row_keys` and
    `column_keys`: a column is right for a row where these are equal. Where the scores take more than 1 GB, each matrix is
    a file of its own, OUT.NAME.npy, which np.load maps into memory (mmap_mode="r").
    """
    blocks = scores.blocks(finds_rows=corpus.finds_rows)
    matrices = [(f"{name}_{group.name}".rstrip("_"), group, blocks[name]) for group in corpus.groups for name in blocks]
    if not is_first_process():
        for _, group, block in matrices:
            for _ in _rows(scores, group, block):
                pass
        return
    together = len(blocks) * scores_bytes(corpus) <= ONE_FILE_UP_TO
    with write_atomically(out.with_name(f"{out.name}.npz")) as partial, ZipFile(partial, "w", ZIP_DEFLATED) as archive:
        for name, group, block in matrices:
            if together:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    _write(entry, group, _rows(scores, group, block))
            else:
                path = out.with_name(f"{out.name}.{name}.npy")
                with write_atomically(path) as matrix, matrix.open("wb") as file:
                    _write(file, group, _rows(scores, group, block))
        for name, array in (pair for group in corpus.groups for pair in _keys(group).items()):
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, array)


def _rows(scores: Scores, group: Group, block: Block) -> Iterator[np.ndarray]:
    """The scores (R, columns) float16 of the rows of a group, in their order; empty ones on other processes than rank 0."""
    size = max(1, _AT_ONCE // len(group.columns))
    for start in range(0, len(group.rows), size):
        rows = group.rows[start : start + size]
        places = np.flatnonzero(np.isin(rows, scores.mine))
        own = block(rows[places], group.columns).astype(np.float16) if len(places) else None
        whole = np.empty((len(rows) if is_first_process() else 0, len(group.columns)), dtype=np.float16)
        for numbers, found in gather_to_first([(places, own)]):
            if found is not None:
                whole[numbers] = found
        yield whole


def _write(file: IO[bytes], group: Group, rows: Iterator[np.ndarray]) -> None:
    """Write the format of np.save."""
    shape = len(group.rows), len(group.columns)
    np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
    for block in rows:
        file.write(block.data)


def _keys(group: Group) -> dict[str, np.ndarray]:
    """What is right."""
    if not group.name:
        return {"text_image": group.column_keys}
    return {f"row_keys_{group.name}": group.row_keys, f"column_keys_{group.name}": group.column_keys}
