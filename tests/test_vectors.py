"""Indexes of vectors: the flat one is exact, the one of lists finds nearly the same, at any size and in any parts."""

import sys

import numpy as np
import pytest

from vlc.errors import MissingFile, UserError
from vlc.vectors import VectorFile, Vectors, build


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
    build(vectors, tmp_path, "few")
    products, numbers = Vectors(tmp_path, "few").nearest(queries, 10)
    assert numbers.shape == (20, min(10, count))
    np.testing.assert_array_equal(numbers, _exact(vectors, queries, 10))
    np.testing.assert_allclose(products, np.sort(queries @ vectors.T, axis=1)[:, ::-1][:, :10], atol=1e-6)


@pytest.mark.parametrize("part", [700, 1000, 100_000])
def test_many_vectors_are_found_nearly_exactly(tmp_path, part):
    """Parts of several sizes, a last one that is smaller among them; every vector finds itself."""
    vectors, queries = _clustered(5000), _clustered(100, seed=1)
    build(vectors, tmp_path, "many", flat_up_to=100, part=part)
    index = Vectors(tmp_path, "many")
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


def test_vectors_grow_on_disk(tmp_path):
    file = VectorFile(tmp_path / "vectors", 3)
    parts = [np.arange(6.0).reshape(2, 3), np.ones((1, 3), np.float16)]
    for part in parts:
        file.append(part)
    np.testing.assert_array_equal(file.close(), np.concatenate(parts))
    assert VectorFile(tmp_path / "none", 3).close().shape == (0, 3)


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(MissingFile, match="holds no index of few"):
        Vectors(tmp_path, "few")


def test_a_missing_library_names_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r'faiss, which is not installed: pip install "vlc\[search\]"'):
        build(_clustered(3), tmp_path, "few")
