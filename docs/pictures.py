"""The picture and the figures of the README: `python -m docs.pictures` takes them from a finished demonstration.

It reads report.html and table.json of `make demo`, and writes docs/pictures/demo.png and docs/demo.json.
"""

import argparse
import base64
import html
import io
import re
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).parent
TRIPLES = 4  # reconstructions that are shown
_SIDE, _GAP, _LINE = 128, 16, 20  # pixels: side of an image, space between two, height of a line of text
_BLACK, _GREY, _GREEN, _RED = "#222222", "#666666", "#167a3a", "#b3261e"
_SECTION = r'<section id="[^"]*" class="{}">(.*?)</section>'
_CARD = re.compile(
    r'<div class="card"><img src="data:image/png;base64,([^"]+)".*?<span class="kind">(.*?)</span><p[^>]*>(.*?)</p>\s*'
    r'<span class="answer (?:right|wrong)"[^>]*>(.*?)</span>(?: <span class="truth kind"[^>]*>\(true: (.*?)\)</span>)?',
    re.DOTALL,
)


def questions(page: str) -> dict[str, list[tuple[Image.Image, str, str, str | None]]]:
    """The questions of a report by type: image, question, answer of the model, true answer if it differs."""
    found: dict[str, list] = {}
    for data, kind, *texts in _CARD.findall(_section(page, "first")):
        question, answer, truth = map(html.unescape, texts)
        found.setdefault(kind, []).append((_image(data), question, answer, truth or None))
    return found


def triples(page: str) -> list[list[Image.Image]]:
    """The reconstructions of a report: input, input without the dropped patches, reconstruction."""
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="">', _section(page, "reconstructions"))
    return [[_image(data) for data in found[start : start + 3]] for start in range(0, len(found), 3)]


def _section(page: str, name: str) -> str:
    """The first section of a name in a report."""
    (section, *_) = re.findall(_SECTION.format(name), page, re.DOTALL)
    return section


def _image(data: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    return image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST)


def picture(page: str) -> Image.Image:
    """All questions of a report with the answers, a column for each type, above some reconstructions."""
    columns, font = questions(page), ImageFont.load_default(size=14)
    cell = (_SIDE + 2 * _GAP, _SIDE + 5 * _LINE + _GAP)
    width, bottom = len(columns) * cell[0] + _GAP, _GAP + max(map(len, columns.values())) * cell[1]
    small = (width - _GAP * (TRIPLES + 1)) // (3 * TRIPLES)
    canvas = Image.new("RGB", (width, bottom + _LINE + _GAP + small), "white")
    draw = ImageDraw.Draw(canvas)
    for column, asked in enumerate(columns.values()):
        for row, (image, question, answer, truth) in enumerate(asked):
            left, top = _GAP + column * cell[0], _GAP + row * cell[1]
            canvas.paste(image, (left, top))
            lines = [(text, _BLACK) for text in textwrap.wrap(question, 20)]
            lines.append((answer, _RED if truth else _GREEN))
            lines += [(f"(true: {truth})", _GREY)] if truth else []
            for number, (text, colour) in enumerate(lines):
                draw.text((left, top + _SIDE + number * _LINE), text, fill=colour, font=font)
    draw.text((_GAP, bottom), "input, what the encoder saw, reconstruction", fill=_GREY, font=font)
    for number, images in enumerate(triples(page)[:TRIPLES]):
        for place, image in enumerate(images):
            left = _GAP + number * (3 * small + _GAP) + place * small
            canvas.paste(image.resize((small - 4, small - 4), Image.Resampling.NEAREST), (left, bottom + _LINE + 4))
    return canvas


def main(words: list[str] | None = None) -> None:
    """words: the command line, by default the arguments of the process."""
    parser = argparse.ArgumentParser(prog="python -m docs.pictures", description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("result/demo"), help="folder that the demonstration wrote")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the pages")
    arguments = parser.parse_args(words)
    page = (arguments.demo / "report.html").read_text(encoding="utf-8")
    folder = arguments.out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    picture(page).quantize(128).save(folder / "demo.png", optimize=True)
    (arguments.out / "demo.json").write_bytes((arguments.demo / "table.json").read_bytes())


if __name__ == "__main__":
    main()
