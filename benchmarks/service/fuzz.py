"""Odd and wrong requests, which must be answered as /openapi.json says: by schemathesis, and forms by hypothesis."""

import argparse
import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import hypothesis
import schemathesis
from fastapi import FastAPI
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from benchmarks.report import report
from benchmarks.service.asking import picture
from benchmarks.service.served import opened
from vlc.configuration.command_settings import ServiceSettings
from vlc.use.service.app import create_app

_CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
_CHARSETS = (
    "utf-8 latin-1 utf-16 utf-7 idna punycode undefined unicode_escape rot13 zip base64 cp037 nonsense \0".split(" ")
)
_NAMES = ("images", "text", "second_text", "boxes", "options", "history", "named_boxes", "word", "language", "answer",
          "caption", "candidates", "head", "method", "choice", "num_results", "fileupload", "task")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--requests", type=int, default=10_000, help="half by schemathesis, half forms")


@dataclass
class Outcome:
    """How requests were answered.

    statuses: how often each came.
    faults: answers that should not have come, with the requests.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def note(self, request: str, response: Any, validate: Callable[[], None]) -> None:
        """Count a response, and keep what is wrong about it."""
        self.statuses[response.status_code] += 1
        try:
            validate()
        except FailureGroup as group:
            self.faults += [f"{request}: {response.status_code} {_told(one)}" for one in group.exceptions]


def _told(failure: BaseException) -> str:
    return f"{failure.title}: {failure.message}" if isinstance(failure, Failure) else repr(failure)


def _settings(count: int) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def by_schema(app: FastAPI, count: int, seed: int) -> Outcome:
    """Send requests that fit the description of the service, and some that do not, to every address."""
    schema, outcome = schemathesis.openapi.from_asgi("/openapi.json", app), Outcome()
    operations = [one.ok() for one in schema.get_all_operations() if isinstance(one, Ok)]
    modes: list[Any] = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    cases = st.one_of([one.as_strategy(generation_mode=mode) for one in operations for mode in modes])

    @_settings(count)
    @hypothesis.seed(seed)
    @hypothesis.given(cases)
    def send(case: Any) -> None:
        response = case.call(app=app)
        request = f"{case.method} {case.formatted_path} {case.media_type} {case.body!r:.300}"
        outcome.note(request, response, lambda: case.validate_response(response, checks=_CHECKS))

    send()
    return outcome


# -- forms


_texts = st.text(st.characters(codec="utf-8"), max_size=60) | st.sampled_from(
    ["a dog", "[MASK]", "[MASK] " * 30, " ", "\0", "null", "de", "yes", "ein Hund " * 300, "🙂" * 50, "‮abc", "1" * 1999]
)
_numbers = st.integers(-(10**20), 10**20) | st.floats(width=32) | st.floats(0, 40, width=16)
_values = st.recursive(
    st.none() | st.booleans() | _numbers | _texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=12,
)
_boxes = st.lists(st.lists(_numbers, min_size=4, max_size=4), min_size=1, max_size=4)
_pictures = st.integers(0, 7).map(picture) | st.binary(max_size=60)


@st.composite
def _parts(draw: st.DrawFn, valid: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    """The parts of a form, each with its headers: valid ones, some of which are taken away, changed or repeated."""
    values: list[tuple[str, Any]] = []
    for name, value in valid.items():
        for one in value if isinstance(value, list) and name != "boxes" else [value]:
            values += [(name, one)] * draw(st.sampled_from([0, 1, 1, 1, 1, 1, 1, 2]))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        values.append((draw(st.sampled_from(_NAMES) | _texts), draw(_texts | _boxes | _values | _pictures)))
    parts = []
    for name, value in values:
        if not isinstance(value, bytes) and draw(st.integers(0, 7)) == 0:
            value = draw(_boxes | _values if name in ("boxes", "history", "named_boxes") else _texts)
        file = isinstance(value, bytes) if draw(st.integers(0, 19)) else not isinstance(value, bytes)
        content = (
            value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
        )
        head = f'Content-Disposition: form-data; name="{name}"' + ('; filename="a.png"' if file else "")
        parts.append((draw(_headers(head.encode())), content))
    return draw(st.permutations(parts))


@st.composite
def _headers(draw: st.DrawFn, usual: bytes) -> bytes:
    """The headers of a part, seldom odd ones."""
    odd = [usual + b"\r\nContent-Type: text/plain; charset=utf-16", usual + b"\r\nContent-Transfer-Encoding: base64",
           usual.replace(b"form-data", b"attachment"), usual.replace(b'"', b""), b"X: y", usual + b"\r\n" + usual,
           usual + b"; name*=utf-8''%ff", usual + b"\r\nX: " + b"y" * 9000, b""]  # fmt: skip
    return draw(st.sampled_from(odd)) if draw(st.integers(0, 29)) == 0 else usual


@st.composite
def _messages(draw: st.DrawFn, addresses: Mapping[str, Mapping[str, Any]]) -> tuple[str, bytes, bytes]:
    """The address, the content type and the body of a form, of which some are damaged."""
    address = draw(st.sampled_from(sorted(addresses)))
    parts = draw(_parts(addresses[address]))
    body = b"".join(b"--between\r\n" + head + b"\r\n\r\n" + content + b"\r\n" for head, content in parts)
    body += b"--between--\r\n"
    kind = "multipart/form-data; boundary=between"
    match draw(st.integers(0, 15)):
        case 0:
            at = draw(st.integers(0, len(body)))
            body = body[:at]
        case 1:
            at = draw(st.integers(0, len(body) - 1))
            body = body[:at] + draw(st.binary(min_size=1, max_size=4)) + body[at + 1 :]
        case 2:
            kind += f"; charset={draw(st.sampled_from(_CHARSETS))}"
        case 3:
            kind = draw(st.sampled_from(["multipart/form-data", "multipart/form-data; boundary=", "Multipart/Form-Data;"
                        " boundary=between", 'multipart/form-data; boundary="between', "text/plain", "multipart/form-data;"
                        f" boundary={'b' * 3000}", "multipart/form-data; boundary=\xe9", "application/json"]))  # fmt: skip
    return address, kind.encode("latin-1"), body


def by_forms(app: FastAPI, count: int, seed: int) -> Outcome:
    """Send forms to every address that takes one."""
    service, outcome = app.state.service, Outcome()
    schema = schemathesis.openapi.from_dict(app.openapi())
    addresses: dict[str, Mapping[str, Any]] = {
        path: {} for path, methods in app.openapi()["paths"].items() if "requestBody" in methods.get("post", {})
    }
    known = {"text": "a [MASK] dog", "second_text": "ein Hund", "boxes": [[1, 2, 20, 9]], "options": ["a dog", "a cat"]}
    for path, head in service.heads.items():
        given = {name: known[name] for name, one in head.fields.items() if name in known}
        given |= {name: one.choices[0] for name, one in head.fields.items() if one.choices} | (
            {"word": "dog"} if "word" in head.fields else {}
        )
        images = head.fields["images"].count if "images" in head.fields else 0
        addresses[f"/v1/{path}"] = given | ({"images": [picture(one) for one in range(images)]} if images else {})
    addresses["/"] = {"fileupload": picture(0), "text_input": "a dog"}
    path, head = next((path, head) for path, head in service.heads.items() if head.name == service.default_head.name)
    addresses["/v1/explain"] = {**addresses[f"/v1/{path}"], "head": path, "method": "attention"}  # the others take long
    loop = asyncio.new_event_loop()
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")

    @_settings(count)
    @hypothesis.seed(seed)
    @hypothesis.given(_messages(addresses))
    def send(message: tuple[str, bytes, bytes]) -> None:
        address, kind, body = message
        headers = [(b"content-type", kind)]
        response = loop.run_until_complete(client.post(address, content=body, headers=headers))
        own = Response.from_httpx(response, verify=False)
        case = schema[address]["POST"].Case(body=body, media_type="multipart/form-data")
        request = f"POST {address} {kind!r} {body!r:.2000}"
        outcome.note(request, own, lambda: case.validate_response(own, checks=_CHECKS))

    send()
    loop.run_until_complete(app.state.service.close())
    loop.close()
    return outcome


def measure(arguments: argparse.Namespace) -> None:
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    rows = []
    for name, send in (("schemathesis", by_schema), ("forms", by_forms)):
        app = create_app({"model": opened(arguments.checkpoint, 8)}, ServiceSettings())
        outcome = send(app, arguments.requests // 2, arguments.seed)
        counted = {str(status): count for status, count in sorted(outcome.statuses.items())}
        rows.append({"": name, "requests": outcome.statuses.total(), "answers by status": str(counted),
                     "faults": len(outcome.faults)})  # fmt: skip
        print(*dict.fromkeys(fault[:3000] for fault in outcome.faults[:40]), sep="\n")
    report(rows, "fuzzed requests", arguments)
