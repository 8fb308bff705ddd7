"""Checksums of parameters, for file formats that have none."""

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor


def checksum(content: bytes | memoryview, start: int = 0) -> str:
    """Return the CRC-32 as eight hexadecimal digits. It finds damage; it does not prove who wrote a file."""
    return f"{zlib.crc32(content, start):08x}"


def checksums(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return a checksum of the dtype, the shape and the contiguous values of each tensor."""
    sums = {}
    for name, tensor in state.items():
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        sums[name] = checksum(values.numpy().data, zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode()))
    return sums


def mismatches(state: Mapping[str, Tensor], expected: Mapping[str, str]) -> list[str]:
    """Return the names that only one side has, or whose checksums differ."""
    found = checksums(state)
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
