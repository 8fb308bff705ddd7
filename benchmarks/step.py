"""Time of a training step, beside that of the bare transformer on as many tokens (what the hardware leaves to be had).

`python -m benchmarks.step --recipe task_pretrain_emoji --batch 32`; prints a table and, with --json, writes it.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import vlc
from vlc.data.batch import Batch, MaskedText, Text
from vlc.module import VLCModule, objective_needs
from vlc.optim import build_optimizer, plain_groups
from vlc.recipes import RECIPES
from vlc.settings import Settings


def main() -> None:
    arguments = _parse()
    settings = _settings(arguments)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = VLCModule(
        settings.model,
        image_size=settings.data.image_size,
        max_text_len=settings.data.max_text_len,
        vocab_size=settings.model.vocab_size or 8000,
        optim=settings.optim,
    ).to(device)
    batch = _batch(settings, arguments.batch, arguments.text_len, device)
    sides = {"training step": _step(module, batch), "bare transformer": _bare(module, batch)}
    times = _alternate(sides, arguments.repeats, device)
    rows = [
        {
            "side": name,
            "median_ms": round(1e3 * statistics.median(seconds), 2),
            "spread_ms": round(1e3 * (max(seconds) - min(seconds)), 2),
            "samples_per_second": round(arguments.batch / statistics.median(seconds), 1),
        }
        for name, seconds in times.items()
    ]
    _report(rows, arguments, device)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    recipes = [name for name in RECIPES if name.startswith("task_")]
    parser.add_argument("--recipe", choices=recipes, default="task_pretrain_emoji")
    parser.add_argument("--vit", help="size, by default the recipe's")
    parser.add_argument("--image-size", type=int, help="by default the recipe's")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--text-len", type=int, default=16, help="tokens of every text (default: 16)")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def _settings(arguments: argparse.Namespace) -> Settings:
    from vlc.config import resolve

    updates = {"per_gpu_batchsize": arguments.batch, "batch_size": arguments.batch}
    updates |= {key: value for key in ("vit", "image_size") if (value := getattr(arguments, key)) is not None}
    return Settings.from_config(resolve(arguments.recipe, **updates))


def _batch(settings: Settings, size: int, text_len: int, device: torch.device) -> Batch:
    """A random batch with everything that the objectives of the recipe need."""
    needs, image = objective_needs(settings.model), settings.data.image_size
    ids = torch.randint(5, 1000, (size, text_len))
    text = Text(ids, torch.ones_like(ids))
    positions = torch.arange(0, size * text_len, max(1, round(1 / settings.data.mlm_prob)))
    patches = settings.model.size.num_patches(image)
    answers = torch.randint(settings.model.vqav2_label_size, (size, 1))
    batch = Batch(
        images=torch.randint(256, (size, 1, 3, image, image), dtype=torch.uint8),
        index=torch.arange(size),
        split="train",
        text=text,
        masked_text=MaskedText(text, positions, ids.flatten()[positions]) if needs.masked_text else None,
        noise=torch.rand(size, needs.noise, patches) if needs.noise and settings.model.dropped_ratio else None,
        negative=torch.arange(size).roll(1),
        match_draw=torch.rand(size),
        fields={"answer_labels": answers, "answer_scores": torch.ones(size, 1)},
    )
    return batch.to(device)


def _step(module: VLCModule, batch: Batch) -> Callable[[], None]:
    optimizer = build_optimizer(plain_groups(module, module.optim_settings, set()), module.optim_settings, fused=True)

    def step() -> None:
        loss = module.total_loss(module.outcomes(module.on_after_batch_transfer(batch, 0)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _bare(module: VLCModule, batch: Batch) -> Callable[[], None]:
    """Forward and backward of the blocks alone, once, on the tokens of one pass."""
    encoder = module.encoder
    kept = (
        encoder.num_patches if batch.noise is None else round(encoder.num_patches * (1 - module.settings.dropped_ratio))
    )
    tokens = torch.randn(len(batch), batch.text.ids.shape[1] + 1 + kept, encoder.size.width, device=batch.index.device)

    def step() -> None:
        sequence = tokens
        for block in encoder.blocks:
            sequence = block(sequence)
        sequence.mean().backward()
        encoder.blocks.zero_grad()

    return step


def _alternate(sides: dict[str, Callable[[], None]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each repeat; the sides take turns, so that a noisy machine disturbs both alike."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 3):
        for name, step in sides.items():
            started = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat >= 3:  # the first ones warm up
                times[name].append(time.perf_counter() - started)
    return times


def _report(rows: list[dict], arguments: argparse.Namespace, device: torch.device) -> None:
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()}, {os.cpu_count()} cores"
    title = f"{arguments.recipe}, batch {arguments.batch}, {machine}, float32, {arguments.repeats} repeats"
    grid = Table(*rows[0], title=title)
    for row in rows:
        grid.add_row(*map(str, row.values()))
    Console().print(grid)
    if arguments.json:
        versions = {"vlc": vlc.__version__, "torch": torch.__version__, "python": platform.python_version()}
        settings = {key: str(value) for key, value in vars(arguments).items()}
        arguments.json.write_text(
            json.dumps({"machine": machine, "versions": versions, "settings": settings, "rows": rows}, indent=1)
        )


if __name__ == "__main__":
    main()
