"""Raw data of every published layout, and short ways to write and to read."""

import io
import shutil
import tarfile
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.conftest import GOLDEN
from tests.tiny import image_bytes
from write_arrow.__main__ import main
from write_arrow.machine.writer import write_table
from write_arrow.sources import emoji_boxes, multi30k
from write_arrow.sources.emoji_scenes import SPRITE, Scene

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature raw data sets that golden/arrow was made of. Read only."""
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / "raw.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    return folder / "raw"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Runs `write_arrow NAME --root ROOT --out tmp_path/out *words` in this process and returns the output folder."""

    def run(name: str, root: Path | str, *words: str, out: str = "out") -> Path:
        workers = [] if "--workers" in words or name == "text" else ["--workers", "1"]
        main([name, "--root", str(root), "--out", str(tmp_path / out), *workers, *words])
        return tmp_path / out

    return run


@pytest.fixture
def multi30k_root(tmp_path: Path) -> Path:
    """The golden files of Multi30k and of lexical translation, with images."""
    return write_multi30k_root(tmp_path / "raw")


def write_multi30k_root(root: Path) -> Path:
    """Write the golden files of Multi30k and of lexical translation, with images, into a new folder, and return it."""
    for name in ("multi30k", "mlt"):
        shutil.copytree(GOLDEN / "tasks" / name, root, dirs_exist_ok=True)
    number = 0
    for split in multi30k.SPLITS:
        for line in (root / split.images).read_text().splitlines():
            path, number = root / split.path(multi30k.image_name(line)), number + 1
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image_bytes(number))
    return root


def table(path: Path) -> pa.Table:
    return pa.ipc.open_file(str(path)).read_all()


def rows(path: Path, key: str = "image_id") -> list[dict[str, Any]]:
    """All rows, sorted by an id."""
    return sorted(table(path).to_pylist(), key=lambda row: (row[key], str(row)))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_embedded(source: ModuleType, folder: Path, *words: str) -> dict[str, list[dict]]:
    """The rows of each split of an embedded data set, which is written into a folder; words: of the command line."""
    parser = ArgumentParser()
    source.add_options(parser)
    paths = [write_table(one, folder) for one in source.tables(parser.parse_args(words))]
    name = source.__name__.rpartition(".")[2]
    return {path.stem.removeprefix(f"{name}_"): table(path).to_pylist() for path in paths}


def shown(row: dict) -> Scene:
    """The scene of a row of an embedded data set with boxes."""
    return Scene(dict(zip(row["cells"], row["objects"], strict=True)), emoji_boxes.SIDE)


def check_boxes(row: dict, boxes: Mapping[int, list[float]]) -> None:
    """Something is drawn in a row's image at a box, by its id, exactly where the row says that a thing stands."""
    pixels = np.asarray(Image.open(io.BytesIO(row["image"]))).astype(int)
    assert pixels.shape == (row["height"], row["width"], 3)
    background = np.median([pixels[y, x] for y in (0, -1) for x in (0, 31, 32, 63, 64, 95)], axis=0)
    for number, box in boxes.items():
        left, top, right, bottom = map(int, box)
        assert (right - left, bottom - top) == (SPRITE, SPRITE)
        assert right <= row["width"]
        assert bottom <= row["height"]
        image, cell = divmod(number, emoji_boxes.SIDE**2)
        assert image == row["image_id"]
        changed = abs(pixels[top:bottom, left:right] - background).sum(-1) > 30
        assert (changed.sum() > 20) == (cell in row["cells"])


def check_seed(write: Callable[..., Any], folder: Path) -> None:
    """Every file is the same for the same seed, and another for another seed; write: takes a folder and options."""
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        write(folder / name, "--seed", seed)
    paths = list((folder / "a").glob("*.arrow"))
    assert paths
    for path in paths:
        a, b, c = ((folder / name / path.name).read_bytes() for name in "abc")
        assert a == b
        assert a != c
