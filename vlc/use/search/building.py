"""Building an index: images and texts are embedded in shards, whose vectors are then indexed together with their places."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console
from torch import Tensor

from vlc.common.errors import UserError
from vlc.common.files import full_disk_told, to_json
from vlc.common.terminal import cell
from vlc.configuration.use_settings import UseSettings
from vlc.data.rows import Images, Texts
from vlc.evaluation.metrics import check_finite
from vlc.evaluation.predictions import require_writable, write_text
from vlc.use.cluster import run_on_ray
from vlc.use.model import Model, open_pretrained
from vlc.use.search.stored import (
    appearing_whole,
    checksum_of,
    fingerprint,
    is_index,
    place_schema,
    read_json,
    recover,
    write_kind,
)
from vlc.use.shards import UNFINISHED, Failed, Process, Shard, Work, arrow
from vlc.use.sources import computed_by, decoded, described, open_images, open_rows, origin
from vlc.use.vectors import load_faiss

_VECTOR = "vector"  # the last column of a shard


def build_index(config: Mapping[str, Any], given: Collection[str], process: Process | None = None) -> dict[str, int]:
    """Embed and index all images and texts; returns how many, by kind. A whole index replaces the former one.

    All processes that were started together compute embeddings in shards (`vlc.use.shards`), and a call after an
    interruption goes on. Images that cannot be decoded are named and left out, up to a share of max_corrupt_ratio. Raises
    NonFiniteMetric where an embedding is NaN or infinite.
    """
    load_faiss()  # raises UserError at once where it is missing
    use, process = UseSettings.from_config(config), process or Process.launched()
    if use.ray:
        return run_on_ray(build_index, config, given, use.ray, Path(use.index or ""))
    model = open_pretrained(config, given)
    folder = _index_folder(use.index)
    mark, data = fingerprint(model), model.settings.data
    images = open_images(data, use.image_folder)
    kinds, texts = {"images": len(images)}, Texts([])
    if not use.image_folder:
        texts = Texts(open_rows(data, read_texts=True))
        kinds["texts"] = len(texts)
    plan = {"command": "index", "weights": mark, **computed_by(model), **origin(config, images.digest())}
    state, result = folder / UNFINISHED, folder / "index.json"
    if (done := _built_meanwhile(result, plan, process)) is not None:
        return done
    options: dict[str, Any] = {"batch": data.per_gpu_batchsize, "suffix": ".arrow", "option": "index"}
    with full_disk_told("index=", folder), Work(state, result, plan, kinds, process=process, **options) as work:
        for taken in work.rounds("images"):
            work.write(_embedded_images(model, images, taken), arrow(_schema("images", model)))
        for taken in work.rounds("texts") if "texts" in kinds else ():
            work.write(_embedded_texts(model, texts, taken), arrow(_schema("texts", model)))
        with work.finishing() as mine:
            if mine:
                made_by = {"checkpoint": str(model.path.resolve()), "image_size": data.image_size, "fingerprint": mark}
                made_by |= {"source": described(config), "plan": checksum_of(plan)}
                _put_together(work, folder, model.module.encoder.size.width, made_by)
    return _counts(read_json(result))


def _built_meanwhile(result: Path, plan: Mapping[str, Any], process: Process) -> dict[str, int] | None:
    """The counts of an index that the processes started with this one built before it could begin; None: there is none."""
    if process.rank == 0 or not result.is_file() or result.stat().st_mtime < process.since:
        return None
    made_by = read_json(result)
    return _counts(made_by) if made_by.get("plan") == checksum_of(plan) else None


def _counts(made_by: Mapping[str, Any]) -> dict[str, int]:
    return {kind: made_by[kind] for kind in ("images", "texts") if kind in made_by}


def _put_together(work: Work, folder: Path, width: int, made_by: Mapping[str, Any]) -> None:
    """Index the vectors of all shards, and let the index appear."""
    counts, parts = {}, {}
    with appearing_whole(folder) as partial:
        for kind, shards in work.shards.items():
            counts[kind], parts[kind] = write_kind(partial, kind, _stored(shards), width)
        if not any(counts.values()):
            raise UserError(
                "There is nothing to index: no image could be embedded, and there is no text. "
                f"Check {made_by['source']}"
            )
        written = {**made_by, **counts, "parts": parts}
        write_text(partial / "index.json", to_json(written | {"checksum": checksum_of(written)}))
    summary = [f"{count:,} {kind}" for kind, count in counts.items()]
    if failed := work.failed("images"):
        summary.append(f"{len(failed):,} images that cannot be decoded were left out")
    Console().print(cell(f"{folder}: {', '.join(summary)}"), soft_wrap=True)


def _stored(shards: Sequence[Shard]) -> Iterator[tuple[list[tuple], Tensor]]:
    """The batches in files of shards: places, and vectors (B, D) float32."""
    for shard in shards:
        with pa.memory_map(str(shard.path)) as file, pa.ipc.open_file(file) as reader:
            for batch in map(reader.get_batch, range(reader.num_record_batches)):
                *places, vectors = batch.columns
                values = vectors.flatten().to_numpy().reshape(len(vectors), -1)
                yield (
                    list(zip(*(column.to_pylist() for column in places), strict=True)),
                    torch.from_numpy(values.copy()),
                )


def _schema(kind: str, model: Model) -> pa.Schema:
    width = model.module.encoder.size.width
    return place_schema(kind).append(pa.field(_VECTOR, pa.list_(pa.float32(), width)))


def _rows(kind: str, model: Model, places: Sequence[tuple], vectors: Tensor) -> pa.RecordBatch:
    """Places, and vectors (B, D), as rows of a shard."""
    check_finite({f"the embeddings of {kind}": vectors})
    schema = _schema(kind, model)
    columns = [pa.array(values, field.type) for values, field in zip(zip(*places, strict=True), schema, strict=False)]
    values = pa.array(np.ascontiguousarray(vectors.float().cpu().numpy()).reshape(-1))
    return pa.RecordBatch.from_arrays(
        [*columns, pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])], schema=schema
    )


def _index_folder(path: str | None) -> Path:
    if not path:
        raise UserError("index=FOLDER is missing")
    folder = Path(path)
    if folder.exists() and not is_index(folder, unfinished=True):
        raise UserError(f"index={path} exists and is no index: name another folder")
    require_writable("index", folder, folder=True)
    recover(folder)
    return folder


def _embedded_images(
    model: Model, images: Images, shards: Iterator[Shard]
) -> Iterator[tuple[Shard, pa.RecordBatch, Failed]]:
    size = model.settings.data.per_gpu_batchsize
    parts = ((shard, part) for shard in shards for part in shard.batches(size))
    for shard, batch in decoded(model, images, parts):
        rows = pa.RecordBatch.from_pylist([], _schema("images", model))
        if batch.numbers:
            places = [images.place(number) + images.identity(number) for number in batch.numbers]
            rows = _rows("images", model, places, model.image_vectors(batch.pixels))
        yield shard, rows, batch.failed


def _embedded_texts(
    model: Model, texts: Texts, shards: Iterator[Shard]
) -> Iterator[tuple[Shard, pa.RecordBatch, Failed]]:
    for shard in shards:
        for part in shard.batches(model.settings.data.per_gpu_batchsize):
            places = [texts.place(number) for number in part]
            yield shard, _rows("texts", model, places, model.text_vectors([place.text or "" for place in places])), []
