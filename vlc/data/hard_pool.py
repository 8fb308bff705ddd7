"""Hard pools: for each training image of a data set, the images that look most alike (Lu et al. 2020, 12-in-1).

`vlc.use.hard_pool` makes a pool, and `vlc.data.parts.hard_texts` draws from it. A pool is a small file of its own, beside
the tables of its data set if no other folder is named. Its images are numbered as the rows of these tables stand.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlc.common.errors import ChangedFile, MissingFile, UserError
from vlc.common.files import write_atomically
from vlc.data.arrow import ArrowSplit, Location
from vlc.data.identity import FileIdentity

_DAMAGE = (zipfile.BadZipFile, zlib.error)
NONE = -1  # the number in place of a neighbour that there is not


@dataclass(frozen=True)
class HardPool:
    """The images that look like each of the N images of a split.

    path: of the file.
    near (N, K) int32: the numbers of the images that look most like each image, the most alike first, without itself. NONE
        stands where there are fewer, or in place of images that are not trained on.
    rows_of_batches: the number of images in each record batch.
    """

    path: Path
    near: Tensor
    rows_of_batches: Sequence[int]

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.rows_of_batches)])

    def near_of(self, where: Location) -> list[int]:
        """The numbers of the images that look like the image of a row, the most alike first."""
        row = self.near[int(self._starts[where.batch]) + where.row]
        return row[row != NONE].tolist()

    def location(self, number: int) -> Location:
        """The row of an image."""
        batch = int(np.searchsorted(self._starts, number, side="right")) - 1
        return Location(batch, number - int(self._starts[batch]), 0)


def pool_name(dataset: str) -> str:
    return f"{dataset}_hard_pool.npz"


def open_pool(source: ArrowSplit, folder: str | None) -> HardPool:
    """The pool of a split that is trained on.

    folder: that holds the pools of all data sets; None: the one of the split's tables.
    Raises MissingFile where there is no pool, ChangedFile where it is of other tables, and UserError where it is damaged or
    has no neighbours of an image. Each names the command that makes the pool.
    """
    path = Path(folder or source.paths[0].parent) / pool_name(source.dataset)
    cure = (
        f"Make it with: python run.py hard_pool with load_path=CHECKPOINT data_root={source.paths[0].parent} "
        f"datasets=[{source.dataset}] out={path.parent}"
    )
    if not path.is_file():
        raise MissingFile(
            f"{path} does not exist: data set {source.dataset!r} needs it for texts of images that look alike. {cure}"
        )
    near, undecodable, made_from = _read(path, cure)
    difference = _difference(made_from["tables"], tables_of(source))
    if difference is None and len(near) != source.num_rows:
        difference = f"it has {len(near):,} images, and the tables have {source.num_rows:,} rows"
    if difference:
        raise ChangedFile(f"{path} is a pool of other data than is trained on: {difference}. {cure}")
    pool = HardPool(path, torch.from_numpy(near), source.rows_of_batches)
    lacking = np.setdiff1d(np.flatnonzero((near == NONE).all(axis=1)), undecodable)
    if len(lacking):
        table, row = source.table_and_row(pool.location(int(lacking[0])))
        raise UserError(
            f"{path} lacks {len(lacking):,} of the {len(near):,} images that are trained on, the first in row {row} of "
            f"{table}{source.suffix}. {cure}"
        )
    if len(removed := source.rows_left_out()):  # their texts are not trained on either
        near = np.where(np.isin(near, removed), np.int32(NONE), near)
    return replace(pool, near=torch.from_numpy(near))


def write_pool(
    path: Path, near: np.ndarray, ids: Sequence[str], undecodable: Sequence[int], made_from: Mapping[str, Any]
) -> None:
    """Write a pool; the file appears whole or not at all.

    near (N, K) int32: see `HardPool`.
    ids: the names of the N images in their data set, for other readers of the file.
    undecodable: the numbers of images that cannot be decoded, which have no neighbours.
    made_from: with the key "tables", see `tables_of`.
    """
    arrays = {"near": near, "image_ids": np.array(ids), "undecodable": np.array(undecodable, dtype=np.int32)}
    with write_atomically(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, made_from=np.array(json.dumps(made_from)), **arrays)  # type: ignore[arg-type]  # an option is a bool


def tables_of(source: ArrowSplit) -> list[dict[str, Any]]:
    """What tells the tables of a split from others: name, and identity of the file."""
    return [{"name": path.name} | source.states[path].identity._asdict() for path in source.paths]


def _read(path: Path, cure: str) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """near, undecodable and made_from of a file. Raises UserError where it is damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            near, undecodable = file["near"], file["undecodable"]
            made_from = json.loads(str(file["made_from"]))
        if near.dtype != np.int32 or near.ndim != 2 or not ((near >= NONE) & (near < len(near))).all():
            raise ValueError("its neighbours are not numbers of its images")
        _ = [
            (table["name"], FileIdentity(table["size"], table["changed"], table["checksum"]))
            for table in made_from["tables"]
        ]
    except (OSError, ValueError, TypeError, KeyError, EOFError, MemoryError, RecursionError, *_DAMAGE) as error:
        raise UserError(f"{path} is damaged or no hard pool ({error}). {cure}") from error
    return near, undecodable, made_from


def _difference(made_from: list[dict[str, Any]], now: list[dict[str, Any]]) -> str | None:
    """What tells that tables are others than a pool was made from, in words; None where they are the same."""
    before, after = ([table["name"] for table in tables] for tables in (made_from, now))
    if before != after:
        return f"it was made from {', '.join(before)}, and the training tables are {', '.join(after)}"
    for old, new in zip(made_from, now, strict=True):
        identities = (FileIdentity(table["size"], table["changed"], table["checksum"]) for table in (old, new))
        if difference := next(identities).difference(next(identities)):
            return f"{new['name']} is another file: {difference}"
    return None
