"""Ranks and recalls of scores whose rows are divided over the processes: each process counts in its own rows.

The scores come in tiles, so that no process ever holds the scores of all rows with all columns.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from vlc.data.corpus import Group
from vlc.hardware.distributed import gather_lists, sum_over_processes

CUTOFFS = (1, 5, 10)
FOLD = 1000  # images; five folds of them are reported beside the 5,000 images of COCO


class Tile(NamedTuple):
    """A part of the scores of some rows with some columns.

    rows, columns: their places among those asked for.
    scores: computes the scores (rows, columns) float32, each time to the same bits.
    """

    rows: slice
    columns: slice
    scores: Callable[[], Tensor]


class Tiled(Protocol):
    """Scores of which each process knows its own rows.

    mine: the numbers of this process's rows, in ascending order.
    """

    @property
    def mine(self) -> np.ndarray: ...

    def tiles(self, rows: np.ndarray, columns: np.ndarray) -> Iterator[Tile]:
        """The tiles that hold all scores of some own rows with some columns."""


@dataclass(frozen=True)
class Ranks:
    """Ranks within a group, counted from 1, on every process.

    of_rows (columns,) int64: the rank of each column's row among all rows; None: rows are not found by columns.
    of_columns (rows,) int64: the rank of the best right column of each row among the wrong columns.
    """

    of_rows: np.ndarray | None
    of_columns: np.ndarray


class Ranked(Protocol):
    """Scores that rank the rows and columns of a group."""

    def ranks(self, group: Group, *, finds_rows: bool) -> Ranks: ...


def own_places(group: Group, mine: np.ndarray) -> np.ndarray:
    """The places of some rows in a group, as far as they are in it."""
    return np.flatnonzero(np.isin(group.rows, mine))


def rank(scores: Tiled, group: Group, *, finds_rows: bool) -> Ranks:
    """Return the ranks of a group; every process takes part.

    Ties count against the model: another candidate with an equal score ranks before the right one. A right candidate
    whose score is NaN ranks last.

    finds_rows: whether rows are found by columns too; each column then has one right row.
    """
    places, count = own_places(group, scores.mine), len(group.columns)
    rows = group.rows[places]
    row, column = matches(group.row_keys[places], group.column_keys)
    right = np.empty(len(row), dtype=np.float32)
    for tile in scores.tiles(rows, group.columns):
        inside = _inside(tile, row, column)
        if len(inside):
            values = tile.scores().cpu().numpy()
            right[inside] = values[row[inside] - tile.rows.start, column[inside] - tile.columns.start]
    best = np.full(len(rows), -np.inf, dtype=np.float32)
    np.maximum.at(best, row, right)
    of_column = whole(column, right, count) if finds_rows else None
    before = 1 - np.bincount(row[~(right < best[row])], minlength=len(rows))  # the right ones are no rivals
    before_row = np.zeros(count, dtype=np.int64)
    for tile in scores.tiles(rows, group.columns):
        found = tile.scores()
        before[tile.rows] += _not_below(found, best[tile.rows, None], axis=1)
        if of_column is not None:
            before_row[tile.columns] += _not_below(found, of_column[None, tile.columns], axis=0)
    return Ranks(None if of_column is None else sum_over_processes(before_row), whole(places, before, len(group.rows)))


def matches(keys: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs of places whose keys are equal, in the order of the first: places in keys, and in others."""
    order = np.argsort(others, kind="stable")
    first, last = (np.searchsorted(others[order], keys, side) for side in ("left", "right"))
    counts = last - first
    starts = np.repeat(first - np.cumsum(counts) + counts, counts)
    return np.repeat(np.arange(len(keys)), counts), order[starts + np.arange(counts.sum())]


def whole(places: np.ndarray, values: np.ndarray, count: int, missing: float = 0) -> np.ndarray:
    """Gather values (count,) by place from the processes, which have different places; missing: the value of the others."""
    everything = np.full(count, missing, dtype=values.dtype)
    for numbers, found in gather_lists([(places, values)]):
        everything[numbers] = found
    return everything


def _inside(tile: Tile, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """The numbers of the pairs, in ascending order of their rows, that lie in a tile."""
    first, last = np.searchsorted(row, (tile.rows.start, tile.rows.stop))
    own = column[first:last]
    return first + np.flatnonzero((own >= tile.columns.start) & (own < tile.columns.stop))


def _not_below(scores: Tensor, bounds: np.ndarray, axis: int) -> np.ndarray:
    """Count along an axis the scores that are not below their bound: equal, above, or NaN."""
    if scores.is_cpu:  # numpy adds bits several times faster than torch there
        return (~(scores.numpy() < bounds)).sum(axis=axis)
    return (~(scores < scores.new_tensor(bounds))).sum(dim=axis).cpu().numpy()


def recalls(scores: Ranked, group: Group, *, finds_rows: bool = True) -> dict[str, float]:
    """Return recalls at 1, 5, 10, median and mean rank of a group, on every process.

    Of images and texts they are ir_* (text -> image) and tr_* (image -> text), and for 5,000 images also the means over
    five folds of 1,000, whose names end in _1k. A cutoff that is not below the number of candidates says nothing and is
    left out.

    finds_rows: False: columns alone are found, and the names have no prefix.
    """
    if not finds_rows:
        return summary(scores.ranks(group, finds_rows=False).of_columns, len(group.columns))
    values = _both_ways(scores, group)
    if parts := [_both_ways(scores, fold) for fold in _folds(group)]:
        values |= {f"{name}_1k": float(np.mean([part[name] for part in parts])) for name in parts[0]}
    return values


def _both_ways(scores: Ranked, group: Group) -> dict[str, float]:
    ranks = scores.ranks(group, finds_rows=True)
    assert ranks.of_rows is not None
    ir, tr = summary(ranks.of_rows, len(group.rows)), summary(ranks.of_columns, len(group.columns))
    return {f"ir_{name}": value for name, value in ir.items()} | {f"tr_{name}": value for name, value in tr.items()}


def _folds(group: Group) -> Sequence[Group]:
    """The five folds of a group of 5,000 images; none of another."""
    if len(group.rows) != 5 * FOLD:
        return []
    image = np.searchsorted(group.row_keys, group.column_keys)
    folds = []
    for start in range(0, len(group.rows), FOLD):
        rows, columns = slice(start, start + FOLD), (image >= start) & (image < start + FOLD)
        folds.append(
            Group(
                f"{group.name} from image {start}",
                group.rows[rows],
                group.columns[columns],
                group.row_keys[rows],
                group.column_keys[columns],
            )
        )
    return folds


def summary(ranks: np.ndarray, num_candidates: int) -> dict[str, float]:
    """Return recalls at 1, 5 and 10 (r1, r5, r10), median and mean of ranks; cutoffs are left out as in `recalls`."""
    values = {f"r{k}": float((ranks <= k).mean()) for k in CUTOFFS if k < num_candidates}
    return values | {"median_rank": float(np.median(ranks)), "mean_rank": float(ranks.mean())}


def mean_recall(values: Mapping[str, float]) -> float | None:
    """Return the mean of all recalls among some metrics, such as the six of images and texts; None where there are none."""
    found = [value for name, value in values.items() if name.rpartition("_")[2] in {f"r{k}" for k in CUTOFFS}]
    return float(np.mean(found)) if found else None
