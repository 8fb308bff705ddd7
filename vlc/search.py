"""`python run.py index` and `search`: a checkpoint's embeddings of images and texts, kept on disk and searched.

An index is a folder: index.json tells which model made it, {images,texts}.N.faiss hold the vectors, and
{images,texts}.arrow the place of each. One batch of images or texts is in memory at a time.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pytorch_lightning.utilities import rank_zero_warn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from torch import Tensor
from torch.utils.data import DataLoader

from vlc.data.arrow import ArrowSplit, find_tables
from vlc.data.batch import Text
from vlc.data.catalog import CATALOG
from vlc.data.rows import DecodedImages, FolderImages, Images, Place, RowImages, read_image, texts
from vlc.data.workers import worker_options
from vlc.errors import MissingFile, UserError
from vlc.objectives.base import to_json
from vlc.objectives.irtr import encode_pairs
from vlc.predictions import write_text
from vlc.pretrained import Pretrained, open_image_file, open_pretrained
from vlc.settings import DataSettings
from vlc.terminal import cell, printable
from vlc.vectors import VectorFile, Vectors, build, load_faiss

_PLACES = pa.schema([("source", pa.string()), ("dataset", pa.string()), ("row", pa.int64()), ("text", pa.string())])
_RERANKING = ("irtr", "itm")  # heads that can, the better one first


# -- building


def build_index(config: Mapping[str, Any], given: Collection[str]) -> dict[str, int]:
    """Embed and index all images and texts; returns how many, by kind. The folder appears whole or not at all.

    Images that cannot be decoded are named and left out, up to a share of max_corrupt_ratio.
    """
    load_faiss()  # tells at once where it is missing
    model = open_pretrained(config, given)
    settings, use = model.settings, model.settings.use
    folder = _index_folder(use.index)
    _contrast(model)
    if use.image_folder:
        images, rows = [FolderImages(use.image_folder)], []
    else:
        images = [RowImages(split) for split in open_rows(settings.data, read_texts=False)]
        rows = open_rows(settings.data, read_texts=True)
    counts = {}
    with _appearing_whole(folder) as partial:
        counts["images"] = _write(partial, "images", _embedded_images(model, images), model)
        if rows:
            counts["texts"] = _write(partial, "texts", _embedded_texts(model, rows), model)
        if not any(counts.values()):
            raise UserError("There is nothing to index: no image could be embedded, and there is no text")
        made_by = {"checkpoint": str(model.path.resolve()), "image_size": settings.data.image_size}
        write_text(partial / "index.json", to_json(made_by | {"fingerprint": fingerprint(model)} | counts))
    told = f"{folder}: " + ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    Console().print(cell(told), soft_wrap=True)
    return counts


def open_rows(settings: DataSettings, *, read_texts: bool) -> list[ArrowSplit]:
    """The tables of the data sets, every row a sample, or every text: of all splits, or of those that `splits` names.

    Raises UserError where a data set has two images beside each other.
    """
    opened = []
    for name in settings.datasets:
        spec = CATALOG[name]
        if len(spec.images) != 1:
            raise UserError(f"datasets: {name!r} has pairs of images, of which none can be found alone")
        stems = tuple(stem for split in settings.splits or spec.tables for stem in spec.tables.get(split, ()))
        paths = find_tables(settings.data_root, stems, name, spec.writer, settings.data_cache)
        columns, verify = {spec.text, *spec.images}, settings.verify is not False
        opened.append(ArrowSplit(paths, spec, name, columns, read_texts=read_texts, verify=verify))
    return opened


def fingerprint(model: Pretrained) -> str:
    """What tells models apart whose embeddings differ: a hash of the weights that make them."""
    digest = hashlib.sha256()
    for part in (model.module.encoder, _contrast(model)):
        for name, tensor in part.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()


def _contrast(model: Pretrained):
    if "itc" not in model.module.objectives:
        heads = ", ".join(model.module.objectives)
        raise UserError(
            f"{model.path} has the heads {heads}, but none of objective itc, which makes embeddings: train with "
            "loss_names.itc=1"
        )
    return model.module.objectives["itc"]


def _index_folder(path: str | None) -> Path:
    if not path:
        raise UserError("index=FOLDER is missing")
    if Path(path).exists() and not (Path(path) / "index.json").is_file():
        raise UserError(f"index={path} exists and is no index: name another folder")
    return Path(path)


@contextmanager
def _appearing_whole(folder: Path) -> Iterator[Path]:
    """A folder that takes its name, from an older one if need be, once its content is there."""
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


def _write(folder: Path, kind: str, batches: Iterable[tuple[list[Place], Tensor]], model: Pretrained) -> int:
    """Index batches of places and vectors (B, D) under a name; returns how many there were."""
    vectors = VectorFile(folder / f".{kind}.vectors", model.module.encoder.size.width)
    with pa.OSFile(str(folder / f"{kind}.arrow"), "wb") as sink, pa.ipc.new_file(sink, _PLACES) as writer:
        for places, embedded in batches:
            vectors.append(embedded.float().cpu().numpy())
            writer.write_batch(pa.RecordBatch.from_pylist([place._asdict() for place in places], _PLACES))
    mapped = vectors.close()
    build(mapped, folder, kind)
    vectors.path.unlink()
    return len(mapped)


@torch.inference_mode()
def _embedded_images(model: Pretrained, sources: list[Images]) -> Iterator[tuple[list[Place], Tensor]]:
    size, data = model.settings.data.per_gpu_batchsize, model.settings.data
    encoder, contrast = model.module.encoder, _contrast(model)
    seen, bad = 0, []
    with _progress("images", sum(map(len, sources))) as advance:
        for images in sources:
            batches = [range(first, min(first + size, len(images))) for first in range(0, len(images), size)]
            decoded, workers = DecodedImages(images, model.transform), worker_options(data.num_workers)
            for numbers, pixels, failed in DataLoader(decoded, None, sampler=batches, **workers):
                seen += len(numbers) + len(failed)
                bad += failed
                for place, reason in failed:
                    rank_zero_warn(printable(f"Left out an image that cannot be decoded: {place}: {reason}"))
                if len(bad) > max(1, data.max_corrupt_ratio * seen):
                    raise UserError(
                        f"{len(bad)} of {seen} images cannot be decoded, more than the share max_corrupt_ratio="
                        f"{data.max_corrupt_ratio} allows; the last one is {bad[-1][0]}"
                    )
                if numbers:
                    with model.forward_context():
                        embedded = contrast.embed_images(encoder, model.tokens(pixels))
                        yield [images.place(number) for number in numbers], embedded
                advance(len(numbers) + len(failed))


@torch.inference_mode()
def _embedded_texts(model: Pretrained, sources: list[ArrowSplit]) -> Iterator[tuple[list[Place], Tensor]]:
    with _progress("texts", sum(map(len, sources))) as advance:
        for rows in sources:
            places = texts(rows)
            while batch := list(islice(places, model.settings.data.per_gpu_batchsize)):
                with model.forward_context():
                    yield batch, _embedded(model, [place.text for place in batch])
                advance(len(batch))


def _text(model: Pretrained, rows: list[str]) -> Text:
    return model.text_encoder.pad([model.text_encoder(row).ids for row in rows]).to(model.device)


def _embedded(model: Pretrained, rows: list[str]) -> Tensor:
    return _contrast(model).embed_texts(model.module.encoder, _text(model, rows))


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)


# -- searching


def search(config: Mapping[str, Any], given: Collection[str]) -> list[dict[str, Any]]:
    """Images for a query, or texts for an image; prints and returns them, the best first.

    A result has score, source, dataset and row (None for an image file), and text. Where the checkpoint has a head that
    ranks, the rerank_k nearest are ranked by the full model; rerank_k=None leaves it at the similarities.
    """
    load_faiss()
    model = open_pretrained(config, given)
    use, rerank_k = model.settings.use, model.settings.run.rerank_k
    if bool(use.query) == bool(use.image):
        raise UserError('search needs query="..." (finds images), or image=FILE (finds texts), and not both')
    kind, asked = ("images", _text(model, [use.query])) if use.query else ("texts", open_image_file(model, use.image))
    vectors, places = _open_index(model, use.index, kind)
    head = next((model.module.objectives[name] for name in _RERANKING if name in model.module.objectives), None)
    wanted = use.num_results if head is None or rerank_k is None else max(use.num_results, rerank_k)
    with torch.inference_mode(), model.forward_context():
        encoder, contrast = model.module.encoder, _contrast(model)
        if kind == "images":
            query = contrast.embed_texts(encoder, asked)
        else:
            query = contrast.embed_images(encoder, model.tokens([asked]))
        scores, numbers = (row[0].tolist() for row in vectors.nearest(query.float().cpu().numpy(), wanted))
        found = [Place(**places.slice(number, 1).to_pylist()[0]) for number in numbers if number >= 0]
        if head is not None and rerank_k is not None:
            scores = _reranked(model, head.score, asked, found, kind)
    order = sorted(range(len(found)), key=lambda number: -scores[number])[: use.num_results]
    results = [{"score": scores[number], **found[number]._asdict()} for number in order]
    if use.out:
        write_text(Path(use.out), to_json(results))
    _print(results)
    return results


def _open_index(model: Pretrained, path: str | None, kind: str) -> tuple[Vectors, pa.Table]:
    """The vectors of a kind and their places, of an index that this very model made."""
    folder = Path(path or "")
    if not path or not (folder / "index.json").is_file():
        raise MissingFile(
            f"index={path} is no index: make one with python run.py index with load_path=... index=FOLDER"
        )
    made_by = json.loads((folder / "index.json").read_text())
    if made_by["fingerprint"] != fingerprint(model):
        raise UserError(
            f"index={path} was made by {made_by['checkpoint']} at image_size={made_by['image_size']}, whose weights are "
            f"not those of load_path={model.path} at image_size={model.settings.data.image_size}: search with the "
            "former, or make the index again"
        )
    if not made_by.get(kind):
        raise UserError(f"index={path} holds no {kind}: make it from datasets=[...] that have them")
    places = pa.ipc.open_file(pa.memory_map(str(folder / f"{kind}.arrow"))).read_all()
    return Vectors(folder, kind), places


def _reranked(
    model: Pretrained, score: Callable[[Tensor], Tensor], asked: Tensor | Text, found: list[Place], kind: str
) -> list[float]:
    """Scores of the full model for the candidates of a text (images) or of an image (texts)."""
    encoder, size = model.module.encoder, model.settings.data.per_gpu_batchsize
    scores: list[float] = []
    with _progress("ranking", len(found)) as advance:
        for first in range(0, len(found), size):
            batch = found[first : first + size]
            if kind == "images":
                images = model.tokens([_candidate(model, place) for place in batch])
                text = Text(asked.ids.expand(len(batch), -1), asked.mask.expand(len(batch), -1))
                pooled = encode_pairs(encoder, text, images, 1)
            else:
                text = _text(model, [place.text for place in batch])
                pooled = encode_pairs(encoder, text, model.tokens([asked]), len(batch))
            scores += score(pooled).float().tolist()
            advance(len(batch))
    return scores


def _candidate(model: Pretrained, place: Place) -> Tensor:
    try:
        return model.image(read_image(place), str(place))
    except MissingFile as error:
        raise MissingFile(f"{error}. rerank_k=None searches without looking at the images again") from error


def _print(results: list[dict[str, Any]]) -> None:
    table = Table("score", Column("where", overflow="fold"), "text", box=None)
    for result in results:
        place = Place(**{name: result[name] for name in Place._fields})
        table.add_row(f"{result['score']:.4f}", cell(place), cell(place.text or ""))
    Console().print(table)
