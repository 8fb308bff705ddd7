"""The page of an explanation: one HTML file with all its pictures, which asks no other host for anything."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape
from PIL import Image

from vlc.use.explain.explanation import Explanation
from vlc.use.explain.methods import METHODS

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(default=True, default_for_string=True),
)
_LARGEST, _WIDEST = 480, 1600  # sides of a picture, and of a sheet, in pixels
_MOST_VALUES = 2_000_000  # of the attention of a page; above that the heads are averaged


def explanation_page(
    found: Explanation,
    text: str,
    pictures: Sequence[Image.Image],
    answers: Sequence[tuple[str, float]],
    sheets: Mapping[str, Image.Image],
    boxes: Image.Image | None = None,
) -> str:
    """Return the page as HTML.

    text: that the head was asked.
    pictures: the upright images.
    answers: of the head, with their values.
    sheets: the views of attention by their titles.
    boxes: the picture with the boxes that the head chose; None: it chose none.
    """
    names = [f"answer: {found.answer}", *found.tokens]
    maps = []
    for number, (picture, own) in enumerate(zip(pictures, found.maps, strict=True)):
        per_word = [] if own.per_word is None else list(own.per_word)
        maps.append([_address(found.overlay(picture, values, number)) for values in (own.values, *per_word)])
    strongest = max(float(np.abs(found.words).max(initial=0)), 1e-12)
    return _TEMPLATES.get_template("explanation.html.jinja").render(
        found=found,
        method=METHODS[found.method],
        text=text,
        answers=answers,
        names=names[: len(maps[0])],
        maps=maps,
        pictures=[_address(picture) for picture in pictures],
        words=[
            (token, float(value), abs(float(value)) / strongest)
            for token, value in zip(found.tokens, found.words, strict=True)
        ],
        sheets={title: _address(sheet, _WIDEST) for title, sheet in sheets.items()},
        boxes=None if boxes is None else _address(boxes),
        passes=[_pass(found, number) for number in range(len(found.sequences))],
    )


def _pass(found: Explanation, number: int) -> dict[str, Any]:
    """The attention of a pass for the page's script: bytes by layer, head, query and key, each row by its highest value."""
    sequence = found.sequences[number]
    attention = sequence.attention.astype(np.float32)
    if attention.size > _MOST_VALUES:
        attention = attention.mean(axis=1, keepdims=True)
    scaled = 255 * attention / attention.max(axis=3, keepdims=True).clip(1e-12)
    return {
        "names": sequence.names,
        "texts": [segment in sequence.texts for segment in sequence.segments],
        "patches": [
            segment in sequence.images and name != segment
            for name, segment in zip(sequence.names, sequence.segments, strict=True)
        ],
        "grid": list(found.maps[min(number, len(found.maps) - 1)].values.shape),
        "shape": list(attention.shape),
        "values": base64.b64encode(scaled.round().astype(np.uint8).tobytes()).decode(),
    }


def _address(picture: Image.Image, largest: int = _LARGEST) -> str:
    """The picture, made smaller where it is large, as an address that holds it."""
    file, shown = io.BytesIO(), picture.copy()
    shown.thumbnail((largest, largest))
    shown.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
