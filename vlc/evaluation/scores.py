"""Scores of rows with columns, of which each process keeps those of its own rows: stored, or made again tile by tile."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from types import ModuleType
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vlc.data.corpus import Group
from vlc.evaluation.ranks import Ranks, Tile, matches, own_places, rank, whole
from vlc.hardware.distributed import gather_lists, sum_over_processes

TILE = (512, 8192)  # rows and columns of similarities that are in memory at once
_STORED_AT_ONCE = 2**24  # scores of a tile, 64 MB

Block = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Scores(Protocol):
    """The scores of a ranking.

    mine: the numbers of this process's rows, in ascending order.
    finite: whether no score that this process knows is NaN or infinite.
    """

    @property
    def mine(self) -> np.ndarray: ...

    @property
    def finite(self) -> bool: ...

    def ranks(self, group: Group, *, finds_rows: bool) -> Ranks:
        """The ranks of a group on every process, as in `vlc.evaluation.ranks.rank`."""

    def blocks(self, *, finds_rows: bool) -> Mapping[str, Block]:
        """Functions: own rows (R,), columns (C,) -> scores (R, C) float32.

        They are named `scores`, and `text_scores` where columns are found by other scores than rows.
        """


def room_for(shape: tuple[int, int], folder: Path | None) -> np.ndarray:
    """Return an array float32 in memory, or in a file of a folder that has no name and disappears with the array."""
    if folder is None:
        return np.empty(shape, dtype=np.float32)
    with TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype=np.float32, shape=shape)


@dataclass
class Stored:
    """Scores that were computed once.

    values (own rows, columns) float32.
    """

    mine: np.ndarray
    values: np.ndarray
    finite: bool = True

    def tiles(self, rows: np.ndarray, columns: np.ndarray) -> Iterator[Tile]:
        size = max(1, _STORED_AT_ONCE // max(1, len(columns)))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]

            def chosen(part: np.ndarray = part) -> Tensor:
                return torch.from_numpy(self.block(part, columns))

            yield Tile(slice(start, start + len(part)), slice(0, len(columns)), chosen)

    def block(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The scores (R, C) of own rows with some columns."""
        found = np.asarray(self.values[np.searchsorted(self.mine, rows)])
        everything = len(columns) == found.shape[1] and (columns == np.arange(len(columns))).all()
        return found if everything else found[:, columns]

    def ranks(self, group: Group, *, finds_rows: bool) -> Ranks:
        return rank(self, group, finds_rows=finds_rows)

    def blocks(self, *, finds_rows: bool) -> Mapping[str, Block]:
        return {"scores": self.block}


@dataclass
class Similarities:
    """Inner products of unit vectors, which are computed when they are needed.

    rows (rows, D), columns (columns, D) float32: the vectors of all rows and columns, on every process.
    """

    mine: np.ndarray
    rows: Tensor
    columns: Tensor

    @property
    def finite(self) -> bool:
        return bool(self.rows.isfinite().all() and self.columns.isfinite().all())

    def tiles(self, rows: np.ndarray, columns: np.ndarray) -> Iterator[Tile]:
        """Every tile is a product of one shape, so that equal vectors have equal similarities in all tiles."""
        return _products(_at(self.rows, rows), _at(self.columns, columns), self._tile_shape())

    def _tile_shape(self) -> tuple[int, int]:
        return min(TILE[0], len(self.rows)), min(TILE[1], len(self.columns))

    def block(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The similarities (R, C) of rows with some columns."""
        found = np.empty((len(rows), len(columns)), dtype=np.float32)
        for tile in self.tiles(rows, columns):
            found[tile.rows, tile.columns] = tile.scores().cpu().numpy()
        return found

    def ranks(self, group: Group, *, finds_rows: bool) -> Ranks:
        return rank(self, group, finds_rows=finds_rows)

    def blocks(self, *, finds_rows: bool) -> Mapping[str, Block]:
        return {"scores": self.block}

    def nearest_columns(self, rows: np.ndarray, columns: np.ndarray, k: int) -> np.ndarray:
        """For some rows the numbers (R, K) of the most similar among some columns; K is k, or fewer if there are fewer."""
        return columns[nearest(_at(self.rows, rows), _at(self.columns, columns), k)]

    def nearest_rows(self, columns: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
        """For some columns the numbers (C, K) of the most similar among some rows."""
        return rows[nearest(_at(self.columns, columns), _at(self.rows, rows), k)]


def _at(vectors: Tensor, numbers: np.ndarray) -> Tensor:
    """The vectors of these numbers; without a copy where they are all, in their order."""
    if len(numbers) == len(vectors) and (numbers == np.arange(len(numbers))).all():
        return vectors
    return vectors[torch.from_numpy(numbers).to(vectors.device)]


def _products(left: Tensor, right: Tensor, shape: tuple[int, int]) -> Iterator[Tile]:
    """The inner products of vectors (R, D) and (C, D) in tiles, which are computed with one shape."""

    def padded(vectors: Tensor, count: int) -> Tensor:
        return F.pad(vectors, (0, 0, 0, count - len(vectors)))

    for row in range(0, len(left), shape[0]):
        first = left[row : row + shape[0]]
        for column in range(0, len(right), shape[1]):
            second = right[column : column + shape[1]]

            def computed(first: Tensor = first, second: Tensor = second) -> Tensor:
                with torch.autocast(first.device.type, enabled=False):
                    product = padded(first, shape[0]) @ padded(second, shape[1]).T
                return product[: len(first), : len(second)]

            yield Tile(slice(row, row + len(first)), slice(column, column + len(second)), computed)


def nearest(queries: Tensor, candidates: Tensor, k: int) -> np.ndarray:
    """Return the places (Q, K) int64 of the candidates (C, D) with the largest inner products with each query (Q, D).

    K is k, or fewer where there are fewer candidates. The result is exact; which of equal candidates are left out at K is
    not defined. On a CPU faiss finds them where it is installed (Johnson et al. 2019, *Billion-scale similarity search*).
    """
    k = min(k, len(candidates))
    if not len(queries):
        return np.empty((0, k), dtype=np.int64)
    if queries.is_cpu and (faiss := _faiss()) is not None:
        metric = faiss.METRIC_INNER_PRODUCT
        return faiss.knn(queries.contiguous().numpy(), candidates.contiguous().numpy(), k, metric=metric)[1]
    best: list[tuple[Tensor, Tensor]] = []  # of the queries so far
    for tile in _products(queries, candidates, (min(TILE[0], len(queries)), min(TILE[1], len(candidates)))):
        scores = tile.scores()
        values, places = scores.topk(min(k, scores.shape[1]))
        places = places + tile.columns.start
        if tile.columns.start:
            before = best.pop()
            values, chosen = torch.cat([before[0], values], dim=1).topk(min(k, tile.columns.stop))
            places = torch.cat([before[1], places], dim=1).gather(1, chosen)
        best.append((values, places))
    return torch.cat([places for _, places in best]).cpu().numpy()


def _faiss() -> ModuleType | None:
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it logs the processors that it was not built for
    try:
        import faiss
    except ImportError:
        return None
    return faiss


@dataclass
class Reranked:
    """Scores in two stages: candidates have the scores of a model, and all others stand behind them by similarity.

    near: the similarities; its own rows are those of this process's pairs.
    row, column (pairs,) int64: the pairs of own rows that the model scored, in ascending order.
    score (pairs,) float32.
    of_row, of_column (pairs,) bool: whether the column is a candidate of the row, and the row of the column.
    """

    near: Similarities
    row: np.ndarray
    column: np.ndarray
    score: np.ndarray
    of_row: np.ndarray
    of_column: np.ndarray

    @property
    def mine(self) -> np.ndarray:
        return self.near.mine

    @property
    def finite(self) -> bool:
        return self.near.finite and bool(np.isfinite(self.score).all())

    def ranks(self, group: Group, *, finds_rows: bool) -> Ranks:
        """A right one among the candidates has its rank among them; otherwise it has its rank by similarity, behind all."""
        plain = self.near.ranks(group, finds_rows=finds_rows)
        pair, row, column = self._within(group)
        score, right = self.score[pair], group.row_keys[row] == group.column_keys[column]
        of_rows, chosen = plain.of_rows, self.of_column[pair]
        if of_rows is not None:
            of_rows = _ranks_of_rows(of_rows, column[chosen], score[chosen], right[chosen])
        chosen = self.of_row[pair]
        of_columns = _ranks_of_columns(plain.of_columns, row[chosen], score[chosen], right[chosen])
        places = own_places(group, self.mine)
        return Ranks(of_rows, whole(places, of_columns[places], len(group.rows)))

    def _within(self, group: Group) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pairs of a group: their numbers, and their places among its rows and among its columns."""
        places = np.full(len(self.near.rows), -1)
        places[group.rows] = np.arange(len(group.rows))
        pairs = np.flatnonzero(places[self.row] >= 0)
        number, column = matches(self.column[pairs], group.columns)
        return pairs[number], places[self.row[pairs[number]]], column

    def blocks(self, *, finds_rows: bool) -> Mapping[str, Block]:
        lowest = min(0.0, *gather_lists([float(self.score.min(initial=0.0))]))
        by_row = partial(self._block, self.of_row, 2 - lowest)
        return (
            {"scores": partial(self._block, self.of_column, 2 - lowest), "text_scores": by_row}
            if finds_rows
            else {"scores": by_row}
        )

    def _block(self, chosen: np.ndarray, behind: float, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The scores (R, C) of own rows with some columns; `behind` lowers similarities below every score of the model."""
        found = self.near.block(rows, columns) - np.float32(behind)
        first, last = np.searchsorted(self.row, rows[0]), np.searchsorted(self.row, rows[-1], "right")
        pairs = first + np.flatnonzero(chosen[first:last] & np.isin(self.row[first:last], rows))
        number, column = matches(self.column[pairs], columns)
        found[np.searchsorted(rows, self.row[pairs[number]]), column] = self.score[pairs[number]]
        return found


def _ranks_of_rows(plain: np.ndarray, column: np.ndarray, score: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The rank (columns,) of each column's row, of pairs of candidates that are divided over the processes.

    plain: the ranks by similarity, for columns whose row is no candidate.
    """
    count = len(plain)
    true = whole(column[right], score[right], count, -np.inf)
    before = sum_over_processes(np.bincount(column[~(score < true[column])], minlength=count))
    candidates = sum_over_processes(np.bincount(column, minlength=count))
    return np.where(true == -np.inf, np.maximum(plain, candidates + 1), before)


def _ranks_of_columns(plain: np.ndarray, row: np.ndarray, score: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The rank (rows,) of the best right column of each row, whose candidates are all on this process."""
    best = np.full(len(plain), -np.inf, dtype=np.float32)
    np.maximum.at(best, row[right], score[right])
    before = np.bincount(row[~right & ~(score < best[row])], minlength=len(plain))
    candidates = np.bincount(row, minlength=len(plain))
    return np.where(best == -np.inf, np.maximum(plain, candidates + 1), 1 + before)
