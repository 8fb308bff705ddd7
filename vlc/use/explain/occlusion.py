"""Occlusion (Zeiler and Fergus 2014): what the value of an answer loses where a part of the request is blank."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from vlc.data.batch import Batch
from vlc.use.explain.asked import Asked

WINDOWS = 8  # along each side of an image, at most
_AT_ONCE = 32  # copies of the request


def occlusion(asked: Asked) -> list[Tensor]:
    """How much the value falls without each word and each window of an image: (S,) for each pass.

    A window is of the mean colour of its image, and a word is [MASK]. An image has at most 8 x 8 windows, so large ones
    do not cost more. Their pixels are blanked, as boxes and the words that name boxes have features of these pixels too.
    """
    found = []
    for number, one in enumerate(asked.passes):
        losses = torch.zeros(one.states.shape[1], device=one.states.device)
        places = torch.cat([asked.shown_tokens(number, name) for name in one.texts] or [losses[:0].long()])
        for some in places.split(_AT_ONCE) if len(places) else ():  # no places would be one part without any
            losses[some] = _without_words(asked, number, some)
        for name in one.images:
            cells, places, (rows, columns) = asked.patches(number, name)
            side = math.ceil(max(rows, columns) / WINDOWS)
            windows, place = (cells // columns // side * WINDOWS + cells % columns // side).unique(return_inverse=True)
            hidden = torch.zeros(len(windows), rows * columns, device=cells.device)
            hidden[place, cells] = 1
            parts = hidden.view(-1, rows, columns).split(_AT_ONCE)
            losses[places] = torch.cat([_without_patches(asked, name, part) for part in parts])[place]
        found.append(losses)
    return found


@torch.no_grad()
def _without_words(asked: Asked, number: int, places: Tensor) -> Tensor:
    """What the value loses without each of some words of a pass, (N,)."""
    copies = [one.entering[0].repeat(len(places), 1, 1, 1) for one in asked.passes]
    blank = asked.blank_passes()[number].entering[0]
    for copy, place in zip(copies[number], places, strict=True):
        copy[:, place] = blank[:, place]
    return asked.value - asked.values([own.flatten(0, 1) for own in copies], len(places))


@torch.no_grad()
def _without_patches(asked: Asked, name: str, hidden: Tensor) -> Tensor:
    """What the value loses without some patches of the image of a segment, hidden (N, rows, columns), 1 = hidden: (N,)."""
    return asked.value - asked.chosen.values(asked.logits(with_blank_patches(asked, name, hidden)))


def with_blank_patches(asked: Asked, name: str, hidden: Tensor) -> Batch:
    """A batch of copies of the request, each with the mean colour in hidden patches of the image of a segment."""
    batch, size = asked.batches(len(hidden)), asked.model.module.encoder.size.patch_size
    assert batch.images is not None
    number = int(name.partition("_")[2] or 0)  # the image of a segment `image`, `image_1`, ...
    pixels = batch.images.pixels.clone()
    blank = pixels[:, number].mean(dim=(2, 3), keepdim=True)
    mask = hidden[:, None].repeat_interleave(size, dim=2).repeat_interleave(size, dim=3)
    pixels[:, number] = torch.lerp(pixels[:, number], blank, mask)
    return replace(batch, images=replace(batch.images, pixels=pixels))
