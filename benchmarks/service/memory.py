"""Memory, threads and open files of a server over many requests, some of which are wrong, large, or not waited for."""

import argparse
import asyncio
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.report import report
from benchmarks.service.asking import as_json, form, message, picture, requests
from benchmarks.service.client import Connection
from benchmarks.service.served import Server, opened, server

_SHARE_LEAVING, _SHARE_WRONG = 0.02, 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--batch", type=int, default=32)


def wrong_messages() -> list[bytes]:
    """Requests that are refused, for all kinds of reasons, and some with large bodies."""
    large, padded = picture(5), picture(5) + bytes(3 * 2**20)  # beyond 1 MB the parts of a form are files
    bodies = [
        form({"images": [b"no picture"], "text": "a"}),
        form({"images": [large[: len(large) // 2]], "text": "a"}),
        form({"images": [padded], "text": "a"}),
        form({"images": [large] * 3, "text": "a"}),
        form({"text": "a" * 5000}),
        as_json({"images": [large], "text": ""}),
        ("application/json", b"{" * 1000),
        ("text/plain", b"a"),
    ]
    return [message("/v1/vqa", *body) for body in bodies] + [message("/v1/none", *bodies[0])]


async def _sent(running: Server, right: Sequence[bytes], arguments: argparse.Namespace) -> list[dict[str, int]]:
    """Send all requests, and look at the server about fifty times."""
    wrong, rng = wrong_messages(), random.Random(arguments.seed)
    numbers, looks = iter(range(arguments.requests)), list[dict[str, int]]()
    every = max(1, arguments.requests // 50)

    async def client() -> None:
        connection = Connection(running.host, running.port)
        for number in numbers:
            if number % every == 0:
                looks.append({"requests": number, **looked(running)})
            sent = rng.choice(wrong if rng.random() < _SHARE_WRONG else right)
            if rng.random() < _SHARE_LEAVING:
                await leave(running.host, running.port, sent, rng.random() * 0.05)
                continue
            await connection.ask(sent)
        connection.close()

    await asyncio.gather(*(client() for _ in range(arguments.clients)))
    await asyncio.sleep(1)
    return [*looks, {"requests": arguments.requests, **looked(running)}]


async def leave(host: str, port: int, sent: bytes, after: float) -> None:
    """Send a message, and close the connection without waiting for the answer."""
    _, writer = await asyncio.open_connection(host, port)
    writer.write(sent)
    await asyncio.sleep(after)
    writer.close()


def looked(running: Server) -> dict[str, int]:
    """Megabytes, threads and open files of a server."""
    return {
        "RSS MB": running.status("VmRSS") // 1000,
        "peak MB": running.status("VmHWM") // 1000,
        "threads": running.status("Threads"),
        "open files": running.open_files,
    }


def measure(arguments: argparse.Namespace) -> None:
    model = opened(arguments.checkpoint, arguments.batch)
    right = [one.message for one in requests(model, list(model.forms), 320, arguments.seed)]
    with server(arguments.checkpoint, arguments.batch) as running:
        looks = asyncio.run(_sent(running, right, arguments))
    settled = looks[len(looks) // 4 :]
    slope = 1000 * slope_of([one["requests"] for one in settled], [one["RSS MB"] for one in settled])
    rows: list[dict[str, Any]] = [looks[at] for at in range(0, len(looks), max(1, len(looks) // 10))] + [looks[-1]]
    report(rows, "memory of the server", arguments, slope=slope, looks=looks)
    print(f"After the first quarter memory grows by {slope:.3f} MB in 1,000 requests")


def slope_of(numbers: Sequence[float], values: Sequence[float]) -> float:
    """The slope of the straight line that lies nearest to points."""
    return float(np.polyfit(numbers, values, 1)[0])
