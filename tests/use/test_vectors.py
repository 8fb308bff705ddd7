"""Indexes of vectors: the flat one is exact, the one of lists finds nearly the same, at any size and in any parts."""

import sys

import numpy as np
import pytest

from vlc.common.errors import DamagedIndex, UserError
from vlc.use.vectors import Vectors, build


def _clustered(count: int, width: int = 32, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((50, width))
    vectors = centres[rng.integers(50, size=count)] + 0.5 * rng.standard_normal((count, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _exact(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("count", [1, 7, 3000])
def test_few_vectors_are_found_exactly(tmp_path, count):
    vectors, queries = _clustered(count), _clustered(20, seed=1)
    files = build(vectors, tmp_path, "few")
    products, numbers = Vectors(tmp_path, files).nearest(queries, 10)
    assert numbers.shape == (20, min(10, count))
    np.testing.assert_array_equal(numbers, _exact(vectors, queries, 10))
    np.testing.assert_allclose(products, np.sort(queries @ vectors.T, axis=1)[:, ::-1][:, :10], atol=1e-6)


@pytest.mark.parametrize("part", [700, 1000, 100_000])
def test_many_vectors_are_found_nearly_exactly(tmp_path, part):
    """Parts of several sizes, a last one that is smaller among them; every vector finds itself."""
    vectors, queries = _clustered(5000), _clustered(100, seed=1)
    index = Vectors(tmp_path, build(vectors, tmp_path, "many", flat_up_to=100, part=part))
    assert len(index) == 5000
    assert len(list(tmp_path.glob("many.*.faiss"))) == -(-5000 // part)
    _, numbers = index.nearest(queries, 10)
    hits = [
        len(set(one) & set(other)) for one, other in zip(numbers.tolist(), _exact(vectors, queries, 10), strict=True)
    ]
    assert np.mean(hits) > 9.5
    products, itself = index.nearest(vectors[::10], 1)
    assert (itself[:, 0] == np.arange(0, 5000, 10)).mean() > 0.99
    assert np.abs(products - 1).max() < 0.01, "half precision"


def test_of_no_vectors_there_is_no_file(tmp_path):
    assert build(np.empty((0, 32), np.float32), tmp_path, "none") == {}
    assert list(tmp_path.iterdir()) == []


def test_checksums_cover_the_files(tmp_path):
    """faiss writes the lists last and one after the other: all bytes before them are of the head."""
    import faiss

    files = build(_clustered(3000), tmp_path, "many", flat_up_to=100, part=2000)
    assert len(files) == 2
    for name, entry in files.items():
        index = faiss.read_index(str(tmp_path / name), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        lists = faiss.downcast_InvertedLists(index.invlists).lists
        filled = [lists.at(number) for number in range(index.nlist) if lists.at(number).size]
        assert min(each.offset for each in filled) == entry["head"]
        assert sum(each.size for each in filled) * (index.code_size + 8) == entry["size"] - entry["head"]
        assert len(entry["lists"]) == index.nlist


@pytest.mark.parametrize("flat_up_to", [100, 10_000])
def test_damaged_files_are_refused_or_answer_as_before(tmp_path, flat_up_to):
    vectors, queries = _clustered(3000), _clustered(2, seed=1)
    files = build(vectors, tmp_path, "x", flat_up_to=flat_up_to, part=2000)
    sound = Vectors(tmp_path, files).nearest(queries, 10)
    rng = np.random.default_rng(0)
    refused, tries = [], 120
    for _ in range(tries):
        path = tmp_path / rng.choice(list(files))
        content = path.read_bytes()
        place, kind = int(rng.integers(len(content))), rng.integers(4)
        damaged = bytearray(content)
        if kind == 0:
            damaged[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            damaged = damaged[:place]
        elif kind == 2:
            damaged[place : place + 4096] = bytes(len(damaged[place : place + 4096]))
        else:
            damaged = damaged[:place] + b"x" + damaged[place:]
        path.unlink()  # what is mapped stays as it is
        path.write_bytes(damaged)
        try:
            found = Vectors(tmp_path, files).nearest(queries, 10)
        except DamagedIndex as error:
            refused.append((str(path), str(error)))
        else:
            np.testing.assert_array_equal(found, sound)
        path.unlink()
        path.write_bytes(content)
    assert len(refused) > tries / 2
    assert all(path in message for path, message in refused)
    (tmp_path / "x.0.faiss").unlink()
    with pytest.raises(DamagedIndex, match=r"x\.0\.faiss is missing"):
        Vectors(tmp_path, files)


def test_a_missing_library_names_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r'faiss, which is not installed: pip install -e ".\[search\]"'):
        build(_clustered(3), tmp_path, "few")
