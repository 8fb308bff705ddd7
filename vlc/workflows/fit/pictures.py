"""The images of a table, decoded once: which of them are the same picture, how large they are, and which are damaged."""

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlc.common.terminal import progress
from vlc.data.images import UndecodableImage, open_image, to_pil
from vlc.evaluation.predictions import write_text


@dataclass(frozen=True)
class Picture:
    """A picture.

    key: the same for files with the same pixels, whatever their names and formats.
    width, height: in pixels, upright.
    """

    key: str
    width: int
    height: int


def pictures_of(paths: Iterable[str], cache: Path) -> tuple[dict[str, Picture], dict[str, str]]:
    """Decode the images at these paths. Returns pictures by path, and the reasons why others cannot be used.

    cache: a file with the pictures of an earlier call, which are not decoded again where their files are the same.
    """
    known = _read_cache(cache)
    pictures, damaged, unknown = {}, {}, []
    for path in dict.fromkeys(paths):
        stored = known.get(path)
        if stored and stored[0] == state_of(path):
            pictures[path] = Picture(*stored[1:])
        else:
            unknown.append(path)
    with (
        progress("looking at images", len(unknown), shown=bool(unknown)) as advance,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        for path, found in zip(unknown, pool.map(_picture, unknown), strict=True):
            if isinstance(found, Picture):
                pictures[path] = found
            else:
                damaged[path] = found
            advance(1)
    write_text(cache, json.dumps({path: [state_of(path), *astuple(one)] for path, one in pictures.items()}))
    return pictures, damaged


def state_of(path: str) -> list[int]:
    """What changes when a file is written: its size and the time of its last change."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def _read_cache(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _picture(path: str) -> Picture | str:
    try:
        image = to_pil(open_image(pa.py_buffer(Path(path).read_bytes()))).convert("RGB")
    except (UndecodableImage, OSError) as error:
        return f"the image {path} cannot be read ({error})"
    digest = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    return Picture(digest[:32], image.width, image.height)
