"""Micro-batching: requests that can be computed together wait a moment for each other, and then are one batch."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from vlc.hardware.threads import free_cores

logger = logging.getLogger("vlc.service")

Compute = Callable[[Sequence[Any]], Sequence[Any]]
Left = Callable[[], bool]


class Stopping(Exception):
    """The service takes no more requests."""


class ClientLeft(Exception):
    """Nobody waits for the answer."""


@dataclass(eq=False)
class _Waiting:
    item: Any
    left: Left
    result: asyncio.Future
    since: float = field(default_factory=perf_counter)


class Batcher:
    """Gathers items by key and computes them in one thread, at most `max_batch` of a key at once.

    A batch begins as soon as it is full, or its first item has waited for `wait_s` seconds and the thread is free. Of
    several the one whose first item waits longest is next: no key has to wait for another that is always full. Where a
    batch fails, its items are computed one by one, so that only the bad ones fail.

    observe: called with the key, the size and the seconds of each batch.
    dropped: called for each item that is not computed, because its client has left.
    """

    def __init__(
        self,
        wait_s: float,
        max_batch: int,
        observe: Callable[[Hashable, int, float], None] = lambda *_: None,
        dropped: Callable[[], None] = lambda: None,
    ):
        self._wait_s, self._max_batch, self._observe, self._dropped = wait_s, max_batch, observe, dropped
        self._queues: dict[Hashable, tuple[Compute, deque[_Waiting]]] = {}
        self._changed = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task | None = None
        self._closing = False

    def __len__(self) -> int:
        """How many items wait."""
        return sum(len(queue) for _, queue in self._queues.values())

    def submit(self, key: Hashable, compute: Compute, item: Any, left: Left) -> asyncio.Future:
        """Return the future of what `compute` makes of an item; it raises what it raises for the item alone, or ClientLeft.

        Raises Stopping where the batcher was closed.

        compute: returns a result for each item. Items with equal keys are given to it together.
        left: returns whether the client has left, so that the item need not be computed.
        """
        if self._closing:
            raise Stopping
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        waiting = _Waiting(item, left, asyncio.get_running_loop().create_future())
        self._queues.setdefault(key, (compute, deque()))[1].append(waiting)
        self._changed.set()
        return waiting.result

    async def close(self) -> None:
        """Compute what waits, and refuse what comes."""
        self._closing = True
        self._changed.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def _work(self) -> None:
        while self._queues or not self._closing:
            self._changed.clear()
            key = self._next()
            if key is None:
                await self._changed.wait()
                continue
            compute, queue = self._queues[key]
            patience = queue[0].since + self._wait_s - perf_counter()
            if len(queue) < self._max_batch and patience > 0 and not self._closing:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), patience)
                continue
            batch = [queue.popleft() for _ in range(min(len(queue), self._max_batch))]
            if not queue:
                del self._queues[key]
            await self._compute(key, compute, batch)

    def _next(self) -> Hashable | None:
        """The key whose first item has waited long enough, and longest; else of a full batch; else of the oldest item."""
        oldest = min(self._queues, key=lambda key: self._queues[key][1][0].since, default=None)
        if oldest is not None and self._queues[oldest][1][0].since + self._wait_s <= perf_counter():
            return oldest
        full = (key for key, (_, queue) in self._queues.items() if len(queue) >= self._max_batch)
        return next(full, oldest)

    async def _compute(self, key: Hashable, compute: Compute, batch: list[_Waiting]) -> None:
        for one in batch:
            if not one.result.done() and one.left():
                one.result.set_exception(ClientLeft())
        staying = [one for one in batch if not one.result.done()]
        for _ in range(len(batch) - len(staying)):
            self._dropped()
        if not staying:
            return
        started = perf_counter()
        items = [one.item for one in staying]
        results = await asyncio.get_running_loop().run_in_executor(self._thread, _results, compute, items)
        self._observe(key, len(items), perf_counter() - started)
        for one, result in zip(staying, results, strict=True):
            if one.result.done():
                continue
            if isinstance(result, Exception):
                one.result.set_exception(result)
            else:
                one.result.set_result(result)


def _results(compute: Compute, items: Sequence[Any]) -> list[Any]:
    """The result of each item, or the exception that it raises by itself."""
    free_cores.follow()
    try:
        results = list(compute(items))
        if len(results) != len(items):
            raise RuntimeError(f"{len(results)} results of {len(items)} items")
        return results
    except Exception as error:  # it is raised where the item is awaited
        if len(items) == 1:
            return [error]
        logger.warning(
            "A batch of %d failed (%s): its requests are computed one by one", len(items), type(error).__name__
        )
        return [result for item in items for result in _results(compute, [item])]
