"""Arrow IPC files as memory-mapped record batches."""

from pathlib import Path

import pyarrow as pa

_FIRST_MESSAGE = 8  # bytes, after the magic number and its padding


def record_batches(path: Path) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """The schema of a file and its record batches, views into the file; of what they contain nothing is read.

    The batches are read one after the other as the messages they are, and not where the footer says, which a flipped bit
    would send elsewhere unnoticed. Raises pyarrow's errors, or OSError, if the file is damaged.
    """
    source = pa.memory_map(str(path))
    footer = pa.ipc.open_file(source)
    source.seek(_FIRST_MESSAGE)
    messages = pa.ipc.open_stream(source)
    batches = list(messages)
    if len(batches) != footer.num_record_batches or not messages.schema.equals(footer.schema):
        raise pa.ArrowInvalid("the footer contradicts the contents")
    source.seek(0)
    whole = source.read_buffer()
    for batch in batches:
        batch.validate()
        _check_layout(batch, whole)
    return messages.schema, batches


def _check_layout(batch: pa.RecordBatch, file: pa.Buffer) -> None:
    """The buffers of a record batch lie one behind the other, aligned to 8 or 64 bytes: nothing else points to data."""
    end = None
    for buffer in (buffer for column in batch.columns for buffer in column.buffers() if buffer):
        if not file.address <= buffer.address < file.address + file.size:  # compressed, so elsewhere by now
            return
        if end is not None:
            gap = buffer.address - end
            if not (0 <= gap < 8 or (0 <= gap < 64 and buffer.address % 64 == 0)):
                raise pa.ArrowInvalid("buffers of a record batch overlap or leave a gap")
        end = buffer.address + buffer.size


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def is_text(kind: pa.DataType) -> bool:
    """Strings, or lists of strings."""
    text = kind.value_type if is_list(kind) else kind
    return pa.types.is_string(text) or pa.types.is_large_string(text) or pa.types.is_null(text)


def is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_null(kind)
