"""Clean lists: the images that data sets are evaluated on, which no task trains on (Lu et al. 2020, 12-in-1).

Data sets share images: the expressions of RefCOCO's test are about images that VQA trains on, and half of Visual Genome
is in COCO. A list, which `python -m write_arrow clean` writes, has the keys of these images in all collections. When
training data are opened, the rows of these images are left out.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlc.common.errors import MissingFile, UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.image_keys import keys_of_rows
from vlc.data.remote import RemoteFolder, is_url
from vlc.data.spec import DatasetSpec

FILE_NAME = "clean.json"
FORMAT = "vlc clean list 1"
KINDS = {"test": ("test",), "val_test": ("val", "test")}  # value of clean.exclude -> the lists of a file


@dataclass(frozen=True)
class CleanList:
    """The images that training leaves out.

    path: the file.
    exclude: the value of `clean.exclude`, "test" or "val_test".
    keys (N,) string: the keys of the images, sorted, each once.
    splits: the splits that were read for the list, by data set.
    """

    path: Path
    exclude: str
    keys: pa.Array
    splits: Mapping[str, Collection[str]]

    @cached_property
    def digest(self) -> str:
        """A hash of the keys."""
        return hashlib.sha256("\n".join(self.keys.to_pylist()).encode()).hexdigest()

    def holds(self, path: Path, dataset: str, spec: DatasetSpec, split: str) -> np.ndarray:
        """Whether the image of each row of a file is in the list, (rows,) bool. Raises as `keys_of_rows`."""
        keys = pa.chunked_array(list(keys_of_rows(path, dataset, spec, split)), pa.string())
        return pc.is_in(keys, value_set=self.keys).to_numpy()

    def rows(self, path: Path, dataset: str, spec: DatasetSpec, split: str) -> np.ndarray:
        """Sorted numbers (R,) int64 of the rows of a file whose images are in the list. Raises as `keys_of_rows`."""
        return np.flatnonzero(self.holds(path, dataset, spec, split))

    def check(self, dataset: str, spec: DatasetSpec, exists: Callable[[tuple[str, ...]], bool]) -> None:
        """Raise UserError where rows of a data set cannot be compared, or its own evaluated images may not be in the list.

        The latter is an error, and no warning, because the report would say that no image is left which is evaluated.

        exists: whether the files of some stems are there.
        """
        if spec.image_key is None:
            raise UserError(
                f"clean.exclude={self.exclude}: the rows of data set {dataset!r} do not say which images of other data "
                "sets they show (image_key, or own_images where they show none): add it to the row of a data set "
                "of your own, leave the data set out, or pass clean.exclude=none"
            )
        wanted = [split for kind in KINDS[self.exclude] for split in spec.evaluated[kind]]
        lacking = [
            split for split in wanted if split not in self.splits.get(dataset, ()) and exists(spec.tables[split])
        ]
        if lacking:
            raise UserError(
                f"{self.path} was written without split {', '.join(lacking)} of data set {dataset!r}, whose images may be "
                f"trained on. Write it again with: {command(self.path.parent)}"
            )


def command(folder: str | Path) -> str:
    """The command that writes a list of the data sets in a folder."""
    return f"python -m write_arrow clean {folder} --aliases image_data.json instances_train2014.json instances_val2014.json"


def open_clean_list(exclude: str, path: str | None, data_root: str, cache: str | None) -> CleanList | None:
    """The list that a run uses, None where it excludes nothing.

    path: of the list; None: clean.json in data_root.
    cache: the folder for copies where data_root is a URL.
    Raises MissingFile where there is no list, and UserError for a file of another kind.
    """
    if exclude == "none":
        return None
    file = Path(path or Path(data_root) / FILE_NAME)
    if path is None and is_url(data_root):
        remote = RemoteFolder(data_root, cache)
        file = remote.fetch(FILE_NAME) if FILE_NAME in remote.names else Path(FILE_NAME)
    if not file.is_file():
        where = f"{path or f'{data_root}/{FILE_NAME}'}"
        raise MissingFile(
            f"clean.exclude={exclude} needs {where}, which does not exist. Write it with: {command(data_root)}"
        )
    content = _read(file)
    keys = sorted({key for kind in KINDS[exclude] for key in content[kind]})
    return CleanList(file, exclude, pa.array(keys, pa.string()), content["splits"])


def _read(path: Path) -> dict[str, Any]:
    """The content of a list. Raises UserError where the file is something else."""
    try:
        content = json.loads(path.read_bytes())
        valid = content["format"] == FORMAT
        valid &= all(isinstance(key, str) for kind in ("val", "test") for key in content[kind])
        valid &= all(isinstance(splits, list) for splits in content["splits"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        valid = False
    if not valid:
        raise UserError(f"{path} is no clean list. Write one with: {command(path.parent)}")
    return content


@dataclass(frozen=True)
class Removal:
    """What a list has removed from a split that is trained on.

    rows, samples: how many there were.
    rows_left_out, samples_left_out: how many of them were removed.
    left: the rows that samples are still drawn from although their image is in the list, counted in the opened split; None
        for images that no other data set is known to show.
    """

    task: str
    dataset: str
    split: str
    rows: int
    rows_left_out: int
    samples: int
    samples_left_out: int
    left: int | None


def removal(task: str, source: ArrowSplit, split: str, clean: CleanList) -> Removal:
    """What was removed from an opened split. Raises RuntimeError where samples of images in the list are left."""
    spec, removed, left = source.spec, sum(map(len, source.left_out.values())), None
    if not spec.own_images:
        listed = [clean.holds(path, source.dataset, spec, split) for path in source.paths]
        left = int((np.concatenate(listed) & source.rows_with_samples()).sum())
    if left:
        raise RuntimeError(
            f"{left:,} rows of {source.dataset} {split} are of images in {clean.path}, and were not removed"
        )
    removed_samples = source.num_left_out
    return Removal(
        task, source.dataset, split, source.num_rows, removed, len(source) + removed_samples, removed_samples, left
    )
