"""Small image folders, and arguments of a short run on them."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import main_finetune

CLASSES = ("blue", "green", "red")


def write_folder(root: Path, sizes: dict[str, int], classes: tuple[str, ...] = CLASSES) -> Path:
    """SPLIT/CLASS/*.png of 32x32 pixels for each split with so many images of a class; a class's colour stands out."""
    rng = np.random.default_rng(0)
    for split, size in sizes.items():
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(size):
                pixels = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
                pixels[..., label % 3] += 80
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def words(data: Path, out: Path | str = "", **options: Any) -> list[str]:
    """A command line of main_finetune.py for the CPU; an option True is a flag."""
    given = {
        "data_path": data,
        "output_dir": out,
        "log_dir": out,
        "model": "vit_tiny_patch16",
        "input_size": 32,
        "nb_classes": 3,
        "batch_size": 8,
        "epochs": 2,
        "warmup_epochs": 0,
        "drop_path": 0,
        "num_workers": 0,
        "device": "cpu",
        "amp": "off",
        **options,
    }
    made = []
    for name, value in given.items():
        made += (
            [f"--{name}"] if value is True else [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
        )
    return made


def arguments(data: Path, out: Path | str = "", **options: Any) -> Namespace:
    """The same, parsed and checked."""
    parsed = main_finetune.parser().parse_args(words(data, out, **options))
    main_finetune.check(parsed)
    return parsed
