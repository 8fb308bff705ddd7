"""The images and texts that the commands read: rows of data sets, or the files below a folder."""

import shlex
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from vlc.common.errors import UserError
from vlc.common.terminal import printable
from vlc.configuration.groups import DataSettings
from vlc.data.arrow import ArrowSplit, find_tables
from vlc.data.catalog import CATALOG
from vlc.data.remote import is_url
from vlc.data.rows import Decoded, DecodedImages, FolderImages, Images, Joined, Location, Readable, RowImages
from vlc.data.spec import DatasetSpec
from vlc.data.workers import worker_options
from vlc.use.model import Model

KeyT = TypeVar("KeyT")


def open_images(settings: DataSettings, image_folder: str | None, *, names: bool = False) -> Images:
    """Open the images below a folder, or else of the rows of the data sets; names: with the data's ids of the images."""
    if image_folder:
        return FolderImages(image_folder)
    return Joined([RowImages(rows) for rows in open_rows(settings, read_texts=False, names=names)])


def open_rows(settings: DataSettings, *, read_texts: bool, names: bool = False) -> list[ArrowSplit]:
    """Open the tables of the data sets, of all splits or of the splits that `splits` names. Raises UserError for pairs.

    read_texts: every text is a sample; otherwise every row is one.
    names: read the ids of the images, where there are any.
    """
    opened = []
    for name in settings.datasets:
        spec = CATALOG[name]
        if len(spec.images) != 1:
            kind = "pairs of images, and a single one cannot be found" if spec.images else "no images"
            raise UserError(f"datasets: {name!r} has {kind}")
        if spec.labelled:
            raise UserError(f"datasets: {name!r} serves training only: pass image_folder=FOLDER to read its images")
        opened.append(open_tables(settings, name, spec, {spec.text, *spec.images}, read_texts=read_texts))
        if names and opened[-1].provides("image_id"):
            columns = {*opened[-1].columns, spec.fields["image_id"].name}
            opened[-1] = open_tables(settings, name, spec, columns, read_texts=read_texts)
    return opened


def open_tables(
    settings: DataSettings, name: str, spec: DatasetSpec, columns: set[str], *, read_texts: bool
) -> ArrowSplit:
    """Open the tables of a data set, of all splits or of the splits that `splits` names."""
    stems = tuple(stem for split in settings.splits or spec.tables for stem in spec.tables.get(split, ()))
    paths = find_tables(settings.data_root, stems, name, spec.writer, settings.data_cache)
    return ArrowSplit(paths, spec, name, columns, read_texts=read_texts, verify=settings.verify is not False)


def described(config: Mapping[str, Any]) -> str:
    """Return the data of a command as words of a command line."""
    keys = ("image_folder",) if config["image_folder"] else ("data_root", "data_cache", "datasets", "splits")
    values = {key: config[key] for key in keys if config[key]}
    words = {key: value if isinstance(value, str) else f"[{','.join(value)}]" for key, value in values.items()}
    return " ".join(shlex.quote(f"{key}={word}") for key, word in words.items())


def origin(config: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """Return the data of a command, for the plan of `vlc.use.shards`; digest: a hash that changes with their files."""
    if config["image_folder"]:
        return {"image_folder": str(Path(config["image_folder"]).resolve()), "hash of the files": digest}
    root = config["data_root"] if is_url(config["data_root"]) else str(Path(config["data_root"]).resolve())
    return {"data_root": root, "datasets": config["datasets"], "splits": config["splits"], "hash of the files": digest}


def computed_by(model: Model) -> dict[str, Any]:
    """Return what values depend on beside weights and inputs, for the plan of `vlc.use.shards`."""
    data, run = model.settings.data, model.settings.run
    keys = {
        "image_size": data.image_size,
        "max_text_len": data.max_text_len,
        "of_texts": model.settings.languages.of_texts,
    }
    keys |= {"per_gpu_batchsize": data.per_gpu_batchsize, "precision": run.precision, "device": model.device.type}
    return keys | {"pipeline": model.pipeline, "pixels": model.pixels}


def decoded(
    model: Model, images: Readable, batches: Iterable[tuple[KeyT, Sequence[int]]]
) -> Iterator[tuple[KeyT, Decoded]]:
    """Read and prepare batches of images by their numbers, each with what stands beside it.

    Images that cannot be decoded are named. Raises UserError where they are a larger share than max_corrupt_ratio.
    """
    data = model.settings.data
    readable, left_out = DecodedImages(images, model.transform), LeftOut(data.max_corrupt_ratio)
    for key, batch in DataLoader(readable, None, sampler=batches, **worker_options(data.stated_workers)):
        left_out.add(batch.failed, len(batch.numbers) + len(batch.failed))
        yield key, batch


class LeftOut:
    """Counts images that cannot be decoded, names them, and raises UserError where they are too large a share."""

    def __init__(self, max_ratio: float):
        self._max_ratio, self._seen, self._bad = max_ratio, 0, 0

    def add(self, failed: Sequence[tuple[Location, str]], seen: int) -> None:
        """Count a batch: the images that cannot be decoded with the reasons, and the number of all."""
        self._seen += seen
        self._bad += len(failed)
        for place, reason in failed:
            warnings.warn(printable(f"Left out an image that cannot be decoded: {place}: {reason}"), stacklevel=2)
        if failed and self._bad > max(1, self._max_ratio * self._seen):
            raise UserError(
                f"{self._bad} of {self._seen} images cannot be decoded, more than the share max_corrupt_ratio="
                f"{self._max_ratio} allows; the last one is {failed[-1][0]}"
            )
