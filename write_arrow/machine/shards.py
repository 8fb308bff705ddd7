"""Formats of the files that are written: Arrow, and for labelled images Parquet and WebDataset.

Each file carries the mark of its conversion (`vlc.data.identity`) and checksums (`vlc.data.checksums`) where its
readers do not see them: Arrow and Parquet in the footer and in the metadata of record batches, tar files in a global header
and in KEY.json.
"""

import io
import json
import tarfile
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vlc.data.checksums import (
    FILE,
    IMAGE_CHECKSUM,
    ROW_CHECKSUM,
    UNKNOWN,
    ChecksummedFile,
    batch_metadata,
    metadata_checksum,
    row_checksum,
)
from vlc.data.identity import Mark
from vlc.data.images import FORMATS, UndecodableImage, opened

ROW_GROUP = 64  # rows: what has to be decoded to read one image


class FileFormat(NamedTuple):
    """A kind of file.

    suffix: the end of its name.
    open: takes the file to write, the schema and the mark; returns a context manager with write_batch(record batch).
    """

    suffix: str
    open: Callable[[BinaryIO, pa.Schema, Mark | None], AbstractContextManager[Any]]


def _metadata(mark: Mark | None) -> dict[str, str]:
    return {**(mark.metadata() if mark else {}), FILE.decode(): UNKNOWN.decode()}


class _Arrow:
    def __init__(self, file: BinaryIO, schema: pa.Schema, mark: Mark | None):
        self._file = ChecksummedFile(file)
        self._writer = pa.ipc.new_file(self._file, schema, metadata=_metadata(mark))

    def write_batch(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch, custom_metadata=batch_metadata(batch))

    def __enter__(self) -> "_Arrow":
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        self._file.begin_footer()
        self._writer.close()
        if kind is None:
            self._file.finish()


class _Parquet(pq.ParquetWriter):
    """Small row groups; images are not compressed again."""

    def __init__(self, file: BinaryIO, schema: pa.Schema, mark: Mark | None):
        encoded = {field.name for field in schema if pa.types.is_binary(field.type)}
        self._checksummed = ChecksummedFile(file)
        super().__init__(
            self._checksummed,
            schema,
            compression={name: "NONE" if name in encoded else "ZSTD" for name in schema.names},
            write_page_checksum=True,
        )
        self.add_key_value_metadata(_metadata(mark))

    def write_batch(self, batch: pa.RecordBatch) -> None:
        super().write_batch(batch, ROW_GROUP)

    def __exit__(self, kind: type | None, *error: Any) -> None:
        self._checksummed.begin_footer()
        super().__exit__(kind, *error)
        if kind is None:
            self._checksummed.finish()


class _WebDataset(tarfile.TarFile):
    """A tar file of KEY.jpg, KEY.cls and KEY.json for each row; KEY is the number of the row.

    The columns are image, label, and whatever else; KEY.json has them but for the image, and the checksums of both.
    """

    def __init__(self, file: BinaryIO, schema: pa.Schema, mark: Mark | None):
        metadata = mark.metadata() if mark else {}
        if mark:
            metadata[FILE.decode()] = metadata_checksum(metadata)
        super().__init__(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers=metadata)
        self.num_rows = 0

    def write_batch(self, batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            image = row.pop("image")
            row |= {IMAGE_CHECKSUM: zlib.crc32(image), ROW_CHECKSUM: row_checksum(row)}
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
        with opened(io.BytesIO(image)) as picture:
            # Pillow calls a JPEG with further pictures behind it MPO.
            kind = "JPEG" if picture.format == "MPO" else picture.format
    except UndecodableImage:
        kind = "JPEG"
    return FORMATS[kind][0].removeprefix(".")


ARROW = FileFormat(".arrow", _Arrow)
FILE_FORMATS = {
    "arrow": ARROW,
    "parquet": FileFormat(".parquet", _Parquet),
    "webdataset": FileFormat(".tar", _WebDataset),
}
