"""What is behind a run: its command, versions, machine and data, in run.json of its log folder."""

import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

import vlc
from vlc.common.errors import UserError
from vlc.common.files import to_json
from vlc.data.arrow import ArrowSplit
from vlc.data.samples import Samples
from vlc.evaluation.predictions import write_text

FILE = "run.json"
_LIBRARIES = ("torch", "torchvision", "pytorch-lightning", "transformers", "tokenizers", "timm", "pyarrow", "numpy")


@dataclass(frozen=True)
class Facts:
    """What a run says of itself.

    command: as it was typed.
    started: the time, in ISO 8601.
    seconds: how long it took; None: it has not ended.
    config: the configuration, as checkpoints have it.
    versions: of the libraries, by name.
    commit: of this program; "+" behind it where files were changed; None: it is not in a repository.
    data: for each data set of each split, its name, the number of samples, and its files with size and checksum.
    peak_memory: in bytes: of the first GPU where there is one, otherwise of the process; None: the run has not ended.
    """

    command: str
    started: str
    seconds: float | None
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    commit: str | None
    machine: str
    data: list[dict[str, Any]]
    peak_memory: int | None = None

    def write(self, folder: str | Path) -> None:
        write_text(Path(folder) / FILE, to_json(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Facts":
        """Read a file. Raises UserError where it is damaged, or of another version."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"{path} does not hold the facts of a run ({error}): remove it to go on without them"
            ) from error


class FactsOfRun(Callback):
    """Writes run.json when a run starts, and completes it when the run ends.

    config: the configuration of the run.
    """

    def __init__(self, config: Mapping[str, Any]):
        self.config = config
        self._facts: Facts | None = None
        self._began = 0.0

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._start(trainer)

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._end(trainer)

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._start(trainer)

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._end(trainer)

    def _start(self, trainer: Trainer) -> None:
        folder = trainer.log_dir  # asks the other processes
        if trainer.fast_dev_run or not trainer.is_global_zero or not folder:  # type: ignore[attr-defined]  # Lightning sets it
            return
        self._began = time.perf_counter()
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it
        splits = [(task, one.train) for task, one in data.tasks.items() if one.train is not None]
        splits += [(task, one) for task, own in data.tasks.items() for one in own.evaluation.values()]
        self._facts = Facts(
            shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            datetime.now(timezone.utc).isoformat(timespec="seconds"),
            None,
            self.config,
            {"python": platform.python_version(), "vlc": vlc.__version__}
            | {name: version(name) for name in _LIBRARIES},
            commit(),
            machine(),
            [entry for task, samples in splits for entry in fingerprints(task, samples)],
        )
        self._facts.write(folder)

    def _end(self, trainer: Trainer) -> None:
        folder = trainer.log_dir
        if self._facts is not None and folder:
            seconds = round(time.perf_counter() - self._began, 1)
            replace(self._facts, seconds=seconds, peak_memory=peak_memory()).write(folder)


def fingerprints(task: str, samples: Samples) -> list[dict[str, Any]]:
    """What identifies the data of a split: an entry for each source, with the sizes and checksums of its Arrow files."""
    return [
        {"task": task, "split": samples.called, "dataset": source.dataset, "samples": len(source)}
        | {
            "files": [
                {"name": path.name, "bytes": state.size, "checksum": state.checksum}
                for path, state in (source.states.items() if isinstance(source, ArrowSplit) else ())
            ]
        }
        for source in samples.sources
    ]


def peak_memory() -> int:
    """Return the most memory that was in use at once, in bytes: of the GPU where there is one, otherwise of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def commit() -> str | None:
    """Return the commit of this program, with + behind it where files differ; None where it is in no repository."""
    git = ["git", "-C", str(Path(vlc.__file__).parent)]
    try:
        found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return None
    return found + ("+" if changed else "")


def machine() -> str:
    """Return the GPU, or the processor, with the number of cores."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}, {os.cpu_count()} cores"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
