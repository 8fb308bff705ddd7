"""Samples made on the spot, for the tests of batches and their parts."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from tests import tiny
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.keys import Key
from vlc.data.parts import Part
from vlc.data.sample import Preparation
from vlc.data.samples import Samples
from vlc.data.tokens import TextEncoder, load_tokenizer
from vlc.data.transforms import transform

ENCODER = TextEncoder(load_tokenizer("emoji"), max_text_len=12)


def preparation(pipeline: str = "mae") -> Preparation:
    return Preparation(transform=transform(pipeline, 32), num_patches=4, text_encoder=ENCODER)


def samples(
    path: Path, columns: dict[str, list[Any]], parts: Collection[Part], *, training: bool = True, pipeline: str = "mae"
) -> Samples:
    """A table of captions as a split."""
    source = ArrowSplit([tiny.write_table(path / "t.arrow", columns)], CATALOG["coco"], "coco", {"image", "caption"})
    return Samples("train", [source], parts, preparation(pipeline), training=training, seed=5)


def captions(*texts: list[str]) -> dict[str, list[Any]]:
    return {"image": [tiny.image_bytes(number) for number in range(len(texts))], "caption": list(texts)}


def keys(*numbers: int, epoch: int = 0) -> list[Key]:
    return [Key(epoch, number) for number in numbers]
