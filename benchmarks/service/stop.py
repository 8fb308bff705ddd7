"""Stopping under load: by SIGTERM every accepted request is answered; after SIGKILL the service starts again."""

import argparse
import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.report import report
from benchmarks.service.asking import Asked, requests
from benchmarks.service.client import Connection
from benchmarks.service.load import HEADS
from benchmarks.service.served import Server, opened, server


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--times", type=int, default=3, help="that each signal is sent")


async def _stopped(running: Server, asked: Sequence[Asked], clients: int, how: int, seed: int) -> Counter[str]:
    """Send a signal in the middle of load; return what became of the requests that were under way or came later.

    A request whose connection breaks before a byte of its answer comes is cut off; one that finds no server is refused.
    """
    seen: Counter[str] = Counter()
    sent_at = 0.0

    async def client(number: int) -> None:
        nonlocal sent_at
        connection, rng = Connection(running.host, running.port), random.Random(f"{seed} {number}")
        while True:
            begun = time.perf_counter()
            try:
                response = await connection.ask(rng.choice(asked).message)
            except ConnectionRefusedError:
                seen["no server"] += 1
                return
            except (OSError, EOFError):
                when = "under way" if begun < sent_at else "after the signal"
                seen[f"cut off, sent {when}"] += 1
                return
            if sent_at:
                when = "under way" if begun < sent_at else "after the signal"
                seen[f"answered {response.status}, sent {when}"] += 1
            if response.status == 503:
                return

    tasks = [asyncio.create_task(client(number)) for number in range(clients)]
    await asyncio.sleep(4 + random.Random(seed).random())
    sent_at = time.perf_counter()
    running.process.send_signal(how)
    await asyncio.gather(*tasks)
    return seen


def measure(arguments: argparse.Namespace) -> None:
    model = opened(arguments.checkpoint, arguments.batch)
    asked, port = requests(model, HEADS, 120, arguments.seed), 0
    rows: list[dict[str, Any]] = []
    for how in (signal.SIGTERM, signal.SIGKILL):
        seen: Counter[str] = Counter()
        for number in range(arguments.times):
            running = Server(arguments.checkpoint, arguments.batch, port=port)
            port = running.port  # where the next one has to be able to listen
            seen += asyncio.run(_stopped(running, asked, arguments.clients, how, arguments.seed + number))
            seen[f"exit status {running.process.wait(60)}"] += 1
        rows += [
            {"signal": how.name, "what became of it": name, "count": count} for name, count in sorted(seen.items())
        ]
    with server(arguments.checkpoint, arguments.batch, port=port) as running:
        again = asyncio.run(Connection(running.host, running.port).ask(asked[0].message))
    rows.append({"signal": "", "what became of it": f"started again: answered {again.status}", "count": 1})
    report(rows, f"{arguments.times} servers stopped by each signal under {arguments.clients} clients", arguments)
