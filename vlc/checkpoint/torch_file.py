"""PyTorch's files, read without running anything that they hold and without allocating more than they contain.

The pickle inside may name only a short list of functions; every other name becomes an inert stand-in. Tensors are read
when they are loaded, and compared with the checksums that the zip format has for every record.
"""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from vlc.common.errors import UserError

ZIP_START = b"PK\x03\x04"
LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the number with which files before torch 1.6 begin
_PICKLE_LIMIT = 2**25  # bytes; the pickle of a checkpoint with an optimiser's state has some hundred thousand
_INFLATION = 16  # the most bytes that a zip file may hold for each of its own; torch does not compress
_CHUNK = 2**22


class TensorWithoutReader:
    """Takes the place of a tensor that is not read: quantised, sparse, nested, or without content."""


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in an open file, as the file describes it."""

    storage: "_Storage"
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def check(self) -> None:
        """Raise ValueError where the description does not fit the bytes that the file has for it."""
        numbers = (self.offset, *self.shape, *self.stride)
        if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
            raise ValueError("a tensor's shape or place is not made of natural numbers")
        count, last = prod(self.shape), self.offset
        if len(self.shape) != len(self.stride):
            raise ValueError(f"a tensor has {len(self.shape)} axes and {len(self.stride)} strides")
        if count:
            last += sum((length - 1) * stride for length, stride in zip(self.shape, self.stride, strict=True)) + 1
        available = self.storage.num_bytes // self.dtype.itemsize
        if max(count, last) > available:
            raise ValueError(f"a tensor of {self.shape} wants more values than the {available} that are stored for it")

    def load(self) -> Tensor:
        """Return the tensor on the CPU; tensors of one storage share its memory. Raises ValueError and BadZipFile."""
        self.check()
        empty = torch.empty(0, dtype=self.dtype)
        return empty.set_(self.storage.load(), self.offset, tuple(self.shape), tuple(self.stride))


class _Storage:
    """Bytes of a file that tensors share."""

    def __init__(self, num_bytes: int, open_bytes: Callable[[], io.BufferedIOBase | io.RawIOBase]):
        self.num_bytes, self._open_bytes = num_bytes, open_bytes
        self._loaded: torch.UntypedStorage | None = None

    def load(self) -> torch.UntypedStorage:
        if self._loaded is None:
            content = torch.empty(self.num_bytes, dtype=torch.uint8)
            view, place = content.numpy().data, 0
            with self._open_bytes() as file:
                while place < self.num_bytes:
                    count = file.readinto(view[place : place + _CHUNK])
                    if not count:
                        raise EOFError("the file ends inside a tensor")
                    place += count
                file.read(1)  # a record's checksum is compared at its end
            self._loaded = content.untyped_storage()
        return self._loaded


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yield the content of a file of torch.save with a StoredTensor for every tensor; the block may load these.

    Raises the errors of zipfile and pickle for damaged files, ValueError for contents that do not fit, and UserError for
    a TorchScript program.
    """
    if _is_legacy(path):
        yield _read_legacy(path)
    else:
        with zipfile.ZipFile(path) as archive:
            yield _read_zip(path, archive)


def _is_legacy(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(LEGACY_START)) == LEGACY_START


def verify(path: str | Path) -> None:
    """Compare every record of a torch file with its checksum; files before torch 1.6 have none. Raises UserError."""
    path = Path(path)
    try:
        if _is_legacy(path):
            return
        with zipfile.ZipFile(path) as archive:
            _check_directory(path, archive)
            if bad := archive.testzip():
                raise ValueError(f"its record {bad} does not match its checksum")
    except (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}. Take an earlier checkpoint, or copy the file again.") from error


def _check_directory(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise ValueError for an archive that declares more than its file can hold, or has two records of one name.

    torch has an option to write no checksums: then all are 0, and none is compared.
    """
    records, size = archive.infolist(), path.stat().st_size
    declared = sum(record.file_size for record in records)
    if declared > _INFLATION * size:
        raise ValueError(f"it has {size:,} bytes and declares to hold {declared:,}")
    if len(archive.NameToInfo) < len(records):
        raise ValueError("two of its records have the same name")
    if not any(record.CRC for record in records):
        for record in records:
            record.CRC = None  # type: ignore[assignment]  # zipfile then compares nothing


def _read_zip(path: Path, archive: zipfile.ZipFile) -> Any:
    _check_directory(path, archive)
    names = archive.NameToInfo
    root = next((name.removesuffix("data.pkl") for name in names if name.rpartition("/")[2] == "data.pkl"), None)
    if root is None:
        raise ValueError("it is a zip archive, but not one that torch.save writes (it has no data.pkl)")
    if f"{root}constants.pkl" in names:
        raise UserError(f"{path} is a TorchScript program: save the state_dict() of its module with torch.save instead")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise ValueError("its numbers are not stored in little-endian order")

    storages: dict[str, _Storage] = {}

    def storage(dtype: torch.dtype, key: str, count: int, *_: Any) -> _Storage:
        record = names[f"{root}data/{key}"]
        if count * _item_size(dtype) > record.file_size:
            raise ValueError(
                f"record {key} has {record.file_size:,} bytes, fewer than the {count:,} values it should hold"
            )
        # What `open` returns is a ZipExtFile; its declared type lacks readinto.
        return storages.setdefault(key, _Storage(record.file_size, lambda: archive.open(record)))  # type: ignore[arg-type, return-value]

    pickled = names[f"{root}data.pkl"]
    if pickled.file_size > _PICKLE_LIMIT:
        raise ValueError(f"its description has {pickled.file_size:,} bytes, more than {_PICKLE_LIMIT:,}")
    return Unpickler(io.BytesIO(archive.read(pickled)), storage).load()


def _read_legacy(path: Path) -> Any:
    """Read the format before torch 1.6: four pickles, then the storages, each behind its number of values."""
    size = path.stat().st_size
    storages: dict[str, tuple[int, _Storage]] = {}

    def storage(dtype: torch.dtype, key: str, count: int, view: Any = None) -> _Storage:
        if view is not None:
            raise ValueError("it stores views in a way that torch has long given up")
        num_bytes = count * _item_size(dtype)
        if num_bytes > size:
            raise ValueError(f"a storage declares {num_bytes:,} bytes, and the file has {size:,}")
        return storages.setdefault(key, (_item_size(dtype), _Storage(num_bytes, lambda: opened_at(starts[key]))))[1]

    def opened_at(start: int) -> io.BufferedReader:
        file = path.open("rb")
        file.seek(start)
        return file

    starts: dict[str, int] = {}
    with path.open("rb") as file:
        pickles = io.BytesIO(file.read(_PICKLE_LIMIT))
        pickles.seek(len(LEGACY_START))
        _, system, content, keys = (Unpickler(pickles, storage).load() for _ in range(4))
        if not (isinstance(system, dict) and system.get("little_endian") is True):
            raise ValueError("its numbers are not stored in little-endian order")
        file.seek(pickles.tell())
        for key in keys:
            item_size, stored = storages[key]
            if int.from_bytes(file.read(8), "little") * item_size != stored.num_bytes:
                raise ValueError(f"storage {key} is not as long as it should be")
            starts[key] = file.tell()
            file.seek(stored.num_bytes, io.SEEK_CUR)
        if file.tell() > size:
            raise EOFError("the file ends inside a tensor")
    return content


# -- the pickle


class StandIn(dict):
    """Takes the place of every other class or function that a file names, and of its instances: it does nothing."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # a dict has None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()

    def __call__(self, *args: Any, **kwargs: Any) -> "StandIn":
        return self

    def append(self, item: Any) -> None:
        """Ignore an item that a pickle adds to a list or set of another class."""

    extend = add = append


class _Mapping(StandIn):
    """An OrderedDict; its attributes are left out."""

    def __init__(self, items: Any = ()):
        super().__init__()
        self.update(items)


class _Tuple(tuple):
    """A tuple that is hashed by its identity: hashing deeply nested content could take for ever or overrun the stack."""

    __hash__ = object.__hash__


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> StoredTensor:
    dtype, stored = storage
    return StoredTensor(stored, dtype, offset, _numbers(shape), _numbers(stride))


def _numbers(value: Any) -> _Tuple:
    return _Tuple(value) if isinstance(value, tuple | list) else _Tuple((value,))


_CALLABLE: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _Mapping,
    ("torch", "Size"): _numbers,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): lambda *words: replace(_tensor(*words), dtype=words[6]),
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda tensor, *_: tensor,
    ("torch._tensor", "_rebuild_from_type_v2"): lambda function, kind, arguments, state: function(*arguments),
}
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
}


def _item_size(dtype: Any) -> int:
    if not isinstance(dtype, torch.dtype):
        raise ValueError("a storage is of no type that torch has")
    return dtype.itemsize


# Operations that torch never writes. They allocate by a stated length, or refer to buffers and classes of this process.
_NEVER_WRITTEN = pickle.BYTEARRAY8 + pickle.NEXT_BUFFER + pickle.READONLY_BUFFER + pickle.PERSID
_NEVER_WRITTEN += pickle.EXT1 + pickle.EXT2 + pickle.EXT4


def _join_last(count: int, unpickler: "Unpickler") -> None:
    unpickler.stack[-count:] = [_Tuple(unpickler.stack[-count:])]


class Unpickler(pickle._Unpickler):  # the one written in Python, whose table of operations can be changed
    """Reads a pickle without importing any of its names, and calls only the functions above.

    storage: returns a storage by dtype, key and number of values; None: the pickle refers to no storages.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        key: load for key, load in pickle._Unpickler.dispatch.items() if key not in _NEVER_WRITTEN
    }

    def __init__(self, file: Any, storage: Callable[..., _Storage] | None = None):
        super().__init__(file, encoding="latin1")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.cuda", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        if module == "torch._utils" and name.startswith("_rebuild_"):
            return _CALLABLE.get((module, name), lambda *_: TensorWithoutReader())
        return _CALLABLE.get((module, name), StandIn)

    def persistent_load(self, pid: Any) -> tuple[torch.dtype, _Storage]:
        kind, dtype, key, _location, count, *view = pid
        valid = kind in ("storage", b"storage") and isinstance(key, str) and type(count) is int and count >= 0
        if self._storage is None or not valid:
            raise pickle.UnpicklingError("a storage is described in a way that torch does not write")
        return dtype, self._storage(dtype, key, count, *view)

    def _build(self) -> None:
        self.stack.pop()  # attributes, which are ignored

    def _tuple(self) -> None:
        items = self.pop_mark()
        self.append(_Tuple(items))

    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.TUPLE[0]] = _tuple
    dispatch[pickle.TUPLE1[0]] = partial(_join_last, 1)
    dispatch[pickle.TUPLE2[0]] = partial(_join_last, 2)
    dispatch[pickle.TUPLE3[0]] = partial(_join_last, 3)
