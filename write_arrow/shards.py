"""Forms of the files that are written: Arrow, and for labelled images Parquet and WebDataset."""

import io
import json
import tarfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROW_GROUP = 64  # rows: what has to be decoded to read one image


class Form(NamedTuple):
    """A kind of file. open: (file to write, schema) -> a context manager with write_batch(record batch)."""

    suffix: str
    open: Callable[[BinaryIO, pa.Schema], AbstractContextManager[Any]]


class _Parquet(pq.ParquetWriter):
    """Small row groups; images are not compressed again."""

    def __init__(self, file: BinaryIO, schema: pa.Schema):
        encoded = {field.name for field in schema if pa.types.is_binary(field.type)}
        super().__init__(
            file, schema, compression={name: "NONE" if name in encoded else "ZSTD" for name in schema.names}
        )

    def write_batch(self, batch: pa.RecordBatch) -> None:
        super().write_batch(batch, ROW_GROUP)


class _WebDataset(tarfile.TarFile):
    """A tar file of KEY.jpg, KEY.cls and KEY.json for each row; KEY is the number of the row.

    The columns are image, label, and whatever else.
    """

    def __init__(self, file: BinaryIO, schema: pa.Schema):
        super().__init__(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)
        self.num_rows = 0

    def write_batch(self, batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            image = row.pop("image")
            for suffix, content in (
                (_suffix(image), image),
                ("cls", str(row["label"]).encode()),
                ("json", json.dumps(row).encode()),
            ):
                member = tarfile.TarInfo(f"{self.num_rows:08d}.{suffix}")
                member.size = len(content)
                self.addfile(member, io.BytesIO(content))
            self.num_rows += 1


def _suffix(image: bytes) -> str:
    """The usual suffix of an encoded image's kind; what cannot be recognised is called jpg."""
    try:
        kind = Image.open(io.BytesIO(image)).format
    except Exception:  # decoders raise whatever damaged bytes lead them to
        return "jpg"
    if kind in ("JPEG", "MPO"):
        return "jpg"
    return next(suffix for suffix, name in Image.registered_extensions().items() if name == kind)[1:]


ARROW = Form(".arrow", pa.ipc.new_file)
FORMS = {"arrow": ARROW, "parquet": Form(".parquet", _Parquet), "webdataset": Form(".tar", _WebDataset)}
