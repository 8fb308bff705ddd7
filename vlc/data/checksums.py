"""Checksums that our writers leave in their files, all of them CRC-32 as zlib computes it.

An Arrow file has a checksum for each image and for each other column in the metadata of its record batches, so that one
image can be verified without its neighbours, and a checksum of all its bytes in the footer. A Parquet file has a checksum
for each page, which pyarrow verifies, and one of all its bytes. A tar file has a checksum of each image and of each row's
values in KEY.json, and one of its global header. When Arrow's own programs copy a table, they drop all of these.
"""

import base64
import io
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa

IMAGES, COLUMNS = b"vlc.images", b"vlc.columns"  # keys in the metadata of a record batch
FILE = b"vlc.crc32"  # key in the metadata of a file
IMAGE_CHECKSUM, ROW_CHECKSUM = "image_crc32", "row_crc32"  # keys in KEY.json of a tar file
UNKNOWN = b"crc32=00000000"  # its value until all bytes are known
_FILE_CHECKSUM = re.compile(rb"crc32=([0-9a-f]{8})")
_OURS = b"vlc."  # the beginning of all these keys
_CHUNK = 1 << 20


class DamagedData(ValueError):
    """Bytes that do not have the checksum they were written with."""


def column_checksum(column: pa.Array) -> int:
    """The checksum of a whole column of a record batch as it lies in a file."""
    checksum = zlib.crc32(len(column).to_bytes(8, "little"))
    for buffer in column.buffers():
        size = -1 if buffer is None else buffer.size
        checksum = zlib.crc32(size.to_bytes(8, "little", signed=True), checksum)
        checksum = checksum if buffer is None else zlib.crc32(buffer, checksum)
    return checksum


def batch_metadata(batch: pa.RecordBatch) -> dict[bytes, bytes]:
    """The checksums of a record batch that is about to be written, by key."""
    images = [field.name for field in batch.schema if pa.types.is_binary(field.type)]
    rest = batch.select([name for name in batch.schema.names if name not in images])
    if rest.num_columns:  # in the layout that it will have in the file
        rest = pa.ipc.read_record_batch(rest.serialize(), rest.schema)
    columns = {name: column_checksum(column) for name, column in zip(rest.schema.names, rest.columns, strict=True)}
    of_images = {name: _packed(_images(batch.column(name))) for name in images}
    return {IMAGES: json.dumps(of_images).encode(), COLUMNS: json.dumps(columns).encode()}


def _images(column: pa.BinaryArray) -> Iterable[pa.Buffer | None]:
    return (image.as_buffer() for image in column)


def image_checksum(image: pa.Buffer | bytes | None) -> int:
    return 0 if image is None else zlib.crc32(image)


def _packed(images: Iterable[pa.Buffer | None]) -> str:
    checksums = list(map(image_checksum, images))
    return base64.b64encode(np.array(checksums, dtype="<u4").data).decode()


class BatchChecksums(NamedTuple):
    """images: column -> (rows,) uint32; columns: column -> its checksum."""

    images: dict[str, np.ndarray]
    columns: dict[str, int]

    def holds(self, column: str, row: int, image: pa.Buffer | bytes | None) -> bool:
        """Whether an image is as it was written."""
        expected = self.images.get(column)
        return expected is None or image_checksum(image) == expected[row]


def batch_checksums(metadata: Mapping[bytes, bytes] | None) -> BatchChecksums | None:
    """The checksums in the metadata of a record batch; None where our writer left none.

    Raises DamagedData where they cannot be read.
    """
    if metadata is None or not any(key.startswith(_OURS) for key in metadata.keys()):
        return None
    try:
        images, columns = json.loads(metadata[IMAGES]), json.loads(metadata[COLUMNS])
        unpacked = {
            name: np.frombuffer(base64.b64decode(packed, validate=True), "<u4") for name, packed in images.items()
        }
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise DamagedData(f"the checksums of a record batch cannot be read: {error}") from error
    return BatchChecksums(unpacked, columns)


def verify_columns(batch: pa.RecordBatch, checksums: BatchChecksums, names: Iterable[str]) -> None:
    """Raises DamagedData where a column of a record batch is not as it was written. Images are looked at one by one."""
    for name in names:
        if name in checksums.images:
            if len(checksums.images[name]) != batch.num_rows:
                raise DamagedData(f"column {name} has more or fewer checksums than rows")
        elif column_checksum(batch.column(name)) != checksums.columns.get(name):
            raise DamagedData(f"column {name} does not have the checksum it was written with")


def metadata_checksum(metadata: Mapping[str, str]) -> str:
    """The checksum of the global header of a tar file, which itself is left out."""
    values = sorted((key, value) for key, value in metadata.items() if key != FILE.decode())
    return f"{zlib.crc32(json.dumps(values).encode()):08x}"


def row_checksum(row: Mapping[str, Any]) -> int:
    """The checksum of the values of a row in KEY.json of a tar file; checksums among them are left out."""
    values = {key: value for key, value in row.items() if key not in (IMAGE_CHECKSUM, ROW_CHECKSUM)}
    return zlib.crc32(json.dumps(values).encode())


class ChecksummedFile(io.RawIOBase):
    """A file to write to, which puts the checksum of all its bytes into the footer, where UNKNOWN stands.

    `begin_footer` is called before the footer is written, `finish` after it.
    """

    def __init__(self, file: BinaryIO):
        super().__init__()
        self._file, self._position, self._checksum = file, 0, 0
        self._footer, self._in_footer = bytearray(), False

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data) -> int:
        self._checksum = zlib.crc32(data, self._checksum)
        size = memoryview(data).nbytes
        self._position += size
        if self._in_footer:
            self._footer += data
        else:
            self._file.write(data)
        return size

    def begin_footer(self) -> None:
        self._in_footer = True

    def finish(self) -> None:
        assert self._footer.count(UNKNOWN) == 1
        self._file.write(self._footer.replace(UNKNOWN, b"crc32=%08x" % self._checksum))


def verify_file(file: BinaryIO, size: int) -> bool:
    """Whether an Arrow or Parquet file has a checksum of all its bytes; reads it whole, in pieces.

    Raises DamagedData where it does not hold.
    """
    start = _footer_start(file, size)
    file.seek(start)
    footer = file.read(size - start)
    found = _FILE_CHECKSUM.search(footer)
    if found is None:
        if _OURS in footer:
            raise DamagedData("the checksum of the file cannot be read")
        return False
    file.seek(0)
    checksum, left = 0, start
    while left:
        chunk = file.read(min(_CHUNK, left))
        if not chunk:
            raise DamagedData("the file is shorter than it was")
        checksum, left = zlib.crc32(chunk, checksum), left - len(chunk)
    blank = footer[: found.start()] + UNKNOWN + footer[found.end() :]
    if zlib.crc32(blank, checksum) != int(found[1], 16):
        raise DamagedData("the file does not have the checksum it was written with")
    return True


def _footer_start(file: BinaryIO, size: int) -> int:
    """Where the last part of a file begins that holds the footer, whatever its length says."""
    file.seek(max(size - 10, 0))
    end = file.read(10)
    length = int.from_bytes(end[:4] if end.endswith(b"ARROW1") else end[2:6], "little")
    return max(0, size - max(min(length + 10, size), 4096))
