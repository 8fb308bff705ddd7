"""12-in-1's published hard pools (Lu et al. 2020): `hard_negative.pkl`, read without executing its code, and converted.

The file is a dictionary: `train_hard_pool` (N, K) numbers of images in `train_image_list`, the nearest first, itself
included; and the ids of the N images. Only plain values and NumPy's arrays of numbers are taken from it.
"""

import pickle
import re
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn

from vlc.checkpoint.torch_file import StandIn, Unpickler
from vlc.common.errors import MissingFile, UserError
from vlc.data.hard_pool import NONE

_DAMAGE = (pickle.UnpicklingError, struct.error, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError)
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")


@dataclass(frozen=True)
class PublishedPool:
    """A published pool.

    path: of the file.
    near (N, K) int64: the places in image_ids of the images that look most alike, the nearest first.
    image_ids (N,) int64: the numbers of the images in their data set.
    """

    path: Path
    near: np.ndarray
    image_ids: np.ndarray

    @classmethod
    def read(cls, path: Path) -> "PublishedPool":
        """Raises MissingFile, or UserError where the file is no such pool."""
        if not path.is_file():
            raise MissingFile(f"published_pool={path} does not exist")
        try:
            with path.open("rb") as file:
                content = _PoolUnpickler(file).load()
            near, ids = (_array(content[key]) for key in ("train_hard_pool", "train_image_list"))
            places = near.astype(np.int64)
            if near.ndim != 2 or ids.shape != near.shape[:1] or (places != near).any():
                raise ValueError(f"train_hard_pool has shape {near.shape}, and train_image_list {ids.shape}")
            if len(near) and (places.min() < 0 or places.max() >= len(ids)):
                raise ValueError("train_hard_pool holds numbers of no image")
        except (*_DAMAGE, OSError, OverflowError, RecursionError, MemoryError) as error:
            raise UserError(f"published_pool={path} is damaged or no hard pool of 12-in-1 ({error})") from error
        return cls(path, places, ids.astype(np.int64))

    def for_images(self, names: Sequence[str]) -> np.ndarray:
        """The neighbours (M, K) int32 of images by their numbers in `names`, without themselves.

        names: as in COCO_train2014_000000110100.jpg or 140001.jpg; the last digits are the number in the data set.
        Images that only one of both sides has are counted in a warning; rows of others close the gap, and end in NONE.
        """
        numbers = [_number(name) for name in names]
        if repeated := next((number for number, count in Counter(numbers).items() if count > 1), None):
            raise UserError(f"published_pool={self.path}: several images of the data set have the number {repeated}")
        row_of = {number: row for row, number in enumerate(numbers)}
        rows = np.array([row_of.get(number, NONE) for number in self.image_ids.tolist()], dtype=np.int64)
        kept = rows != NONE
        if not kept.any():
            raise UserError(f"published_pool={self.path} has no image of the data set, whose first one is {names[0]!r}")
        if (unknown := int((~kept).sum())) or kept.sum() < len(names):
            rank_zero_warn(
                f"{self.path}: {unknown:,} of its {len(rows):,} images are not in the data set, and "
                f"{len(names) - int(kept.sum()):,} of the {len(names):,} images of the data set are not in it"
            )
        near = np.full((len(names), self.near.shape[1]), NONE, dtype=np.int32)
        found = rows[self.near[kept]]
        out = (found == NONE) | (found == rows[kept][:, None])
        order = np.argsort(out, axis=1, kind="stable")
        near[rows[kept]] = np.take_along_axis(np.where(out, NONE, found), order, axis=1)
        return near[:, (near != NONE).any(axis=0)]


def _number(name: str) -> int:
    """The last number in a name."""
    digits = re.findall(r"\d+", Path(name).stem)
    if not digits:
        raise UserError(f"published_pool: the image {name!r} has no number, by which the published pool knows it")
    return int(digits[-1])


# -- the pickle


class _Dtype:
    """A type of numbers as NumPy pickles it."""

    def __init__(self, code: str, *_: Any):
        if not re.fullmatch(r"[iuf][248]", code):
            raise ValueError(f"it holds an array of type {code!r}, not of numbers")
        self.code, self.order = code, "<"

    def set_state(self, state: Sequence[Any]) -> None:
        self.order = ">" if state[1] == ">" else "<"

    def values(self, content: Any) -> np.ndarray:
        return np.frombuffer(
            content if isinstance(content, bytes) else content.encode("latin1"), self.order + self.code
        )


class _Array:
    """An array as NumPy pickles it: first empty, then with its state."""

    def __init__(self, *_: Any):
        self.value = np.empty(0)

    def set_state(self, state: Sequence[Any]) -> None:
        _, shape, dtype, is_fortran, content = state
        self.value = dtype.values(content).reshape(tuple(shape), order="F" if is_fortran else "C")


def _scalar(dtype: _Dtype, content: Any) -> float:
    return dtype.values(content)[0].item()


def _encode(text: str, _: str) -> bytes:
    return text.encode("latin1")


def _array(value: Any) -> np.ndarray:
    return value.value if isinstance(value, _Array) else np.array([int(number) for number in value])


_CALLABLE: dict[tuple[str, str], Callable[..., Any]] = {("numpy", "dtype"): _Dtype, ("_codecs", "encode"): _encode}
_CALLABLE |= {(module, "_reconstruct"): _Array for module in _NUMPY} | {
    (module, "scalar"): _scalar for module in _NUMPY
}


class _PoolUnpickler(Unpickler):
    """Reads a pickle of plain values and arrays without importing any of its names."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        return _CALLABLE.get((module, name), StandIn)

    def _set_state(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], _Array | _Dtype):
            self.stack[-1].set_state(state)

    dispatch[pickle.BUILD[0]] = _set_state
