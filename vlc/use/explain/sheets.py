"""Sheets of small pictures: attention by layers and heads, and the heat map of each word."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from vlc.common.errors import UserError

_WIDEST = 14.0  # inches of a sheet


def attention_sheet(view: np.ndarray, title: str) -> Image.Image:
    """A view (layers, heads, queries, keys) as a sheet with a row for each layer and a column for each head."""
    layers, heads, queries, keys = view.shape
    figure = _figure(layers, heads, queries / keys, title)
    for (layer, head), axes in np.ndenumerate(figure.subplots(layers, heads, squeeze=False)):
        axes.imshow(view[layer, head], cmap="viridis", vmin=0, aspect="auto", interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        if layer == 0:
            axes.set_title(f"head {head + 1}", fontsize=8)
        if head == 0:
            axes.set_ylabel(f"layer {layer + 1}", fontsize=8)
    return _drawn(figure)


def word_sheet(pictures: Sequence[Image.Image], words: Sequence[str], title: str) -> Image.Image:
    """Pictures with the words that they belong to, up to six in a row."""
    columns = min(6, len(pictures))
    rows = -(-len(pictures) // columns)
    figure = _figure(rows, columns, pictures[0].height / pictures[0].width, title)
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set_axis_off()
        if place < len(pictures):
            axes.imshow(pictures[place])
            axes.set_title(_plain(words[place]), fontsize=9)
    return _drawn(figure)


def _figure(rows: int, columns: int, shape: float, title: str) -> Any:
    """A figure for rows and columns of pictures, whose height over width is `shape`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('sheets of pictures need matplotlib: pip install -e ".[explain]"') from error
    width = min(_WIDEST, 2.0 * columns)
    height = width / columns * min(max(shape, 0.25), 4) * rows
    figure = Figure(figsize=(width, height + 0.6 + 0.25 * rows), layout="constrained", dpi=100)
    figure.suptitle(_plain(title), fontsize=10)
    return figure


def _plain(text: str) -> str:
    """A text without the signs that matplotlib reads as mathematics."""
    return text.replace("$", r"\$")


def _drawn(figure: Any) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
