"""How benchmarks show their figures: as a table, and as a JSON file that also states the machine, versions and commits."""

import argparse
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

import vlc

ROOT = Path(__file__).parents[1]


def report(rows: list[dict[str, Any]], title: str, arguments: argparse.Namespace, **more: Any) -> None:
    """Print the rows, and write them with `more` to the file that --json names, if it is given."""
    show(rows, f"{title} ({machine()})")
    write(arguments, rows=rows, **more)


def show(rows: list[dict[str, Any]], title: str) -> None:
    """Print rows that have the same keys as a table."""
    grid = Table(*rows[0], title=title)
    for row in rows:
        grid.add_row(*map(_cell, row.values()))
    Console(width=140).print(grid)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.5g}" if isinstance(value, float) else str(value)


def write(arguments: argparse.Namespace, **content: Any) -> None:
    """Write the content and the environment to the file that --json names, if it is given."""
    if arguments.json:
        arguments.json.write_text(json.dumps(environment(arguments) | content, indent=1))


def machine() -> str:
    """Processor, cores and threads, or the GPU."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def environment(arguments: argparse.Namespace) -> dict[str, Any]:
    """The machine, versions, commits and arguments behind figures."""

    def commit(folder: Path) -> str:
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    beside = getattr(arguments, "against", None) or getattr(arguments, "compare", None)
    libraries = {library.__name__: library.__version__ for library in (vlc, torch, transformers)}
    return {
        "machine": machine(),
        "versions": libraries | {"python": platform.python_version()},
        "commit": commit(ROOT),
        "compared_with": commit(beside) if beside else None,
        "arguments": {key: str(value) for key, value in vars(arguments).items()},
    }
