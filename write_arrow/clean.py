"""Writes a clean list: the images that the data sets of a folder are evaluated on, so that no task trains on them.

run.py leaves out their rows with clean.exclude=test or clean.exclude=val_test. --aliases names the files that say which
numbers an image has in several collections: image_data.json of Visual Genome, and COCO's annotations with flickr_url
(instances_train2014.json, instances_val2014.json). A list has all numbers of its images.

Of the Arrow files, only the columns that name the images are read.
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from rich.console import Console
from rich.table import Column, Table

from vlc.common.errors import MissingFile, UserError
from vlc.common.files import write_atomically
from vlc.common.terminal import cell
from vlc.configuration.own_tasks import own_dataset
from vlc.configuration.values import check_known
from vlc.data.arrow import find_tables, has_tables
from vlc.data.catalog import CATALOG
from vlc.data.clean import FILE_NAME, FORMAT
from vlc.data.image_keys import keys_of_rows
from vlc.data.remote import is_url
from vlc.data.spec import DatasetSpec
from write_arrow.machine import json_stream

_PHOTO = re.compile(r"/(\d+)_[^/]*$")  # the number in the address of a photo of Flickr


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="ARROWS", help="folder of arrow files, by path or URL")
    parser.add_argument(
        "--aliases", nargs="+", default=[], metavar="FILE", help="image_data.json, instances_{train,val}2014.json"
    )
    parser.add_argument(
        "--datasets",
        nargs="+",
        metavar="NAME",
        help="data sets whose evaluated images are listed, or FILE.py with a row of your own (default: all in ARROWS)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"the list (default: ARROWS/{FILE_NAME})")
    parser.add_argument("--cache", metavar="FOLDER", help="for copies of the files, where ARROWS is a URL")


def run(arguments: argparse.Namespace) -> None:
    """Write a list and print what is in it. Raises UserError where files are missing or cannot be read."""
    if arguments.out is None and is_url(arguments.folder):
        raise UserError(f"ARROWS={arguments.folder} is a URL: pass --out FILE, and clean.lists=FILE to run.py")
    if not is_url(arguments.folder) and not Path(arguments.folder).is_dir():
        raise MissingFile(f"{arguments.folder} is not a folder: name the folder of the arrow files")
    out = arguments.out or Path(arguments.folder) / FILE_NAME
    specs = _specs(arguments.datasets)
    read = list(evaluated_images(arguments.folder, specs, arguments.cache))
    if arguments.datasets and (absent := specs.keys() - {one.dataset for one in read}):
        raise MissingFile(
            f"{arguments.folder} has no file of an evaluated split of data set {', '.join(sorted(absent))}"
        )
    if not read:
        raise MissingFile(f"{arguments.folder} has no files of an evaluated split of a data set that shares images")
    lists: dict[str, set[str]] = {"val": set(), "test": set()}
    for one in read:
        lists[one.kind] |= one.keys
    num_own = {kind: len(keys) for kind, keys in lists.items()}
    close(lists, [Path(path) for path in arguments.aliases])
    splits: dict[str, list[str]] = {}
    for one in read:
        splits.setdefault(one.dataset, []).append(one.split)
    content: dict[str, Any] = {"format": FORMAT, "splits": splits, "aliases": arguments.aliases}
    content |= {kind: sorted(keys) for kind, keys in lists.items()}
    with write_atomically(out) as partial:
        partial.write_text(json.dumps(content, ensure_ascii=False))
    grid = Table(
        "data set", "split", "list", Column("rows", justify="right"), Column("images", justify="right"), box=None
    )
    for one in read:
        grid.add_row(cell(one.dataset), cell(one.split), one.kind, f"{one.num_rows:,}", f"{len(one.keys):,}")
    console = Console(highlight=False, soft_wrap=True)
    console.print(grid)
    for kind, keys in lists.items():
        console.print(f"{kind}: {num_own[kind]:,} images, {len(keys):,} numbers of them in all collections")
    if not arguments.aliases:
        console.print("Without --aliases, a number of an image in another collection is not found")
    console.print(cell(out))


def _specs(names: list[str] | None) -> dict[str, DatasetSpec]:
    """The data sets to read, by name. Raises UserError for one that is unknown, or that shares no images."""
    if names is None:
        return {name: spec for name, spec in CATALOG.items() if spec.image_key}
    specs = dict(own_dataset(name) if ".py" in name else (name, CATALOG.get(name)) for name in names)
    check_known([name for name, spec in specs.items() if spec is None], CATALOG, "data set")
    for name, spec in specs.items():
        if spec.image_key is None:
            raise UserError(f"--datasets: the rows of {name} do not say which images of other data sets they show")
    return specs


class Evaluated(NamedTuple):
    """The images of an evaluated split. kind: the list that they stand in, "val" or "test"."""

    dataset: str
    split: str
    kind: str
    num_rows: int
    keys: set[str]


def evaluated_images(folder: str, specs: dict[str, DatasetSpec], cache: str | None = None) -> Iterator[Evaluated]:
    """The images of every evaluated split whose files are in a folder. Raises UserError where they cannot be read."""
    for dataset, spec in specs.items():
        for kind, splits in spec.evaluated.items():
            for split in splits:
                if not has_tables(folder, spec.tables[split], cache):
                    continue
                num_rows, keys = 0, set[str]()
                for path in find_tables(folder, spec.tables[split], dataset, spec.writer, cache):
                    try:
                        for found in keys_of_rows(path, dataset, spec, split):
                            num_rows += len(found)
                            keys.update(found.unique().to_pylist())
                    except (pa.ArrowException, OSError) as error:
                        raise UserError(f"{path} is damaged or not an Arrow IPC file ({error})") from error
                yield Evaluated(dataset, split, kind, num_rows, keys)


def close(lists: dict[str, set[str]], aliases: Iterable[Path]) -> None:
    """Add to each list all keys of its images: where one of the keys that a file gives an image is listed, all are.

    The files are read again until no list grows, so that memory holds the lists alone.
    """
    before = -1
    while before != (now := sum(map(len, lists.values()))):
        before = now
        for path in aliases:
            for same in same_image(path):
                for keys in lists.values():
                    if not keys.isdisjoint(same):
                        keys.update(same)


def same_image(path: Path) -> Iterator[tuple[str, ...]]:
    """The keys of each image that a file of aliases has several of. Raises UserError for a file of another kind.

    A list is image_data.json of Visual Genome; an object with the key "images" holds COCO's annotations.
    """
    if not path.is_file():
        raise MissingFile(f"--aliases {path} does not exist")
    of_coco, found = _is_object(path), False
    with path.open("rb") as file:
        for entry in json_stream.elements(file, str(path), "images" if of_coco else None):
            keys = (_of_coco if of_coco else _of_visual_genome)(entry, path)
            if len(keys) > 1:
                found = True
                yield keys
    if not found:
        names = "flickr_url" if of_coco else "coco_id or flickr_id"
        raise UserError(f"--aliases {path}: no image has {names}, so the file names none in another collection")


def _is_object(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def _of_visual_genome(entry: Any, path: Path) -> tuple[str, ...]:
    numbers = {"vg": _number(entry, "image_id", path)}
    for collection in ("coco", "flickr"):
        if entry.get(f"{collection}_id") is not None:
            numbers[collection] = _number(entry, f"{collection}_id", path)
    return tuple(f"{collection}:{number}" for collection, number in numbers.items())


def _of_coco(entry: Any, path: Path) -> tuple[str, ...]:
    number = _number(entry, "id", path)
    photo = _PHOTO.search(str(entry.get("flickr_url")))
    return (f"coco:{number}", *([f"flickr:{int(photo[1])}"] if photo else []))


def _number(entry: Any, key: str, path: Path) -> int:
    """A number, which may be spelled as a text. Raises UserError where an entry has none."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,18}", str(value), re.ASCII):
        raise UserError(f"--aliases {path}: an entry should have a number {key}: {str(entry)[:200]!r}")
    return int(value)
