"""Drawing what a model answers: boxes in a picture, reconstructions, and sheets of examples."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps
from torchvision.transforms.functional import to_pil_image

from vlc.data.batch import Batch
from vlc.data.transforms import denormalize
from vlc.model.sizes import EncoderConfig
from vlc.objectives.base import Outcome
from vlc.objectives.mae import reconstruction

_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4")  # of one box after the other, the best first


def with_boxes(picture: Image.Image, boxes: Sequence[tuple[float, ...]], labels: Sequence[str]) -> Image.Image:
    """A copy of a picture with boxes (left, top, right, bottom) in its pixels, each with its label at its upper corner.

    The first box is drawn last, on top of the others.
    """
    drawn = picture.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    line = max(1, round(min(drawn.size) / 200))
    font = ImageFont.load_default(max(10, round(min(drawn.size) / 30)))
    numbered = list(enumerate(zip(boxes, labels, strict=True)))
    for number, (box, label) in reversed(numbered):
        colour = _COLOURS[number % len(_COLOURS)]
        left, top, right, bottom = box
        pen.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=colour, width=line)
        around = pen.textbbox((left + line, top), label, font=font)
        below = max(0, around[3] - around[1]) if top >= around[3] - around[1] else 0
        place = (left + line, top - below)
        pen.rectangle(pen.textbbox(place, label, font=font), fill=colour)
        pen.text(place, label, fill="white", font=font)
    return drawn


def reconstructions(batch: Batch, outcome: Outcome, size: EncoderConfig) -> list[list[Image.Image]]:
    """For each example of a normalised batch: the image, what the encoder saw of it, and its reconstruction by mae."""
    assert outcome.patches is not None
    images, _ = batch.images_at(0)
    masked, restored = reconstruction(outcome.logits, images, outcome.patches.dropped, size.patch_size)
    rows = zip(images, masked, restored, strict=True)
    return [[to_pil_image(denormalize(image, size.pixel_normalization).cpu()) for image in triple] for triple in rows]


_HEIGHT, _LINE, _SIZE, _MARGIN = 128, 15, 12, 6  # of the pictures of a sheet, its lines and letters, around an example
_WIDTH, _LETTERS, _COLUMNS = 260, 40, 4  # of an example, its lines, and a sheet


def sheet(examples: Sequence[tuple[Sequence[Image.Image], str]]) -> Image.Image:
    """A small picture of examples: their pictures side by side, and below them lines of text."""
    cells = [_cell(pictures, text) for pictures, text in examples]
    rows = [cells[start : start + _COLUMNS] for start in range(0, len(cells), _COLUMNS)]
    heights = [max(cell.height for cell in row) for row in rows]
    drawn = Image.new("RGB", (_WIDTH * len(rows[0]), sum(heights)), "white")
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            drawn.paste(cell, (_WIDTH * column, sum(heights[:number])))
    return drawn


def _cell(pictures: Sequence[Image.Image], text: str) -> Image.Image:
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, _LETTERS, max_lines=3)]
    drawn = Image.new("RGB", (_WIDTH, _HEIGHT + _LINE * len(lines) + 2 * _MARGIN), "white")
    wide = (_WIDTH - _MARGIN) // max(len(pictures), 1) - _MARGIN
    for number, picture in enumerate(pictures):
        small = ImageOps.contain(picture.convert("RGB"), (wide, _HEIGHT))
        drawn.paste(small, (_MARGIN + number * (wide + _MARGIN), _MARGIN))
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(_SIZE)
    for number, line in enumerate(lines):
        pen.text((_MARGIN, _HEIGHT + 2 * _MARGIN + _LINE * number - 2), line, fill="black", font=font)
    return drawn
