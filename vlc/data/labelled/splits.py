"""Labelled images by split, and whether the splits fit each other."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlc.common.errors import MissingFile, UserError
from vlc.data.identity import is_journal, require_finished, require_one_conversion
from vlc.data.labelled.folders import FolderImages
from vlc.data.labelled.source import WRITER, LabelledImages
from vlc.data.labelled.tables import ArrowImages, ParquetImages
from vlc.data.labelled.tar import TarImages

_ALIASES = {"val": ("val", "validation")}
_KEYS = "In run.py, --data_path is data_root and --nb_classes is image_classes.num_classes."


def open_split(data_path: str | Path, split: str, *, verify: bool = False) -> LabelledImages:
    """The images of a split: DATA_PATH/SPLIT/CLASS/*, or the shards DATA_PATH/NAME_SPLIT_*.{arrow,parquet,tar}.

    DATA_PATH/NAME chooses among several data sets in one folder.

    verify: compare what is read with the checksums that our writer left.

    Raises MissingFile or UserError, naming what was found.
    """
    path = Path(data_path)
    if (path / split).is_dir():
        return FolderImages(path / split)
    shards = find_shards(path, split)
    kinds = {shard.suffix for shard in shards}
    if len(kinds) > 1:
        raise UserError(f"{path}: split {split!r} has shards of several kinds ({', '.join(sorted(kinds))}): keep one")
    journals = [file for file in shards[0].parent.iterdir() if is_journal(file.name)]
    again = f"Write them again with: {WRITER}"
    require_finished({shard.name for shard in shards}, journals, again)
    require_one_conversion(shards, again)
    return {".arrow": ArrowImages, ".parquet": ParquetImages, ".tar": TarImages}[kinds.pop()](shards, verify=verify)


def find_shards(path: Path, split: str) -> list[Path]:
    """The shards of a split, in numerical order; `path` is a folder, or a folder and a data set's name."""
    folder, dataset = (path, None) if path.is_dir() else (path.parent, path.name)
    names = "|".join(_ALIASES.get(split, (re.escape(split),)))
    pattern = re.compile(rf"(?:(?P<name>.+)[-_])?(?:{names})(?:[-_](?P<number>\d+)(?:-of-\d+)?)?\.(arrow|parquet|tar)")
    found: dict[str, list[tuple[int, Path]]] = {}
    for file in folder.iterdir() if folder.is_dir() else ():
        if match := pattern.fullmatch(file.name):
            found.setdefault(match["name"] or "", []).append((int(match["number"] or 0), file))
    if dataset is not None:
        found = {name: files for name, files in found.items() if name == dataset}
    if not found:
        raise MissingFile(
            f"--data_path {path} has no images of split {split!r}: neither a folder {path / split} with a folder for each "
            f"class, nor shards such as {path if dataset else path / 'imagenet'}_{split}_0.arrow. Write shards: {WRITER}. "
            + _KEYS
        )
    if len(found) > 1:
        raise UserError(f"{folder} holds several data sets: choose one, as --data_path {folder / min(found)}. "
                        f"There are {', '.join(sorted(found))}. {_KEYS}")  # fmt: skip
    return [file for _, file in sorted(*found.values())]


def check_classes(sources: dict[str, LabelledImages], num_classes: int, training: Sequence[str] = ("train",)) -> None:
    """Raise UserError where labels, class names or --nb_classes do not fit each other, or a class has no images.

    sources: the images by the name of their split.
    training: the splits in which a class without images is a mistake.
    """
    for split, source in sources.items():
        found = max(len(source.class_names or ()), int(source.labels.max(initial=-1)) + 1)
        complete = split in training or isinstance(source, FolderImages)
        if not len(source.labels):
            raise UserError(f"Split {split!r} has no images")
        if source.labels.min() < 0 or found > num_classes or (found < num_classes and complete):
            raise UserError(
                f"Split {split!r} has {found} classes{_examples(source)}, but --nb_classes is {num_classes}: "
                f"pass --nb_classes {found}, or mend the data. {_KEYS}"
            )
        if split in training:
            empty = np.flatnonzero(np.bincount(source.labels, minlength=num_classes) == 0)
            if len(empty):
                names = [_name(source, label) for label in empty[:5].tolist()]
                raise UserError(f"Split {split!r} has no images of {len(empty)} classes: {', '.join(names)}")
    named = {split: source.class_names for split, source in sources.items() if source.class_names}
    (first, known), *others = named.items() if named else [("", ())]
    for split, other in others:
        differing = [
            (label, a, b) for label, (a, b) in enumerate(zip(known, other, strict=False)) if a and b and a != b
        ]
        if differing:
            label, a, b = differing[0]
            raise UserError(
                f"Class {label} is {a!r} in split {first!r} and {b!r} in split {split!r}: both need the same classes"
            )


def _examples(source: LabelledImages) -> str:
    return f" ({', '.join(source.class_names[:3])}, ...)" if source.class_names else ""


def _name(source: LabelledImages, label: int) -> Any:
    return source.class_names[label] if source.class_names else f"class {label}"
