"""Collectives that are no-ops in a single process."""

from typing import Any

import torch.distributed as dist


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first_process() -> bool:
    return not is_distributed() or dist.get_rank() == 0


def process_number() -> tuple[int, int]:
    """Number of this process, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)


def gather_lists(items: list[Any]) -> list[Any]:
    """The processes' lists one after the other, on every process; items are picklable."""
    if not is_distributed():
        return items
    gathered: list[list[Any] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, items)
    return [item for part in gathered for item in part]
