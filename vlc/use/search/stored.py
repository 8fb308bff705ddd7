"""An index on disk: the content of its files, how they are written, and how they are read with their checksums."""

import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from torch import Tensor, nn

from vlc.common.errors import DamagedIndex
from vlc.data.identity import FileIdentity
from vlc.data.rows import Location
from vlc.evaluation.metrics import check_finite
from vlc.use.model import Model
from vlc.use.shards import UNFINISHED
from vlc.use.vectors import build

_PLACE = [("source", pa.string()), ("dataset", pa.string()), ("row", pa.int64()), ("text", pa.string())]
_IDENTITY = [("size", pa.int64()), ("changed", pa.int64()), ("file_checksum", pa.string())]  # identity of the source
_CHECKSUM = [("checksum", pa.uint32())]  # checksum of the other values, and of the place's number
_PLACES = pa.schema(_PLACE + _CHECKSUM)  # texts, and images of older indexes, which have no identity of the files
_SCHEMAS = {"images": pa.schema(_PLACE + _IDENTITY + _CHECKSUM), "texts": _PLACES}
Stored: TypeAlias = tuple[Location, FileIdentity | None]  # None: a text, or an image of an older index
_FILES = re.compile(r"index\.json|(images|texts)\.(arrow|\d+\.faiss)")


def fingerprint(model: Model) -> str:
    """Return a hash of the weights that make embeddings, as indexes of other weights cannot be searched."""
    return weights_hash(model.module.encoder, model.contrast)


def weights_hash(*parts: nn.Module) -> str:
    """Return the SHA-256 of names and weights."""
    digest = hashlib.sha256()
    for part in parts:
        for name, tensor in part.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()


def checksum_of(value: Any) -> int:
    """Return the CRC-32 of a plain value. It finds damage, not intent."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def is_index(folder: Path, *, unfinished: bool = False) -> bool:
    """Whether a folder holds files of an index, perhaps not all, and nothing else, so that it may be replaced.

    unfinished: the shards of one that is being built are enough.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    files = names - {UNFINISHED}
    return bool(names if unfinished else files) and all(map(_FILES.fullmatch, files))


def place_schema(kind: str) -> pa.Schema:
    """Return the columns of a place without its checksum."""
    schema = _SCHEMAS[kind]
    return schema.remove(schema.get_field_index("checksum"))


def recover(folder: Path) -> None:
    """Restore an index whose replacement was killed between its two renames."""
    old = folder.with_name(f".{folder.name}.old")
    if old.is_dir() and not folder.exists():
        os.rename(old, folder)


@contextmanager
def appearing_whole(folder: Path) -> Iterator[Path]:
    """Yield a partial folder, which replaces the folder of this name when the block ends without exception."""
    partial, old = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "old"))
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            os.rename(folder, old)
        os.rename(partial, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_kind(
    folder: Path, kind: str, batches: Iterable[tuple[Sequence[tuple], Tensor]], width: int
) -> tuple[int, dict[str, Any]]:
    """Index batches of places and vectors (B, D) under a name; returns the number of places, and the checksums.

    The values of an image's place are followed by the identity of its file.
    """
    count, checksum, schema = 0, 0, _SCHEMAS[kind]
    path = folder / f".{kind}.vectors"
    with path.open("wb") as file, pa.ipc.new_file(str(folder / f"{kind}.arrow"), schema) as writer:
        for places, embedded in batches:
            check_finite({f"the embeddings of {kind}": embedded})
            file.write(np.ascontiguousarray(embedded.float().cpu().numpy()).data)
            rows = [
                dict(zip(schema.names, (*place, checksum_of([number, *place])), strict=True))
                for number, place in enumerate(places, start=count)
            ]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
            checksum = zlib.crc32(np.array([row["checksum"] for row in rows], dtype=np.uint32).data, checksum)
            count += len(places)
    files = build(np.memmap(path, np.float32, "r", shape=(count, width)), folder, kind) if count else {}
    path.unlink()
    return count, {"files": files, "places": checksum}


_OLDER = {"checkpoint", "image_size", "fingerprint"}  # keys of an older index.json, besides counts; it has no checksums


def read_json(path: Path) -> dict[str, Any]:
    try:
        made_by = json.loads(path.read_bytes())
        if not isinstance(made_by, dict):
            raise ValueError("it holds no keys")
        if set(made_by) - {"images", "texts"} == _OLDER:
            return made_by
        if made_by.pop("checksum", None) != checksum_of(made_by):
            raise ValueError("its checksum is another")
    except (OSError, RecursionError) as error:
        raise DamagedIndex(f"{path} cannot be read ({error})") from error
    except ValueError as error:
        raise DamagedIndex(f"{path} is damaged: {error}") from error
    return made_by


def read_places(path: Path, count: int, checksum: int | None) -> Callable[[int], Stored]:
    """Return a function from numbers to places, which raises DamagedIndex for a place that is damaged.

    checksum: of the checksums of all places, which is compared first; each place is compared when it is read. None: an
        older index, which has no checksums.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        fits = (
            table.schema in _SCHEMAS.values() if checksum is not None else table.schema.names == list(Location._fields)
        )
        if not fits or len(table) != count:
            raise ValueError(f"it holds {len(table)} places, and {count} were written")
        if checksum is not None and zlib.crc32(table["checksum"].to_numpy()) != checksum:
            raise ValueError("its checksum is another")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedIndex(f"{path} is damaged or missing: {error}") from error

    def place(number: int) -> Stored:
        row = table.slice(number, 1)
        try:
            row.validate(full=True)  # before it is read: lengths may point anywhere
            (values,) = row.to_pylist()
            if checksum is not None and values.pop("checksum") != checksum_of([number, *values.values()]):
                raise ValueError("its checksum is another")
        except (pa.ArrowException, ValueError) as error:
            raise DamagedIndex(f"{path} is damaged: place {number}: {error}") from error
        stored = list(values.values())
        place, identity = stored[: len(_PLACE)], stored[len(_PLACE) :]
        return Location(*place), FileIdentity(*identity) if identity else None

    return place
