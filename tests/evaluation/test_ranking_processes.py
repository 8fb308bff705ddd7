"""Rankings divided over processes, which are threads here: recalls, pairs and files are those of one process."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.ranked import matrices, of
from vlc.common.errors import UnwritableFile
from vlc.data.corpus import Group
from vlc.evaluation import ranking, ranks, score_files, scorer, scores
from vlc.evaluation.ranks import recalls
from vlc.evaluation.scorer import Scorer, shares
from vlc.evaluation.scores import Reranked, Similarities, Stored

ROWS, COLUMNS, WIDTH = 24, 60, 8


class _Together:
    """Processes of one machine, as the modules of ranking see them."""

    def __init__(self, count: int):
        self.count, self.own = count, threading.local()
        self.barrier, self.given = threading.Barrier(count), [[]] * count

    def gather_lists(self, items: list[Any]) -> list[Any]:
        self.given[self.own.rank] = items
        self.barrier.wait(30)
        found = [item for part in self.given for item in part]
        self.barrier.wait(30)
        return found

    def gather_to_first(self, items: list[Any]) -> list[Any]:
        found = self.gather_lists(items)
        return found if self.own.rank == 0 else []

    def sum_over_processes(self, values: np.ndarray) -> np.ndarray:
        return np.sum(self.gather_lists([values]), axis=0)

    def run(self, work: Callable[[], Any]) -> list[Any]:
        results: list[Any] = [None] * self.count

        def started(rank: int) -> None:
            self.own.rank = rank
            try:
                with torch.inference_mode():
                    results[rank] = work()
            except BaseException:
                self.barrier.abort()
                raise

        threads = [threading.Thread(target=started, args=(rank,)) for rank in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


@pytest.fixture
def together(monkeypatch) -> Callable[[int], _Together]:
    def started(count: int) -> _Together:
        processes = _Together(count)
        names = {name: getattr(processes, name) for name in ("gather_lists", "gather_to_first", "sum_over_processes")}
        names["process_number"] = lambda: (processes.own.rank, count)
        names["is_first_process"] = lambda: processes.own.rank == 0
        for module in (ranking, ranks, score_files, scorer, scores):
            for name, function in names.items():
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, function)
        return processes

    return started


class _Corpus:
    """Vectors as images and texts; the texts of two languages, among them equal ones, and images that are equal."""

    finds_rows, facts = True, {"images": ROWS}

    def __init__(self, named: bool):
        generator = torch.Generator().manual_seed(0)
        self.rows = F.normalize(torch.randn(ROWS, WIDTH, generator=generator))
        self.text_image = np.random.default_rng(0).permutation(np.arange(COLUMNS) % ROWS)
        noise = torch.randn(COLUMNS, WIDTH, generator=generator)
        self.columns = F.normalize(self.rows[torch.from_numpy(self.text_image)] + 0.5 * noise)
        self.rows[3], self.columns[5] = self.rows[20], self.columns[50]
        language = np.random.default_rng(1).integers(2, size=COLUMNS)
        everything = [Group.of_images(self.text_image)]
        apart = [Group.of_images(self.text_image, name, np.flatnonzero(language == n)) for n, name in enumerate("ab")]
        self.groups = apart if named else everything

    num_rows, num_columns, lengths = ROWS, COLUMNS, np.ones(COLUMNS)


class _Scorer(Scorer):
    """The score of a pair is a number that its row and its column give, with ties."""

    embeds = True

    def __init__(self, named: bool):
        super().__init__(None, _Corpus(named), torch.device("cpu"), score=abs)
        table = np.random.default_rng(2).integers(9, size=(ROWS, COLUMNS))
        self.table, self.seen = (table / 8).astype(np.float32), 0

    def similarities(self) -> Similarities:
        return Similarities(
            np.arange(self._process, ROWS, self.num_processes), self.corpus.rows.clone(), self.corpus.columns.clone()
        )

    def _scored(self, rows, columns):
        for row in rows.tolist():
            self.seen += len(columns(row))
            yield row, columns(row), self.table[row, columns(row)]


def _plain(group: Group, by_column: np.ndarray, by_row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks counted in whole matrices."""
    right = group.row_keys[:, None] == group.column_keys
    true = of(group, by_column)[right.argmax(axis=0), np.arange(len(group.columns))]
    best = np.where(right, of(group, by_row), -np.inf).max(axis=1, keepdims=True)
    before = (of(group, by_row) >= best) & ~right
    return (of(group, by_column) >= true).sum(axis=0), 1 + before.sum(axis=1)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("kind", ["exact", "similarities", "reranked 1", "reranked 4", "reranked 100"])
def test_ranks_of_processes_are_those_of_whole_matrices(together, monkeypatch, kind, named):
    """Twice as many processes as rows leave some of them without any."""
    monkeypatch.setattr(scores, "TILE", (7, 11))
    monkeypatch.setattr(scores, "_STORED_AT_ONCE", 200)
    name, _, k = kind.partition(" ")
    alone = together(1).run(lambda: matrices(getattr(_Scorer(named), name)(*map(int, k.split()))))[0]
    for count in (1, 3, 2 * ROWS):

        def measured():
            own = _Scorer(named)
            found = getattr(own, name)(*map(int, k.split()))
            return own, found, [found.ranks(group, finds_rows=True) for group in own.corpus.groups]

        results = together(count).run(measured)
        for number, group in enumerate(results[0][0].corpus.groups):
            expected = _plain(group, *alone)
            for _, _, found in results:
                np.testing.assert_array_equal(found[number].of_rows, expected[0])
                np.testing.assert_array_equal(found[number].of_columns, expected[1])
        rows = np.concatenate([found.mine for _, found, _ in results])
        assert sorted(rows.tolist()) == list(range(ROWS))
        if count == 3 and name != "similarities":
            seen = [own.seen for own, _, _ in results]
            assert max(seen) < 1.2 * sum(seen) / 3, "every process has as much to do"


@pytest.mark.parametrize("faiss", [True, False])
def test_the_nearest_are_exact(monkeypatch, faiss):
    monkeypatch.setattr(scores, "TILE", (7, 11))
    if not faiss:
        monkeypatch.setattr(scores, "_faiss", lambda: None)
    corpus = _Corpus(False)
    for k in (1, 15, 99):
        found = scores.nearest(corpus.rows, corpus.columns, k)
        expected = np.argsort(-(corpus.rows @ corpus.columns.T).numpy(), axis=1)[:, :k]
        assert found.shape == expected.shape
        assert [set(one) for one in found.tolist()] == [set(one) for one in expected.tolist()]
    assert scores.nearest(corpus.rows[:0], corpus.columns, 3).shape == (0, 3)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("together_up_to", [0, 10**9])
def test_scores_are_written_by_all_processes(together, monkeypatch, tmp_path, named, together_up_to):
    monkeypatch.setattr(score_files, "ONE_FILE_UP_TO", together_up_to)
    monkeypatch.setattr(score_files, "_AT_ONCE", 100)
    alone = together(1).run(lambda: matrices(_Scorer(named).reranked(4)))[0]
    values = together(3).run(lambda: ranking.evaluate(_Scorer(named), tmp_path / "found", rerank_k=4, save_scores=True))
    assert values[0] == values[1] == values[2]
    archive = dict(np.load(tmp_path / "found.npz"))
    for group in _Corpus(named).groups:
        for name, expected in zip(("scores", "text_scores"), alone, strict=True):
            key = f"{name}_{group.name}" if group.name else name
            path = tmp_path / f"found.{key}.npy"
            assert path.is_file() == (not together_up_to)
            found = archive[key] if together_up_to else np.load(path, mmap_mode="r")
            np.testing.assert_array_equal(found, of(group, expected).astype(np.float16))


def test_too_little_room_is_told_before_any_work(together, monkeypatch, tmp_path):
    monkeypatch.setattr(ranking, "scores_bytes", lambda corpus: 10**18)

    def refused() -> str:
        with pytest.raises(UnwritableFile) as error:
            ranking.evaluate(_Scorer(False), tmp_path / "found", save_scores=True)
        return str(error.value)

    told = together(3).run(refused)
    assert told == [told[0]] * 3, "every process stops"
    assert "GB, and the scores of the ranking (save_scores=True) take 1000000000.00 GB: make room" in told[0]


def test_scores_that_do_not_fit_into_memory_lie_in_a_file(together, monkeypatch, tmp_path):
    monkeypatch.setattr(ranking, "IN_MEMORY_UP_TO", 0)
    kept = []
    monkeypatch.setattr(scorer, "Stored", lambda *values: kept.append(Stored(*values)) or kept[-1])
    found = together(1).run(lambda: ranking.evaluate(_Scorer(False), tmp_path / "found"))[0]
    assert isinstance(kept[0].values, np.memmap)
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
    assert found == together(1).run(lambda: recalls(_Scorer(False).exact(), _Corpus(False).groups[0]))[0]


def test_rows_are_shared_out_by_their_pairs():
    counts = np.random.default_rng(0).integers(1000, size=500)
    parts = shares(counts, 7)
    assert sorted(np.concatenate(parts).tolist()) == list(range(500))
    sums = [counts[part].sum() for part in parts]
    assert max(sums) < 1.01 * min(sums)
    assert [len(part) for part in shares(np.ones(2), 3)] == [1, 1, 0]


def test_a_right_one_that_is_no_candidate_stands_behind_all_candidates():
    """Even where another library has rounded its similarity otherwise, so that it was no candidate."""
    near = Similarities(np.arange(2), torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    group = Group.of_images(np.array([0, 1, 1]))
    pairs = np.array([0]), np.array([2]), np.array([5.0], dtype=np.float32)
    found = Reranked(near, *pairs, np.array([True]), np.array([True])).ranks(group, finds_rows=True)
    assert found.of_columns.tolist() == [2, 1]
    assert found.of_rows.tolist() == [1, 1, 2]
