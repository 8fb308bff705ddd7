"""`python run.py features`: the pooled and the patch features of images, as tables.

They take the place of the features of detected regions that extractors write for other models (bottom-up attention,
Anderson et al. 2018, as in 12-in-1): the vectors of the patches are the image's part of what every head reads.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from vlc.common.errors import UserError
from vlc.configuration.use_settings import UseSettings
from vlc.data.rows import Images
from vlc.evaluation.metrics import check_finite
from vlc.use.cluster import run_on_ray
from vlc.use.model import Model, open_pretrained
from vlc.use.results import table_of, write_results
from vlc.use.search.stored import weights_hash
from vlc.use.shards import Failed, Process, Shard
from vlc.use.sources import computed_by, decoded, described, open_images, origin

FORMATS = ("arrow", "parquet")


class Features(NamedTuple):
    """The features of an image.

    pooled: (D,) float32.
    patches: (P, D) float16, row by row.
    grid: rows and columns of patches.
    """

    pooled: np.ndarray
    patches: np.ndarray
    grid: tuple[int, int]


def write_features(config: Mapping[str, Any], given: Collection[str], process: Process | None = None) -> dict[str, Any]:
    """Write the features of all images of data sets, or below a folder; returns the content of OUT/features.json.

    All processes that were started together compute them in shards (`vlc.use.shards`), and a call after an interruption
    goes on. Images that cannot be decoded are named, listed in rejected.jsonl and left out, up to a share of
    max_corrupt_ratio. Raises NonFiniteMetric where a feature is NaN or infinite.
    """
    use = UseSettings.from_config(config)
    if use.ray:
        return run_on_ray(write_features, config, given, use.ray, Path(use.out or ""))
    file_format = use.file_format or "arrow"
    if file_format not in FORMATS:
        raise UserError(f"file_format={file_format} holds no vectors: features are written as {' or '.join(FORMATS)}")
    model = open_pretrained(config, given)
    images = open_images(model.settings.data, use.image_folder, names=True)
    weights = weights_hash(model.module.encoder)
    encoder = model.module.encoder
    model_of = {"weights": weights, "image_size": encoder.image_size, "patch_size": encoder.size.patch_size}
    schema = _schema(encoder.size.width).with_metadata({key: str(value) for key, value in model_of.items()})
    plan = {"command": "features", "file_format": file_format, "weights": weights}
    return write_results(
        "features",
        use.out,
        lambda shards: _computed(model, images, shards, schema),
        table_of(file_format, schema),
        count=len(images),
        batch=model.settings.data.per_gpu_batchsize,
        suffix=f".{file_format}",
        plan={**plan, **computed_by(model), **origin(config, images.digest())},
        made_by={"checkpoint": str(model.path.resolve()), **model_of, "source": described(config)},
        process=process or Process.launched(),
    )


def _schema(width: int) -> pa.Schema:
    """The columns of the tables. The values of `Features` are the last ones."""
    names = [("image_id", pa.string()), ("source", pa.string()), ("dataset", pa.string()), ("row", pa.int64())]
    picture = [("width", pa.int32()), ("height", pa.int32())]
    pooled, patch = pa.list_(pa.float32(), width), pa.list_(pa.float16(), width)
    return pa.schema(
        [*names, *picture, ("pooled", pooled), ("patches", pa.list_(patch)), ("grid", pa.list_(pa.int32(), 2))]
    )


def _computed(
    model: Model, images: Images, shards: Iterator[Shard], schema: pa.Schema
) -> Iterator[tuple[Shard, pa.RecordBatch, Failed]]:
    size = model.settings.data.per_gpu_batchsize
    parts = ((shard, part) for shard in shards for part in shard.batches(size))
    for shard, batch in decoded(model, images, parts):
        rows = pa.RecordBatch.from_pylist([], schema)
        if batch.numbers:
            places = [(images.name(number), *images.place(number)[:3]) for number in batch.numbers]
            known = [(*place, *size) for place, size in zip(places, batch.sizes, strict=True)]
            rows = _rows(known, features(model, batch.pixels), schema)
        yield shard, rows, batch.failed


@torch.inference_mode()
def features(model: Model, images: Sequence[Tensor]) -> list[Features]:
    """Return the features of prepared images, as the encoder makes them of each image alone.

    The pooled feature is the encoder's, or the class token where the model reads no texts. Raises NonFiniteMetric where one
    is NaN or infinite, or too large for float16.
    """
    encoder = model.module.encoder
    pixels, sizes = model.stacked([[image] for image in images]).at(0)
    alone = model.module.images_alone
    with model.forward_context():
        encoded = encoder.encode([encoder.embed_images(pixels, sizes=sizes, image_type=None if alone else 1)])
    (image,) = encoded.segments
    pooled = (image.tokens[:, 0] if alone else encoded.pooled).float().cpu().numpy()
    patches = image.tokens[:, 1:].half().cpu()
    check_finite({"the pooled features": torch.from_numpy(pooled), "the features of patches": patches})
    extent = encoder.size.patch_size
    if sizes is None or image.mask is None:
        rows, columns = pixels.shape[-2] // extent, pixels.shape[-1] // extent
        return [Features(*both, (rows, columns)) for both in zip(pooled, patches.numpy(), strict=True)]
    grids = (sizes.height_width // extent).tolist()
    shown = [one[mask.bool()].numpy() for one, mask in zip(patches, image.mask[:, 1:].cpu(), strict=True)]
    return [Features(*one[:2], tuple(one[2])) for one in zip(pooled, shown, grids, strict=True)]


def _rows(known: Sequence[tuple], found: Sequence[Features], schema: pa.Schema) -> pa.RecordBatch:
    """What is known of images beside their features, and the features, as rows of a table."""
    columns = [pa.array(values, field.type) for values, field in zip(zip(*known, strict=True), schema, strict=False)]
    width = len(found[0].pooled)
    pooled = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate([one.pooled for one in found])), width)
    vectors = pa.array(np.concatenate([one.patches for one in found]).reshape(-1))
    ends = np.cumsum([0, *(len(one.patches) for one in found)], dtype=np.int32)
    patches = pa.ListArray.from_arrays(pa.array(ends), pa.FixedSizeListArray.from_arrays(vectors, width))
    grids = pa.array([one.grid for one in found], schema.field("grid").type)
    return pa.RecordBatch.from_arrays([*columns, pooled, patches, grids], schema=schema)
