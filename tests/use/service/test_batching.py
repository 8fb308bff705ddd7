"""Micro-batching by itself: what is gathered, what fails, who is dropped, and how it stops."""

import asyncio
import threading
import time

import pytest

from vlc.use.service.batching import Batcher, ClientLeft, Stopping


def stays() -> bool:
    return False


def leaves() -> bool:
    return True


def batched(work, wait_s: float = 0.02, max_batch: int = 4):
    """Run a function of a batcher and of the list of its batches."""
    batches = []

    def doubled(items):
        batches.append(list(items))
        return [2 * item if item != "bad" else 1 / 0 for item in items]

    async def run():
        batcher = Batcher(wait_s, max_batch)
        try:
            return await work(batcher, doubled)
        finally:
            await batcher.close()

    return asyncio.run(run()), batches


def test_requests_of_a_key_are_gathered():
    async def work(batcher, compute):
        runs = [batcher.submit(key, compute, item, stays) for key, item in [("a", 1), ("b", 2), ("a", 3)]]
        return await asyncio.gather(*runs)

    results, batches = batched(work)
    assert results == [2, 4, 6]
    assert batches == [[1, 3], [2]]


def test_a_full_batch_does_not_wait():
    async def work(batcher, compute):
        runs = [batcher.submit("a", compute, item, stays) for item in range(8)]
        return await asyncio.wait_for(asyncio.gather(*runs), 5)

    results, batches = batched(work, wait_s=60)
    assert results == [0, 2, 4, 6, 8, 10, 12, 14]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_no_key_waits_for_one_that_is_always_full():
    async def work(batcher, compute):
        def slow(items):
            time.sleep(0.002)  # longer than an item may wait, so that few batches fit before the other key is due
            return compute(items)

        async def busy():
            while not alone.done():
                await batcher.submit("a", slow, 1, stays)

        clients = [asyncio.create_task(busy()) for _ in range(12)]
        alone = batcher.submit("b", compute, 2, stays)
        await asyncio.wait_for(asyncio.gather(alone, *clients), 20)

    _, batches = batched(work, wait_s=0.001)
    assert [2] in batches[:10]


def test_what_comes_during_a_batch_is_the_next_one():
    started, go = threading.Event(), threading.Event()

    def compute(items):
        started.set()
        go.wait(5)
        return items

    async def work(batcher, _):
        first = batcher.submit("a", compute, 0, stays)
        await asyncio.to_thread(started.wait, 5)
        others = [batcher.submit("b", doubled, item, stays) for item in (1, 2, 3)]
        await asyncio.sleep(0.02)
        assert len(batcher) == 3
        go.set()
        return await asyncio.gather(first, *others)

    batches = []

    def doubled(items):
        batches.append(items)
        return items

    results, _ = batched(work, wait_s=0)
    assert results == [0, 1, 2, 3]
    assert batches == [[1, 2, 3]]


def test_a_bad_item_fails_alone():
    async def work(batcher, compute):
        runs = [batcher.submit("a", compute, item, stays) for item in (1, "bad", 3)]
        return await asyncio.gather(*runs, return_exceptions=True)

    results, batches = batched(work)
    assert results[::2] == [2, 6]
    assert isinstance(results[1], ZeroDivisionError)
    assert batches == [[1, "bad", 3], [1], ["bad"], [3]]


def test_items_of_clients_that_left_are_not_computed():
    async def work(batcher, compute):
        cancelled = batcher.submit("a", compute, 1, stays)
        runs = [batcher.submit("a", compute, item, left) for item, left in [(2, leaves), (3, stays)]]
        await asyncio.sleep(0)
        cancelled.cancel()
        return await asyncio.gather(*runs, cancelled, return_exceptions=True)

    results, batches = batched(work)
    assert isinstance(results[0], ClientLeft)
    assert results[1] == 6
    assert isinstance(results[2], asyncio.CancelledError)
    assert batches == [[3]]


def test_stopping_computes_what_waits():
    async def work(batcher, compute):
        waiting = [batcher.submit("a", compute, item, stays) for item in (1, 2)]
        await asyncio.sleep(0)
        await asyncio.wait_for(batcher.close(), 5)  # though the wait would be a minute
        with pytest.raises(Stopping):
            await batcher.submit("a", compute, 3, stays)
        return await asyncio.gather(*waiting)

    assert batched(work, wait_s=60) == ([2, 4], [[1, 2]])
