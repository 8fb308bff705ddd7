"""Arrow IPC files as memory-mapped record batches, whoever wrote them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from vlc.data.flatbuffer import MAGIC, Malformed, footer_blocks, inflated_size

_FIRST_MESSAGE = 8  # bytes, after the magic number and its padding
_STREAM_END = 8  # bytes that may stand before the footer
_FEATHER_1 = b"FEA1"
_LFS = b"version https://git-lfs"
# Compressed data may grow to so many bytes, or to so many times the file.
_INFLATED_MIB, _INFLATED_TIMES = 1024, 16


def open_mapped(path: str | Path) -> pa.MemoryMappedFile:
    """A file in memory; its name may be any that the file system allows. Raises OSError."""
    return pa.memory_map(os.fsencode(path))


def record_batches(path: Path) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """The schema of a file or stream and its record batches, views into the file; their contents are not read.

    Raises as `open_batches`, and where the layout of a record batch leaves gaps.
    """
    source = open_mapped(path)
    schema, count, batch = open_batches(source)
    batches = [batch(number) for number in range(count)]
    whole = _whole(source)
    for one in batches:
        one.validate()
        _check_layout(one, whole)
    return schema, batches


def open_batches(source: pa.NativeFile | BinaryIO) -> tuple[pa.Schema, int, Callable[[int], pa.RecordBatch]]:
    """The schema of an open file or stream, how many record batches it has, and a function that reads one by its number.

    The messages of a local file have to fill it: a flipped bit in the footer would lead elsewhere unnoticed. Compressed
    batches are inflated, if that stays within `inflation_limit`. Of remote files neither is looked at. Raises pyarrow's
    errors, or OSError or ValueError, if the file is damaged.
    """
    refuse_other_kinds(beginning := source.read(64))
    source.seek(0)
    whole = _whole(source) if isinstance(source, pa.MemoryMappedFile) else None
    if not beginning.startswith(MAGIC):
        if whole is not None:
            _refuse_inflation(_stream_messages(whole), whole.size)
        stream = pa.ipc.open_stream(source)
        batches = list(stream)
        return stream.schema, len(batches), batches.__getitem__
    reader = pa.ipc.open_file(source)
    if whole is not None:
        _refuse_inflation(_file_messages(whole), whole.size)
    return reader.schema, reader.num_record_batches, reader.get_batch


def _whole(source: pa.MemoryMappedFile) -> pa.Buffer:
    source.seek(0)
    whole = source.read_buffer()
    source.seek(0)
    return whole


def _stream_messages(whole: pa.Buffer) -> Iterator[tuple[pa.Buffer, pa.Buffer]]:
    """Metadata and body of the messages of a stream that hold data."""
    for message in pa.ipc.MessageReader.open_stream(whole):
        if message.type in ("record batch", "dictionary"):
            yield message.metadata, message.body


def _file_messages(whole: pa.Buffer) -> Iterator[tuple[pa.Buffer, pa.Buffer]]:
    """The messages of a file that hold data, as in `_stream_messages`.

    The messages that the footer lists have to lie one behind the other up to the footer; otherwise it raises Malformed. The
    footer holds the schema too, so the message with the schema, which comes first, takes no more room than the footer.
    """
    blocks, end = footer_blocks(memoryview(whole))
    starts = [*(block.offset for block in blocks), end]
    if starts[0] > _FIRST_MESSAGE + (whole.size - end) + 64:
        raise Malformed("there is a gap before the first message")
    for block, following in zip(blocks, starts[1:], strict=True):
        gap = following - block.end
        if min(block.offset - _FIRST_MESSAGE, block.metadata - 8, block.body, gap) < 0 or gap >= 64 + _STREAM_END:
            raise Malformed("messages overlap or leave a gap")
        metadata = _without_length(whole.slice(block.offset, block.metadata))
        yield metadata, whole.slice(block.offset + block.metadata, block.body)


def _without_length(metadata: pa.Buffer) -> pa.Buffer:
    """A message begins with its length, since version 0.15 of the format after a mark of four bytes."""
    return metadata.slice(8 if bytes(metadata[:4]) == b"\xff" * 4 else 4)


def refuse_other_kinds(beginning: bytes) -> None:
    """Raises ValueError where a file begins as a kind that is sometimes taken for Arrow's, or for Parquet's or tar's."""
    if beginning.startswith(_LFS):
        raise ValueError("it is a pointer of Git LFS, which stands for the file: fetch that with `git lfs pull`")
    if beginning.startswith(_FEATHER_1):
        raise ValueError("it is a Feather file of version 1: write it again with pyarrow.feather.write_feather")


def inflation_limit(file_size: int) -> int:
    """Bytes that the compressed data of a file may grow to; VLC_MAX_INFLATED_MIB raises it."""
    mebibytes = int(os.environ.get("VLC_MAX_INFLATED_MIB", _INFLATED_MIB))
    return max(mebibytes * 2**20, _INFLATED_TIMES * file_size)


def _refuse_inflation(messages: Iterator[tuple[pa.Buffer, pa.Buffer]], file_size: int) -> None:
    """Compressed data are kept in memory as a whole, so the sizes that they declare are added up beforehand."""
    declared, limit = 0, inflation_limit(file_size)
    for metadata, body in messages:
        declared += inflated_size(memoryview(metadata), memoryview(body))
        if declared > limit:
            raise ValueError(inflation_refusal(file_size, declared))


def inflation_refusal(file_size: int, declared: int) -> str:
    return (
        f"its {file_size:,} bytes are compressed and would grow to {declared:,} or more; if that is meant, set the "
        "environment variable VLC_MAX_INFLATED_MIB to a higher limit"
    )


def _check_layout(batch: pa.RecordBatch, file: pa.Buffer) -> None:
    """The buffers of a record batch lie one behind the other, aligned to 8 or 64 bytes: nothing else points to data.

    They are aligned with the beginning of the file or of the record batch.
    """
    first = end = None
    for buffer in (buffer for column in batch.columns for buffer in column.buffers() if buffer):
        if not file.address <= buffer.address < file.address + file.size:  # compressed, so elsewhere by now
            return
        if end is None:
            first = buffer.address
        else:
            gap = buffer.address - end
            aligned = buffer.address % 64 == 0 or (buffer.address - first) % 64 == 0
            if not (0 <= gap < 8 or (0 <= gap < 64 and aligned)):
                raise pa.ArrowInvalid("buffers of a record batch overlap or leave a gap")
        end = buffer.address + buffer.size


# -- types: several of them hold the same


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def is_any_list(kind: pa.DataType) -> bool:
    views = pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    return is_list(kind) or views or pa.types.is_fixed_size_list(kind)


def _is_view(kind: pa.DataType) -> bool:
    return pa.types.is_string_view(kind) or pa.types.is_binary_view(kind)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds strings, or lists of strings, in any of their layouts.

    Nulls count as both texts and bytes: pandas writes the columns of a table without rows in that type.
    """
    kind = _plain(kind)
    text = _plain(kind.value_type) if is_any_list(kind) else kind
    return (
        pa.types.is_string(text)
        or pa.types.is_large_string(text)
        or pa.types.is_string_view(text)
        or pa.types.is_null(text)
    )


def is_binary(kind: pa.DataType) -> bool:
    """Whether a column holds bytes, in any of their layouts, or nulls."""
    kind = _plain(kind)
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_null(kind)
    )


def in_plain_layout(column: pa.Array) -> pa.Array:
    """The same values in a list, string or number array without views, dictionaries or fixed sizes: mostly itself.

    (pyarrow's own cast of list views loses values, so lists are put together here.)
    """
    kind = column.type
    if not needs_plain_layout(kind):
        return column
    if pa.types.is_dictionary(kind):
        return in_plain_layout(column.dictionary).take(column.indices)
    if _is_view(kind):
        return column.cast(pa.large_string() if pa.types.is_string_view(kind) else pa.large_binary())
    lengths = pc.fill_null(pc.list_value_length(column), 0).cast(pa.int64())
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])
    nulls = column.is_null() if column.null_count else None
    return pa.LargeListArray.from_arrays(offsets, in_plain_layout(column.flatten()), mask=nulls)


def needs_plain_layout(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind) or _is_view(kind):
        return True
    return is_any_list(kind) and (not is_list(kind) or needs_plain_layout(kind.value_type))
