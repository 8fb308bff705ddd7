"""`python run.py hard_pool`: for each training image of a data set, those that look most alike, kept in a small file.

The features of an image are the mean of its encoded patches, as the frozen encoder of a checkpoint makes them, and the
nearest are found by cosine similarity. 12-in-1 (Lu et al. 2020) pools the features of detected regions, and takes
Euclidean distances; the pools that it published are converted (`vlc.use.published_pool`).
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from vlc.common.errors import UserError
from vlc.common.terminal import cell, progress
from vlc.configuration.groups import DataSettings
from vlc.configuration.settings import Settings
from vlc.configuration.use_settings import UseSettings, without_use_keys
from vlc.data.arrow import ArrowSplit, find_tables
from vlc.data.catalog import CATALOG
from vlc.data.hard_pool import NONE, pool_name, tables_of, write_pool
from vlc.data.rows import RowImages
from vlc.evaluation.metrics import check_finite
from vlc.evaluation.predictions import require_writable
from vlc.use.model import Model, open_pretrained
from vlc.use.published_pool import PublishedPool
from vlc.use.search.stored import weights_hash
from vlc.use.sources import decoded

NUM_NEAREST = 100  # as published
_SIMILARITIES_AT_ONCE = 2**24  # 64 MB
_Neighbours: TypeAlias = tuple[np.ndarray, list[int], dict[str, Any]]  # near, undecodable, made_from of `write_pool`


def make_hard_pools(config: Mapping[str, Any], given: Collection[str]) -> dict[str, int]:
    """Write OUT/NAME_hard_pool.npz for each data set; returns how many images of each have neighbours.

    Without `out` a pool lies beside the tables. Images that cannot be decoded are named and left out, up to a share of
    max_corrupt_ratio. Raises NonFiniteMetric where features are NaN or infinite.
    """
    use = UseSettings.from_config(config)
    make: Callable[[ArrowSplit], _Neighbours]
    if use.published_pool and config["load_path"]:
        raise UserError("load_path and published_pool are both given: a hard pool is made from one of them")
    if use.published_pool:
        make = partial(_converted, PublishedPool.read(Path(use.published_pool)))
        batch = {"per_gpu_batchsize": config["per_gpu_batchsize"] or 2}  # which is not used, and a run has to state it
        data = Settings.from_config({**without_use_keys(config), **batch}).data
    else:
        model = open_pretrained(config, given)
        make, data = partial(_nearest_of, model), model.settings.data
    if data.splits not in (None, ("train",)):
        raise UserError(f"splits={list(data.splits)}: hard pools are for training, leave splits out")
    counts = {}
    for name in data.datasets:
        source = _training_rows(name, data)
        folder = Path(use.out or source.paths[0].parent)
        path = folder / pool_name(name)
        require_writable("out", folder, folder=True)
        near, undecodable, made_by = make(source)
        write_pool(path, near, _ids(source), undecodable, {"dataset": name, "tables": tables_of(source)} | made_by)
        counts[name] = int((near != NONE).any(axis=1).sum())
        summary = f"{path}: {counts[name]:,} of {len(near):,} images, up to {near.shape[1]} that look alike for each"
        Console().print(cell(summary), soft_wrap=True)
    return counts


def _training_rows(name: str, data: DataSettings) -> ArrowSplit:
    """The training tables of a data set, every row a sample. Raises UserError where it has none, or no single image."""
    spec = CATALOG[name]
    stems = spec.splits(data.published_splits).get("train")
    if not stems or len(spec.images) != 1:
        raise UserError(f"datasets: {name!r} has no training images that stand alone, so a hard pool cannot be made")
    paths = find_tables(data.data_root, stems, name, spec.writer, data.data_cache)
    options: dict[str, Any] = {"read_texts": False, "verify": data.verify is not False}
    source = ArrowSplit(paths, spec, name, {spec.text, *spec.images}, **options)
    if source.has_column("image_id"):
        source = ArrowSplit(paths, spec, name, {spec.text, *spec.images, "image_id"}, **options)
    return source


def _ids(source: ArrowSplit) -> list[str]:
    """The names of the images: their ids where the tables have them, else table and row."""
    if source.has_column("image_id"):
        return [str(value) for _, batch in source.batches() for value in batch.column("image_id").to_pylist()]
    return ["{}:{}".format(*source.table_and_row(source.locate(number))) for number in range(len(source))]


def _converted(pool: PublishedPool, source: ArrowSplit) -> _Neighbours:
    """Return the neighbours of the images in a published pool, which does not name images that cannot be decoded."""
    return pool.for_images(_ids(source)), [], {"published_pool": str(pool.path.resolve())}


def _nearest_of(model: Model, source: ArrowSplit) -> _Neighbours:
    """The neighbours of the images by the features of a model."""
    features = torch.zeros(len(source), model.module.encoder.size.width)
    found = torch.zeros(len(source), dtype=torch.bool)
    size = model.settings.data.per_gpu_batchsize
    batches = [range(first, min(first + size, len(source))) for first in range(0, len(source), size)]
    with progress("images", len(source)) as advance:
        for numbers, batch in decoded(model, RowImages(source), zip(batches, batches, strict=True)):
            if batch.numbers:
                means = model.patch_means(batch.pixels)
                check_finite({"the features of images": means})
                features[batch.numbers], found[batch.numbers] = F.normalize(means).cpu(), True
            advance(len(numbers))
    made_by = {
        "checkpoint": str(model.path.resolve()),
        "weights": weights_hash(model.module.encoder),
        "image_size": model.settings.data.image_size,
    }
    return nearest_images(features.to(model.device), found.to(model.device)), (~found).nonzero()[:, 0].tolist(), made_by


def nearest_images(features: Tensor, known: Tensor, count: int = NUM_NEAREST) -> np.ndarray:
    """For each image the numbers (N, K) int32 of those with the most similar features, without itself.

    features (N, D) float32: unit vectors. Similarities are computed in blocks: there is never a matrix (N, N).
    known (N,) bool: whether an image has features; one without is near no other and has a row of NONE.
    K = count, or fewer where there are fewer images. Among equal similarities the lower number stands first; which of
    them are cut off at K is not defined.
    """
    total = len(features)
    count = min(count, int(known.sum()) - 1)
    if count < 1:
        raise UserError("A hard pool needs two images or more that can be decoded")
    near = np.full((total, count), NONE, dtype=np.int32)
    block = max(1, _SIMILARITIES_AT_ONCE // total)
    with progress("look-alikes", total) as advance:
        for start in range(0, total, block):
            similar = features[start : start + block] @ features.T
            similar[:, ~known] = -torch.inf
            rows = torch.arange(len(similar), device=similar.device)
            similar[rows, start + rows] = -torch.inf
            best = similar.topk(count).indices.sort().values  # by number, for the stable sort that follows
            order = similar.gather(1, best).sort(descending=True, stable=True).indices
            near[start : start + block] = best.gather(1, order).int().cpu().numpy()
            advance(len(similar))
    near[~known.cpu().numpy()] = NONE
    return near
