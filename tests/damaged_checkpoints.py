"""Damage to checkpoints, and what becomes of it: for the tests here and for longer sweeps."""

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from vlc.checkpoint import weights
from vlc.common.errors import UserError

KINDS = ("flip", "zero", "cut", "repeat")


def damage(content: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """Content with one bit flipped, up to 512 bytes set to zero, its end cut off, or a piece of it repeated."""
    damaged, place = bytearray(content), int(rng.integers(len(content)))
    if kind == "flip":
        damaged[place] ^= 1 << int(rng.integers(8))
    elif kind == "zero":
        end = min(place + int(rng.integers(1, 512)), len(damaged))
        damaged[place:end] = bytes(end - place)
    elif kind == "cut":
        del damaged[place:]
    else:
        damaged[place:place] = damaged[place : place + 64]
    return bytes(damaged)


def outcomes(path: Path, folder: Path, tries: int, seed: int = 0) -> Counter[str]:
    """Read damaged copies: how many are refused clearly, read as the same, read as others, or end in a traceback."""
    content, good, rng, found = path.read_bytes(), weights.read(path), np.random.default_rng(seed), Counter()
    for number in range(tries):
        copy = folder / f"damaged{path.suffix}"
        copy.write_bytes(damage(content, KINDS[number % len(KINDS)], rng))
        try:
            read = weights.read(copy)
        except UserError:
            found["clear"] += 1
        except Exception as error:  # what the table counts
            found["raw"] += 1
            print(f"{copy.name}, try {number}: {error!r}")
        else:
            same = read.extras == good.extras and read.state.keys() == good.state.keys()
            same = same and all(torch.equal(value, good.state[name]) for name, value in read.state.items())
            found["same" if same else "silent"] += 1
            if not same:
                print(f"{copy.name}, try {number}: read as something else")
    return found
