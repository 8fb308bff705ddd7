"""The page: sections are made, pictures encoded, and the whole is written as one file below a size."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from vlc.common.errors import UserError
from vlc.common.terminal import printable
from vlc.evaluation.predictions import write_text
from vlc.use.report.run import Run
from vlc.use.report.section import Section
from vlc.use.report.sections import SECTIONS

MOST_BYTES = 5_000_000
_SIDES = (224, 160, 112, 80, 56)  # of pictures, in pixels: the first one with which the page is small enough
_SMALL = 128  # pictures up to this side stay without loss
_JPEG = 80


@dataclass(frozen=True)
class Part:
    """The sections of one run, below a heading; empty: there is one run."""

    heading: str
    run: Run


@dataclass(frozen=True)
class Page:
    """What a page has.

    command: that makes it again.
    lead: a text at its beginning.
    first: sections before those of the parts.
    """

    title: str
    command: str
    parts: Sequence[Part]
    lead: str = ""
    first: Sequence[Section] = field(default_factory=list)


def write_page(page: Page, path: Path) -> list[str]:
    """Write a page, and return which sections were left out and why.

    Raises UserError where it does not become smaller than 5 MB.
    """
    parts, left_out = [("", list(page.first))] if page.first else [], list[str]()
    for part in page.parts:
        sections, without = made(part.run)
        parts.append((part.heading, sections))
        left_out += [f"{part.heading}: {line}" if part.heading else line for line in without]
    for side in _SIDES:
        text = render(page, parts, left_out, side)
        if len(text.encode("utf-8", "replace")) < MOST_BYTES:
            write_text(path, text)
            return left_out
    raise UserError(f"{path} would be larger than {MOST_BYTES / 1e6:.0f} MB: name fewer runs, or one with fewer tasks")


def made(run: Run) -> tuple[list[Section], list[str]]:
    """The sections of a run, and what was left out with the reason."""
    sections: list[Section] = []
    reasons: dict[str, list[str]] = {}  # the titles of sections, by why they are missing
    for title, row in SECTIONS.items():
        if row.compares and run.beside is None:
            continue
        try:
            section = row.section(run)
            reason = row.lacking
        except UserError as error:  # a reader is told, on the page and on the terminal
            section, reason = None, str(error)
        if section is None:
            reasons.setdefault(reason, []).append(title)
        else:
            sections.append(section)
    return sections, [printable(f"{', '.join(titles)}: {reason}") for reason, titles in reasons.items()]


def render(page: Page, parts: Sequence[tuple[str, Sequence[Section]]], left_out: Sequence[str], side: int) -> str:
    """The page as HTML. side: of its pictures, in pixels."""
    environment = Environment(loader=PackageLoader("vlc.use.report"), autoescape=True, undefined=StrictUndefined)
    environment.filters["picture"] = partial(data_url, side=side)
    for name, shown in (("number", number), ("share", share), ("shown", printable)):
        environment.filters[name] = shown
    return environment.get_template("page.html.jinja").render(page=page, parts=parts, left_out=left_out)


def data_url(image: Image.Image, side: int = _SMALL) -> Markup:
    """A picture, no larger than a side, as a data URL."""
    shown = image.convert("RGB")
    shown.thumbnail((side, side))
    small, buffer = max(shown.size) <= _SMALL, io.BytesIO()
    shown.save(buffer, "PNG" if small else "JPEG", optimize=True, **({} if small else {"quality": _JPEG}))
    kind = "png" if small else "jpeg"
    return Markup(f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}")


def number(value: Any) -> str:
    """A number with four digits; "-" for none."""
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def share(value: float) -> str:
    return f"{100 * value:.1f} %"
