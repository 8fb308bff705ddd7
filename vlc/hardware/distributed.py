"""Collectives, which do nothing in a single process."""

import gc
import os
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather

LAUNCHED = "VLC_LAUNCHED"  # set by launch.py: when it started, in seconds


def init_process_group_after_restart(backend: str) -> None:
    """Start the process group under a name of this attempt, where `launch` offers one store to all attempts.

    Without the name, restarted workers can find the addresses of their predecessors. Without `launch` this does nothing,
    and the group starts as usual.
    """
    if LAUNCHED not in os.environ or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or dist.is_initialized():
        return
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), world_size, is_master=False)
    attempt = dist.PrefixStore(f"attempt_{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(backend, store=attempt, rank=rank, world_size=world_size)


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first_process() -> bool:
    return not is_distributed() or dist.get_rank() == 0


def process_number() -> tuple[int, int]:
    """Return the rank of this process, and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)


def gather_features(features: Tensor) -> tuple[Tensor, int]:
    """Gather features (B, D) to (P * B, D), by rank; returns them and the row of this process's first. Gradients flow back.

    This happens in training only, where all processes have equally many rows; otherwise the processes stay apart.
    """
    if not is_distributed() or not torch.is_grad_enabled():
        return features, 0
    return torch.cat(all_gather(features)), dist.get_rank() * len(features)


def gather_values(values: Tensor) -> Tensor:
    """Gather values (B, ...) to (P * B, ...), by rank, without gradients, in the same cases as `gather_features`."""
    if not is_distributed() or not torch.is_grad_enabled():
        return values
    values = values.contiguous()
    gathered = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, values)
    return torch.cat(gathered)


def gather_lists(items: list[Any]) -> list[Any]:
    """Return the lists of all processes one after the other, on every process; items are picklable."""
    if not is_distributed():
        return items
    gathered: list[list[Any]] = [[]] * dist.get_world_size()
    dist.all_gather_object(gathered, items)
    return [item for part in gathered for item in part]


def gather_to_first(items: list[Any]) -> list[Any]:
    """Return the lists of all processes one after the other on rank 0, and an empty list elsewhere; items are picklable."""
    if not is_distributed():
        return items
    gathered: list[list[Any]] | None = [[]] * dist.get_world_size() if is_first_process() else None
    dist.gather_object(items, gathered)
    return [item for part in gathered or [] for item in part]


def sum_over_processes(values: np.ndarray) -> np.ndarray:
    """Return the sum of the arrays of all processes, which have one shape, on every process."""
    if not is_distributed():
        return values
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    total = torch.from_numpy(values).to(device)
    dist.all_reduce(total)
    return total.cpu().numpy()


def destroy_process_group() -> None:
    """End the process group once all processes are here: gloo's threads may abort a process while another one exits."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        gc.collect()  # a sharded model in a cycle keeps groups of its own
        dist.destroy_process_group()
