"""Commands as steps: each is printed as it can be typed, and runs in this process."""

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from vlc.configuration.config import resolve
from vlc.configuration.settings import Settings
from vlc.training.run import run
from write_arrow.__main__ import main as write_arrow

console = Console()


@dataclass(frozen=True)
class Stage:
    """A finished run."""

    settings: Settings
    metrics: dict[str, float]
    log_dir: Path

    @property
    def checkpoint(self) -> str:
        return str(self.log_dir / "checkpoints" / "last.ckpt")


def announce(command: str) -> None:
    console.rule(style="dim")
    console.print(f"$ {command}", style="bold", highlight=False, markup=False, soft_wrap=True)


def write(dataset: str, folder: Path) -> None:
    """Write an embedded data set."""
    announce(f"python -m write_arrow {dataset} --out {folder}")
    write_arrow([dataset, "--out", str(folder)])


def typed(updates: Mapping[str, Any]) -> str:
    """Keys and values as the command line takes them."""
    lists = {key: f"[{','.join(map(str, value))}]" for key, value in updates.items() if isinstance(value, list)}
    return shlex.join(f"{key}={value}" for key, value in {**updates, **lists}.items())


def run_command(*named: str, **updates) -> Stage:
    """A run of run.py, with named configurations or their files, and keys."""
    announce(f"python run.py with {shlex.join(named)} {typed(updates)}")
    started = time.perf_counter()
    settings = Settings.from_config(resolve(*named, **updates))
    found = run(settings)
    log_dir = Path(str(found.pop("log_dir")))
    console.print(f"{time.perf_counter() - started:.0f} s")
    return Stage(settings, {name: float(value) for name, value in found.items()}, log_dir)
