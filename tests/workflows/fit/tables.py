"""Small labelled tables with images, made on the spot."""

import json
from pathlib import Path
from typing import Any

from tests.tiny import image_bytes
from vlc.configuration.command_settings import FitSettings
from vlc.workflows.fit.rows import Table, read_table

QUESTIONS = ("what is shown here", "which colour has it", "how many are there")


def images(folder: Path, count: int) -> list[str]:
    """Names of different images in a folder of their own."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = [f"images/{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(image_bytes(number, kind="PNG"))
    return names


def questions(folder: Path, count: int = 30) -> list[dict[str, Any]]:
    """Rows of questions, three about each image."""
    names = images(folder, -(-count // 3))
    return [
        {"picture": names[n // 3], "question": QUESTIONS[n % 3], "answer": ("red", "two", "dog")[(n + n // 3) % 3]}
        for n in range(count)
    ]


def written(folder: Path, rows: list[dict[str, Any]], name: str = "table.jsonl") -> Path:
    """A file of JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder / name


def read(path: Path, **options: Any) -> Table:
    return read_table(path, FitSettings(**options), path.parent / "extracted")
