"""Building an index: images and texts are embedded in batches and written with their places."""

import shlex
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader

from vlc.common.errors import UserError
from vlc.common.files import full_disk_told, to_json
from vlc.common.terminal import cell, printable, progress
from vlc.configuration.groups import DataSettings
from vlc.configuration.use_settings import UseSettings
from vlc.data.arrow import ArrowSplit, find_tables
from vlc.data.catalog import CATALOG
from vlc.data.rows import DecodedImages, FolderImages, Images, Location, RowImages, texts
from vlc.data.workers import worker_options
from vlc.evaluation.predictions import require_writable, write_text
from vlc.use.model import Model, open_pretrained
from vlc.use.search.stored import appearing_whole, checksum_of, fingerprint, is_index, recover, write_kind
from vlc.use.vectors import load_faiss


def build_index(config: Mapping[str, Any], given: Collection[str]) -> dict[str, int]:
    """Embed and index all images and texts; returns how many, by kind. The folder is written atomically.

    Images that cannot be decoded are named and left out, up to a share of max_corrupt_ratio. Raises NonFiniteMetric where
    an embedding is NaN or infinite.
    """
    load_faiss()  # raises UserError at once where it is missing
    use = UseSettings.from_config(config)
    model = open_pretrained(config, given)
    settings, width = model.settings, model.module.encoder.size.width
    folder = _index_folder(use.index)
    mark = fingerprint(model)
    images: list[Images]
    rows: list[ArrowSplit] = []
    if use.image_folder:
        images = [FolderImages(use.image_folder)]
    else:
        images = [RowImages(split) for split in open_rows(settings.data, read_texts=False)]
        rows = open_rows(settings.data, read_texts=True)
    counts, parts = {}, {}
    with full_disk_told("index=", folder), appearing_whole(folder) as partial:
        counts["images"], parts["images"] = write_kind(partial, "images", _embedded_images(model, images), width)
        if rows:
            counts["texts"], parts["texts"] = write_kind(partial, "texts", _embedded_texts(model, rows), width)
        if not any(counts.values()):
            raise UserError(
                f"There is nothing to index: no image could be embedded, and there is no text. Check {_source(config)}"
            )
        made_by = {"checkpoint": str(model.path.resolve()), "image_size": settings.data.image_size}
        made_by |= {"fingerprint": mark, "source": _source(config)}
        written = made_by | counts | {"parts": parts}
        write_text(partial / "index.json", to_json(written | {"checksum": checksum_of(written)}))
    summary = f"{folder}: " + ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    Console().print(cell(summary), soft_wrap=True)
    return counts


def open_rows(settings: DataSettings, *, read_texts: bool) -> list[ArrowSplit]:
    """Open the tables of the data sets, of all splits or of the splits that `splits` names. Raises UserError for pairs.

    read_texts: every text is a sample; otherwise every row is one.
    """
    opened = []
    for name in settings.datasets:
        spec = CATALOG[name]
        if len(spec.images) != 1:
            kind = "pairs of images, and a single one cannot be found" if spec.images else "no images"
            raise UserError(f"datasets: {name!r} has {kind}")
        if spec.labelled:
            raise UserError(f"datasets: {name!r} serves training only: pass image_folder=FOLDER to index its images")
        stems = tuple(stem for split in settings.splits or spec.tables for stem in spec.tables.get(split, ()))
        paths = find_tables(settings.data_root, stems, name, spec.writer, settings.data_cache)
        columns, verify = {spec.text, *spec.images}, settings.verify is not False
        opened.append(ArrowSplit(paths, spec, name, columns, read_texts=read_texts, verify=verify))
    return opened


def _source(config: Mapping[str, Any]) -> str:
    """Return the data of an index as words of a command line."""
    keys = ("image_folder",) if config["image_folder"] else ("data_root", "data_cache", "datasets", "splits")
    values = {key: config[key] for key in keys if config[key]}
    words = {key: value if isinstance(value, str) else f"[{','.join(value)}]" for key, value in values.items()}
    return " ".join(shlex.quote(f"{key}={word}") for key, word in words.items())


def _index_folder(path: str | None) -> Path:
    if not path:
        raise UserError("index=FOLDER is missing")
    folder = Path(path)
    if folder.exists() and not is_index(folder):
        raise UserError(f"index={path} exists and is no index: name another folder")
    require_writable("index", folder, folder=True)
    recover(folder)
    return folder


def _embedded_images(model: Model, sources: list[Images]) -> Iterator[tuple[list[tuple], Tensor]]:
    for images, numbers, pixels in decoded(model, sources):
        yield [images.place(number) + images.identity(number) for number in numbers], model.image_vectors(pixels)


def decoded(model: Model, sources: list[Images]) -> Iterator[tuple[Images, list[int], list[Tensor]]]:
    """Batches of the images that can be decoded: their source, their numbers there, and the prepared images.

    Others are named and left out; raises UserError where they are a larger share than max_corrupt_ratio.
    """
    size, data = model.settings.data.per_gpu_batchsize, model.settings.data
    seen, bad = 0, []
    with progress("images", sum(map(len, sources))) as advance:
        for images in sources:
            batches = [range(first, min(first + size, len(images))) for first in range(0, len(images), size)]
            readable, workers = DecodedImages(images, model.transform), worker_options(data.num_workers)
            for numbers, pixels, failed in DataLoader(readable, None, sampler=batches, **workers):
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
                    yield images, numbers, pixels
                advance(len(numbers) + len(failed))


def _embedded_texts(model: Model, sources: list[ArrowSplit]) -> Iterator[tuple[list[Location], Tensor]]:
    with progress("texts", sum(map(len, sources))) as advance:
        for rows in sources:
            places = texts(rows)
            while batch := list(islice(places, model.settings.data.per_gpu_batchsize)):
                yield batch, model.text_vectors([place.text or "" for place in batch])
                advance(len(batch))
