"""Drawing boxes into a picture."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

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
