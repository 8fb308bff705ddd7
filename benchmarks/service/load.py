"""Many clients at once, each answer compared with that of vlc.Model, beside the speed of offline batches."""

import argparse
import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.report import report
from benchmarks.service.asking import Asked, is_answer, offline, requests, without_time
from benchmarks.service.client import Connection
from benchmarks.service.served import opened, server
from vlc.objectives.base import Answer

HEADS = ("snli_ve", "vqa", "nlvr2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument(
        "--seconds", type=float, default=60, help="of load; offline batches take a third of it, at most 60"
    )
    parser.add_argument("--heads", nargs="+", default=HEADS, help="that are asked in turn; all: every head")
    parser.add_argument("--batch", type=int, default=32, help="the largest batch, of the server and offline")
    parser.add_argument("--distinct", type=int, default=480, help="requests that differ")
    parser.add_argument("--wait-ms", type=float, default=5.0)
    parser.add_argument("--decoders", type=int, default=4)
    parser.add_argument("--processes", type=int, default=1)


@dataclass
class Outcome:
    """What clients saw.

    bodies: of each request, how often each answer came, without its time.
    refused: by status.
    lost: requests without a response.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    bodies: dict[int, Counter[bytes]] = field(default_factory=dict)
    refused: Counter[int] = field(default_factory=Counter)
    lost: int = 0

    def mixed_up(self, asked: Sequence[Asked], expected: Sequence[Sequence[Answer]]) -> int:
        """How many answers are not those of their requests."""
        return sum(
            count
            for at, bodies in self.bodies.items()
            for body, count in bodies.items()
            if not is_answer(body, asked[at], expected[at])
        )


async def loaded(host: str, port: int, asked: Sequence[Asked], clients: int, seconds: float, seed: int) -> Outcome:
    """Ask for some seconds, each client one request after the other."""
    outcome, started = Outcome(bodies={at: Counter() for at in range(len(asked))}), time.perf_counter()

    async def client(number: int) -> None:
        connection, rng = Connection(host, port), random.Random(f"{seed} {number}")
        while time.perf_counter() < started + seconds:
            at, begun = rng.randrange(len(asked)), time.perf_counter()
            try:
                response = await connection.ask(asked[at].message)
            except (OSError, EOFError):
                outcome.lost += 1
                continue
            if response.status != 200:
                outcome.refused[response.status] += 1
                continue
            outcome.latencies.append(time.perf_counter() - begun)
            outcome.bodies[at][without_time(response.body)] += 1
        connection.close()

    await asyncio.gather(*map(client, range(clients)))
    outcome.seconds = time.perf_counter() - started
    return outcome


def measure(arguments: argparse.Namespace) -> None:
    model = opened(arguments.checkpoint, arguments.batch)
    heads = list(model.forms) if "all" in arguments.heads else arguments.heads
    asked = requests(model, heads, arguments.distinct, arguments.seed)
    expected = offline(model, asked, arguments.batch)
    started, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() < started + min(60, arguments.seconds / 3):
        offline(model, asked, arguments.batch)
        count += len(asked)
    rows = [_row("offline", count, time.perf_counter() - started, time.process_time() - cpu)]
    options = {name: getattr(arguments, name) for name in ("wait_ms", "decoders", "processes")}
    with server(arguments.checkpoint, arguments.batch, **options) as running:
        place = running.host, running.port
        asyncio.run(loaded(*place, asked, arguments.clients, 2, arguments.seed))  # first uses of everything
        cpu, own = running.cpu_seconds, time.process_time()
        outcome = asyncio.run(loaded(*place, asked, arguments.clients, arguments.seconds, arguments.seed + 1))
        cpu, own = running.cpu_seconds - cpu, time.process_time() - own
    row = _row("service", len(outcome.latencies), outcome.seconds, cpu)
    share = row["requests/s"] / rows[0]["requests/s"]
    milliseconds = 1000 * np.percentile(outcome.latencies, [50, 99])
    rows.append(row | {"p50 ms": milliseconds[0], "p99 ms": milliseconds[1]})
    rows[0] |= {"p50 ms": None, "p99 ms": None}
    found = {
        "lost": outcome.lost,
        "refused": dict(outcome.refused),
        "mixed up": outcome.mixed_up(asked, expected),
        "throughput of the service / offline": round(share, 3),
        "CPU seconds of the clients": round(own, 1),
    }
    report(rows, f"{arguments.clients} clients, {len(heads)} heads", arguments, found=found)
    print(*(f"{name}: {value}" for name, value in found.items()), sep="\n")


def _row(name: str, count: int, seconds: float, cpu: float) -> dict[str, Any]:
    return {"": name, "requests": count, "requests/s": count / seconds, "CPU ms a request": 1000 * cpu / count}
