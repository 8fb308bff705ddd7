"""Occlusion (Zeiler and Fergus 2014): what the value of an answer loses where a part of the request is blank."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from vlc.use.explain.asked import Asked

WINDOWS = 8  # along each side of an image, at most
_AT_ONCE = 32  # blanked copies of the request


def occlusion(asked: Asked) -> list[Tensor]:
    """How much the value falls without each word and each window of patches: (S,) for each pass.

    An image has at most 8 x 8 windows, so that large ones do not cost more. What is left out is replaced by the same place
    of the blank request (`Asked.blank_passes`), before the first block.
    """
    given = [one.entering[0].detach() for one in asked.passes]
    blank = [one.entering[0] for one in asked.blank_passes()]
    found = [torch.zeros(tokens.shape[1], device=tokens.device) for tokens in given]
    parts = [(number, part) for number in range(len(given)) for part in _parts(asked, number)]
    whole = asked.value.detach()
    for start in range(0, len(parts), _AT_ONCE):
        some = parts[start : start + _AT_ONCE]
        copies = [tokens.repeat(len(some), 1, 1, 1) for tokens in given]
        for place, (number, part) in enumerate(some):
            copies[number][place][:, part] = blank[number][:, part]
        with torch.no_grad():
            values = asked.values([own.flatten(0, 1) for own in copies], len(some))
        for (number, part), value in zip(some, values, strict=True):
            found[number][part] = whole - value
    return found


def _parts(asked: Asked, number: int) -> Iterator[Tensor]:
    """The places of each word of a pass, and of the patches in each window of its images."""
    one = asked.passes[number]
    for name in one.texts:
        yield from asked.shown_tokens(number, name).split(1)
    for name in one.images:
        cells, places, (rows, columns) = asked.patches(number, name)
        side = math.ceil(max(rows, columns) / WINDOWS)
        windows = cells // columns // side * WINDOWS + cells % columns // side
        yield from (places[windows == window] for window in windows.unique())
