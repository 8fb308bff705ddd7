"""Making hard pools: images a second of the whole command, and the search of neighbours alone, with the memory of each.

`python -m benchmarks.hard_pool --checkpoint CKPT --data-root ARROWS --datasets emoji_scenes` makes pools of data sets;
`--vectors 100000` searches the neighbours of random unit vectors. Prints a line for each; memory is what is needed beyond
what the process had before.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console

from benchmarks.index import peak_memory
from vlc.configuration.config import resolve_use
from vlc.use.hard_pool import make_hard_pools, nearest_images


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hard_pool", description=__doc__)
    parser.add_argument("--checkpoint")
    parser.add_argument("--data-root")
    parser.add_argument("--datasets", nargs="+", default=["coco"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    parser.add_argument("--vectors", type=int, nargs="*", default=[100_000])
    parser.add_argument("--width", type=int, default=768)
    arguments = parser.parse_args()
    for count in arguments.vectors:
        features = F.normalize(torch.randn(count, arguments.width, generator=torch.manual_seed(0)))
        known = torch.ones(count, dtype=torch.bool)
        _measure(f"{count:,} vectors of width {arguments.width}", count, partial(nearest_images, features, known))
    if arguments.checkpoint:
        values = {"data_root": arguments.data_root, "datasets": arguments.datasets, "load_path": arguments.checkpoint}
        values |= {"num_gpus": 0, "num_workers": arguments.workers, "per_gpu_batchsize": arguments.batch}
        with tempfile.TemporaryDirectory() as folder:
            config = resolve_use(**values, out=folder)
            _measure(f"{', '.join(arguments.datasets)}", None, lambda: sum(make_hard_pools(*config).values()))


def _measure(name: str, count: int | None, work: Callable[[], Any]) -> None:
    """Run something once, and print how many items a second it handled: `count`, or the number that it returns."""
    start = time.perf_counter()
    with peak_memory() as peak:
        done = work()
    seconds = time.perf_counter() - start
    items = done if count is None else count
    Console().print(
        f"{name}: {items:,} in {seconds:.1f} s, {items / seconds:,.0f} a second, {max(peak) / 1e6:.2f} GB",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
