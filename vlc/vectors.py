"""Vectors on disk that are found by their inner product: exactly while they are few, by faiss's inverted lists beyond.

Nothing here holds all vectors in memory: they are written to a file as they come, indexed from it part by part, and the
finished lists are read from disk where a search needs them (faiss, Johnson et al. 2019, *Billion-scale similarity search*).
"""

import logging
from pathlib import Path
from types import ModuleType

import numpy as np

from vlc.errors import MissingFile, UserError

FLAT_UP_TO = 100_000  # vectors that are compared one by one, where lists would not be much faster
PROBES = 1 / 8  # share of the lists that a search looks into
_SAMPLES_OF_LIST = 40  # vectors that each list's centre is learnt from; faiss advises 39 to 256
_PART = 500_000  # vectors in memory while an index is built
_BLOCK = 16_384  # vectors that are read and assigned at once


def load_faiss() -> ModuleType:
    """faiss, or a UserError that tells how to install it."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it tells which processors it was not built for
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            'index and search need faiss, which is not installed: pip install "vlc[search]" (or faiss-cpu)'
        ) from error
    return faiss


class VectorFile:
    """Vectors (N, width) float32 that grow on disk."""

    def __init__(self, path: Path, width: int):
        self.path, self.width = path, width
        self._file = path.open("wb")

    def append(self, vectors: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(vectors, dtype=np.float32).tobytes())

    def close(self) -> np.ndarray:
        """All vectors, mapped and not read."""
        self._file.close()
        if not self.path.stat().st_size:
            return np.empty((0, self.width), dtype=np.float32)
        return np.memmap(self.path, dtype=np.float32, mode="r").reshape(-1, self.width)


def num_lists(num_vectors: int) -> int:
    """2 * sqrt(N): assigning a vector and searching its lists then cost alike."""
    return max(1, round(2 * num_vectors**0.5))


def build(vectors: np.ndarray, folder: Path, name: str, *, flat_up_to: int = FLAT_UP_TO, part: int = _PART) -> None:
    """Write the index of vectors (N, width) float32 to FOLDER/NAME.0.faiss, and in parts (NAME.1.faiss, ...) of many.

    Many vectors are kept in half precision. The centres of the lists are learnt from a sample that is drawn with a seed.
    """
    faiss = load_faiss()
    count, width = vectors.shape
    if count <= flat_up_to:
        empty, part = faiss.IndexFlatIP(width), count
    else:
        lists = num_lists(count)
        empty = faiss.index_factory(width, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
        wanted = min(count, _SAMPLES_OF_LIST * lists)
        chosen = np.sort(np.random.default_rng(0).choice(count, wanted, replace=False))
        empty.train(np.ascontiguousarray(vectors[chosen]))
    for number, start in enumerate(range(0, count, part)):
        index = faiss.clone_index(empty)
        for first in range(start, min(start + part, count), _BLOCK):
            block = np.ascontiguousarray(vectors[first : min(first + _BLOCK, start + part)])
            if count <= flat_up_to:
                index.add(block)
            else:
                index.add_with_ids(block, np.arange(first, first + len(block)))
        faiss.write_index(index, str(folder / f"{name}.{number}.faiss"))


class Vectors:
    """A written index, opened for searching. Raises MissingFile if it is not there."""

    def __init__(self, folder: Path, name: str):
        faiss = load_faiss()
        paths = sorted(folder.glob(f"{name}.*.faiss"))
        if not paths:
            raise MissingFile(f"{folder} holds no index of {name}")
        # Lists stay on disk until they are searched.
        self._parts = [faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY) for path in paths]
        for part in self._parts:
            if isinstance(part, faiss.IndexIVF):
                part.nprobe = max(16, round(PROBES * part.nlist))

    def __len__(self) -> int:
        return sum(part.ntotal for part in self._parts)

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """For queries (Q, width) inner products (Q, k) float32, highest first, and numbers (Q, k) int64 of the vectors.

        k is cut to the number of vectors; where the lists looked into hold fewer, numbers end in -1.
        """
        k = min(k, len(self))
        found = [part.search(np.ascontiguousarray(queries, dtype=np.float32), k) for part in self._parts]
        products, numbers = (np.concatenate(kind, axis=1) for kind in zip(*found, strict=True))
        order = np.argsort(-products, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(products, order, 1), np.take_along_axis(numbers, order, 1)
