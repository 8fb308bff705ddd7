"""Vectors on disk that are found by their inner product: exactly if they are few, otherwise by faiss's inverted lists.

Nothing here holds all vectors in memory: they are indexed part by part, and a search reads the lists that it needs from
disk (faiss, Johnson et al. 2019, *Billion-scale similarity search*).
"""

import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vlc.common.errors import DamagedIndex, UserError

FLAT_UP_TO = 100_000  # the most vectors that are compared one by one, as lists would not be much faster
PROBES = 1 / 8  # share of the lists that a search looks into
_SAMPLES_OF_LIST = 40  # number of vectors from which the centre of a list is learnt; faiss advises 39 to 256
_PART = 500_000  # vectors in memory while an index is built
_BLOCK = 16_384  # vectors that are read and assigned at once


def load_faiss() -> ModuleType:
    """Import faiss. Raises UserError, with the command that installs it, where it is missing."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it logs the processors that it was not built for
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            'index and search need faiss, which is not installed: pip install -e ".[search]" (or faiss-cpu)'
        ) from error
    return faiss


def build(
    vectors: np.ndarray, folder: Path, name: str, *, flat_up_to: int = FLAT_UP_TO, part: int = _PART
) -> dict[str, Any]:
    """Write the index of vectors (N, width) float32 to FOLDER/NAME.0.faiss, and further parts (NAME.1.faiss, ...).

    More than flat_up_to vectors are stored in half precision, in lists whose centres are learnt from a seeded sample.
    Returns, by file, the size and checksums with which `Vectors` compares it. Without vectors there are no files.
    """
    faiss = load_faiss()
    count, width = vectors.shape
    if not count:
        return {}
    if count <= flat_up_to:
        empty, part = faiss.IndexFlatIP(width), count
    else:
        lists = max(1, round(2 * count**0.5))  # assigning a vector and searching its lists then cost alike
        empty = faiss.index_factory(width, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
        wanted = min(count, _SAMPLES_OF_LIST * lists)
        chosen = np.sort(np.random.default_rng(0).choice(count, wanted, replace=False))
        empty.train(np.ascontiguousarray(vectors[chosen]))
    written = {}
    for number, start in enumerate(range(0, count, part)):
        index = faiss.clone_index(empty)
        for first in range(start, min(start + part, count), _BLOCK):
            block = np.ascontiguousarray(vectors[first : min(first + _BLOCK, start + part)])
            if count <= flat_up_to:
                index.add(block)
            else:
                index.add_with_ids(block, np.arange(first, first + len(block)))
        path = folder / f"{name}.{number}.faiss"
        faiss.write_index(index, str(path))
        written[path.name] = _checksums(path, index)
    return written


def _checksums(path: Path, index: Any) -> dict[str, Any]:
    """Return size, head (bytes before the lists), their checksum, and lists: the checksum of each list in memory."""
    head = size = path.stat().st_size
    lists = []
    if hasattr(index, "invlists"):
        head -= index.ntotal * (index.code_size + 8)  # faiss writes the lists last: codes, and ids of 8 bytes
        lists = [_list_checksum(index, number) for number in range(index.nlist)]
    return {"size": size, "head": head, "checksum": file_checksum(path, head), "lists": lists}


def file_checksum(path: Path, size: int) -> int:
    """Return the CRC-32 of the first bytes of a file. It finds damage, not intent."""
    checksum = 0
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, 1 << 24))):
            checksum = zlib.crc32(block, checksum)
            size -= len(block)
    return checksum


def _list_checksum(index: Any, number: int) -> int:
    """Return the CRC-32 of the codes and ids of an inverted list."""
    lists, length = index.invlists, index.invlists.list_size(number)
    if not length:
        return 0
    faiss = load_faiss()
    codes = faiss.rev_swig_ptr(lists.get_codes(number), length * index.code_size)
    return zlib.crc32(faiss.rev_swig_ptr(lists.get_ids(number), length), zlib.crc32(codes))


def unverified(folder: Path, name: str) -> dict[str, None]:
    """Return the files of an older index, which stored no checksums, for `Vectors`. Raises DamagedIndex without files."""
    names = [path.name for path in sorted(folder.glob(f"{name}.*.faiss"))]
    if not names:
        raise DamagedIndex(f"{folder} holds no vectors of {name}")
    return dict.fromkeys(names)


class Vectors:
    """A written index, opened for searching. Raises DamagedIndex.

    With the checksums of `build`, files without lists, and the bytes before lists, are compared when they are opened, and
    each list is compared when a search first looks into it.

    files: the return value of `build` or `unverified`.
    """

    def __init__(self, folder: Path, files: Mapping[str, Any]):
        faiss = load_faiss()
        self._files = [(folder / name, entry) for name, entry in files.items()]
        self._parts = [_opened(faiss, path, entry) for path, entry in self._files]
        self._sound: list[set[int]] = [set() for _ in self._parts]  # lists that were compared already

    def __len__(self) -> int:
        return sum(part.ntotal for part in self._parts)

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Search for queries (Q, width): inner products (Q, k) float32, highest first, and numbers (Q, k) int64 of vectors.

        k is at most the number of vectors. Where the searched lists hold fewer than k, the numbers end in -1.
        """
        k, queries = min(k, len(self)), np.ascontiguousarray(queries, dtype=np.float32)
        found = []
        for number, part in enumerate(self._parts):
            self._compare(number, queries)
            found.append(part.search(queries, k))
        products, numbers = (np.concatenate(kind, axis=1) for kind in zip(*found, strict=True))
        order = np.argsort(-products, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(products, order, 1), np.take_along_axis(numbers, order, 1)

    def _compare(self, number: int, queries: np.ndarray) -> None:
        """Compare the lists that queries look into with their checksums."""
        part, (path, entry) = self._parts[number], self._files[number]
        if entry is None or not entry["lists"]:
            return
        _, probed = part.quantizer.search(queries, part.nprobe)
        for place in set(probed.flatten().tolist()) - self._sound[number] - {-1}:
            if _list_checksum(part, place) != entry["lists"][place]:
                raise DamagedIndex(f"{path} is damaged: the checksum of list {place} is another")
            self._sound[number].add(place)


def _opened(faiss: ModuleType, path: Path, entry: Mapping[str, Any] | None) -> Any:
    """Open a part, whose lists stay on disk until they are searched."""
    if not path.is_file():
        raise DamagedIndex(f"{path} is missing")
    if entry is not None:
        if (size := path.stat().st_size) != entry["size"]:
            raise DamagedIndex(f"{path} is damaged: it has {size:,} bytes, and {entry['size']:,} were written")
        if file_checksum(path, entry["head"]) != entry["checksum"]:
            raise DamagedIndex(f"{path} is damaged: its checksum is another")
    try:
        part = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as error:  # faiss's own text is long
        raise DamagedIndex(f"{path} cannot be read as an index of faiss") from error
    if isinstance(part, faiss.IndexIVF):
        part.nprobe = max(16, round(PROBES * part.nlist))
    return part
