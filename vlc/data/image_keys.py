"""Keys of images, such as coco:391895, by which rows of different data sets about one image are found.

A key is a collection and the number of the image in it. Data sets spell the number in several ways (391895,
COCO_val2014_000000391895.jpg, train2014/COCO_train2014_000000391895.jpg), which have the same key. Flickr's own file
names have a secret behind the number (27124904596_dec278e7e8.jpg).
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vlc.common.errors import UserError
from vlc.data.ipc import in_plain_layout, record_batches
from vlc.data.spec import DatasetSpec

# GQA has images of its own, whose numbers begin with n. A secret of Flickr has ten hexadecimal digits.
_NUMBER = r"(?:^|[/_])0*(?P<id>n?[0-9]+)(?:_[0-9a-f]{10})?(?:\.\w+)?$"
_NAME = r"(?:^|/)(?P<id>[^/]+?)(?:\.[A-Za-z]\w*)?$"


def image_keys(names: pa.Array, collection: str, *, numbered: bool = True) -> pa.Array:
    """The keys (N,) string of images, null where a value names no image.

    names (N,): numbers, or names of files.
    numbered: as in `ImageKey`.
    """
    names = in_plain_layout(names)
    if not pa.types.is_large_string(names.type):
        names = names.cast(pa.string())
    found = pc.extract_regex(names, _NUMBER if numbered else _NAME)
    return pc.binary_join_element_wise(collection, pc.struct_field(found, "id").cast(pa.string()), ":")


def keys_of_rows(path: Path, dataset: str, spec: DatasetSpec, split: str) -> Iterator[pa.Array]:
    """The keys of the images of a file's rows, an array (rows,) string for each record batch. Nothing else is read.

    Raises UserError where the file lacks the column that names them, or a row names none; pyarrow's errors, OSError or
    ValueError where it is damaged.
    """
    key = spec.image_key
    assert key is not None
    collection = key.elsewhere.get(split, key.collection)
    again = f"Write it again with: python -m write_arrow {spec.writer} --out {path.parent}"
    schema, batches = record_batches(path)
    if key.column not in schema.names:
        raise UserError(
            f"{path} has no column {key.column}, by which clean lists know the images of data set {dataset!r}. {again}"
        )
    if pa.types.is_nested(kind := schema.field(key.column).type):
        raise UserError(
            f"Column {key.column} of {path} has type {kind}, expected a number or a text that names the image"
        )
    first = 0
    for batch in batches:
        names = batch.column(key.column)
        names.validate(full=True)
        keys = image_keys(names, collection, numbered=key.numbered)
        if keys.null_count:
            row = keys.is_null().index(True).as_py()
            raise UserError(
                f"Row {first + row} of {path}: {key.column} is {names[row].as_py()!r:.80}, which names no image of "
                f"collection {collection}. {again}"
            )
        yield keys
        first += batch.num_rows
