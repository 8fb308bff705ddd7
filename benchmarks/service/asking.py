"""Requests to heads, as HTTP, and the check of their answers against those of vlc.Model."""

import base64
import io
import json
import random
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from benchmarks.pictures import photograph
from vlc.data.tokens import MASK
from vlc.objectives.base import Answer
from vlc.use.forms import Field, Request
from vlc.use.model import Model

TOLERANCE = 1e-3  # of a value: batches of other sizes round differently
_WORDS = "red blue green dog cat horse house tree car ball left right above below small large two three".split()
_SIZES = ((64, 48), (160, 120), (320, 240), (96, 96))
_ELAPSED = re.compile(rb'"elapsed_ms":[\d.e+-]+,?')
_AS_JSON = ("boxes", "history", "named_boxes")  # in forms


@dataclass(frozen=True)
class Asked:
    """A request with its HTTP message.

    message: of HTTP/1.1, with headers and body.
    """

    head: str
    request: Request
    message: bytes


def requests(model: Model, heads: Sequence[str], count: int, seed: int) -> list[Asked]:
    """Requests to heads in turn, each with a text of its own; every second one is a form, the others are JSON."""
    rng, made = random.Random(seed), []
    for number in range(count):
        head = heads[number % len(heads)]
        fields = model.forms[head].fields(model, model.module.objectives[head])
        values = _values(fields, rng, number)
        encode = form if number // len(heads) % 2 else as_json
        made.append(Asked(head, Request(**values), message(f"/v1/{head}", *encode(values))))
    return made


def _values(fields: Mapping[str, Field], rng: random.Random, number: int) -> dict[str, Any]:
    words = rng.choices(_WORDS, k=5)
    text = f"{' '.join(words)} {number}"
    known: dict[str, Any] = {
        "text": f"{text} {MASK}" if MASK in getattr(fields.get("text"), "about", "") else text,
        "second_text": " ".join(rng.choices(_WORDS, k=4)),
        "boxes": [_box(rng) for _ in range(1 if "boxes" in fields and fields["boxes"].required else 3)],
        "options": [" ".join(rng.choices(_WORDS, k=3)) for _ in range(4)],
        "word": words[0],
    }
    values = {name: known[name] for name in fields if name in known}
    if "images" in fields:
        values["images"] = [picture(rng.randrange(64)) for _ in range(fields["images"].count or 1)]
    return values | {name: rng.choice(field.choices) for name, field in fields.items() if field.choices}


def _box(rng: random.Random) -> list[float]:
    left, top = rng.uniform(0, 30), rng.uniform(0, 20)
    return [left, top, left + rng.uniform(5, 30), top + rng.uniform(5, 25)]


@lru_cache(maxsize=64)
def picture(seed: int) -> bytes:
    """A JPEG, or for odd seeds a PNG."""
    file = io.BytesIO()
    photograph(*_SIZES[seed // 2 % len(_SIZES)], seed).save(file, "PNG" if seed % 2 else "JPEG")
    return file.getvalue()


def as_json(values: Mapping[str, Any]) -> tuple[str, bytes]:
    """The content type and the body of fields as JSON."""
    encoded = {"images": [base64.b64encode(image).decode() for image in values.get("images", ())]}
    return "application/json", json.dumps({**values, **(encoded if "images" in values else {})}).encode()


def form(values: Mapping[str, Any], boundary: str = "between-the-parts") -> tuple[str, bytes]:
    """The content type and the body of fields as a form; lists are repeated, and bytes are files."""
    body = b""
    for name, value in values.items():
        value = json.dumps(value) if name in _AS_JSON else value
        for one in value if isinstance(value, list) else [value]:
            file = '; filename="a"\r\nContent-Type: application/octet-stream' if isinstance(one, bytes) else ""
            content = one if isinstance(one, bytes) else str(one).encode()
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
            body += head.encode() + content + b"\r\n"
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()


def message(path: str, kind: str, body: bytes) -> bytes:
    """An HTTP/1.1 request."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def without_time(body: bytes) -> bytes:
    """The body of an answer without the time that it took, so that equal answers are equal bytes."""
    return _ELAPSED.sub(b"", body)


# -- what vlc.Model answers


def offline(model: Model, asked: Sequence[Asked], batch: int) -> list[list[Answer]]:
    """Prepare requests and ask them in batches of one head and shape; return the answers of each, in their order."""
    prepared = [model.prepare(one.head, one.request) for one in asked]
    groups: dict[Hashable, list[int]] = {}
    for at, one in enumerate(prepared):
        groups.setdefault((asked[at].head, one.shape), []).append(at)
    answers: dict[int, list[Answer]] = {}
    for numbers in groups.values():
        for start in range(0, len(numbers), batch):
            some = numbers[start : start + batch]
            found = model.ask(asked[some[0]].head, [prepared[at] for at in some])
            answers.update(zip(some, found, strict=True))
    return [answers[at] for at in range(len(asked))]


def is_answer(body: bytes, asked: Asked, expected: Sequence[Answer]) -> bool:
    """Whether the body of a response says what vlc.Model answers."""
    content = json.loads(body)
    (result,) = content["results"]
    if content["task"] != asked.head or result["text"] != asked.request.text or len(result["answers"]) != len(expected):
        return False
    return all(map(_says, result["answers"], expected))


def _says(given: Mapping[str, Any], expected: Answer) -> bool:
    if given["about"] != expected.about:
        return False
    if expected.boxes:  # in their order, as the names of predicted boxes are rounded edges
        boxes = [edge for one in given["choices"] for edge in (one["value"], *one["box"])]
        own = [edge for (_, value), box in zip(expected.choices, expected.boxes, strict=True) for edge in (value, *box)]
        return len(boxes) == len(own) and all(map(_close, boxes, own))
    values, known = {one["answer"]: one["value"] for one in given["choices"]}, dict(expected.choices)
    # Of many answers the best are sent, and the last of them may be another one of the same value.
    shared = values.keys() & known.keys()
    return len(shared) >= max(1, len(known) - 1) and all(_close(values[name], known[name]) for name in shared)


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * max(1, abs(other))
