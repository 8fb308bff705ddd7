"""The runs of a sweep: what is left to do for each, and doing it. The folders of the runs say what has been done."""

import ast
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vlc.common.errors import UserError, first_line
from vlc.configuration.config import RunError, resolve
from vlc.configuration.settings import Settings
from vlc.evaluation.results import FILE as METRICS
from vlc.evaluation.results import Results
from vlc.training import facts
from vlc.training.facts import Facts
from vlc.training.run import log_name, run
from vlc.training.validations import SELECTING, Validation, read_validations
from vlc.workflows.commands import announce
from vlc.workflows.sweep.axes import SEED, Values

_WAIT = 0.2  # seconds from one look at the processes to the next
# Settings that say how and where a run is done, and not what is trained.
_INCIDENTAL = ("resume_from", "logging", "num_workers")


@dataclass(frozen=True)
class Asked:
    """What a sweep was asked for.

    named, updates: the named configurations and keys that all runs have.
    words: the same as they were typed.
    """

    named: Sequence[str]
    updates: Mapping[str, Any]
    words: Sequence[str]

    def settings(self, values: Mapping[str, Any]) -> Settings:
        """The settings of a run with further values. Raises UserError."""
        try:
            return Settings.from_config(resolve(*self.named, **{**self.updates, **values}))
        except RunError as error:
            raise error.__cause__ or error from None

    def command(self, values: Mapping[str, Any]) -> list[str]:
        """The words of a run with further values behind run.py."""
        replaced = tuple(f"{key}=" for key in values)
        given = [word for word in self.words if not word.startswith(replaced)]
        return ["with", *given, *(f"{key}={_literal(value)}" for key, value in values.items())]


def _literal(value: Any) -> str:
    """A value as Sacred reads it from a command line; it takes a text that is no other value as it is."""
    if not isinstance(value, str):
        return repr(value)
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    return repr(value)


@dataclass
class SweepRun:
    """A run with a setting and a seed.

    values: of the setting.
    folder: its log_dir, which the runs with other seeds share.
    tested: whether its best checkpoint is to be tested.
    error: why it failed.
    validation, test, headlines: its metrics at the best validation and in the test, and the names of those that judge
        tests, once it has ended.
    """

    asked: Asked
    values: Values
    seed: int | None
    folder: Path
    tested: bool
    error: str = ""
    validation: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    headlines: Sequence[str] = ()
    checkpoint: str = ""
    _last: str = field(default="", repr=False)  # what was done last

    @property
    def name(self) -> str:
        return f"{self.folder.name}{'' if self.seed is None else f' seed={self.seed}'}"

    def content(self) -> dict[str, Any]:
        """What results.json says of it."""
        names = ("seed", "checkpoint", "validation", "test", "error")
        return {name: getattr(self, name) for name in names} | {"folder": str(self.folder)}

    @property
    def training(self) -> Values:
        """Its keys beside those of all runs."""
        seed = {} if self.seed is None else {SEED: self.seed}
        return {**self.values, **seed, "log_dir": str(self.folder)}

    @property
    def log(self) -> Path:
        """What its processes have printed."""
        return self.folder / f"seed{self.settings.run.seed}.log"

    @property
    def settings(self) -> Settings:
        return self.asked.settings(self.training)

    def versions(self) -> list[tuple[Path, Facts]]:
        """The folders of trainings with its settings, the oldest first."""
        settings = self.settings
        found = []
        for folder in (self.folder / log_name(settings.run)).glob("version_*"):
            if (folder / facts.FILE).is_file():
                own = Facts.read(folder / facts.FILE)
                if _same(own.config, settings.as_config()):
                    found.append((folder, own))
        return sorted(found, key=lambda one: int(one[0].name.rpartition("_")[2]))

    def best(self) -> tuple[Path, Validation] | None:
        """The best checkpoint of the finished training, and its validation; None: it is not finished."""
        versions = self.versions()
        if not any(own.seconds is not None for _, own in versions):
            return None
        kept = [
            (folder / "checkpoints" / one.checkpoint, one) for folder, _ in versions for one in read_validations(folder)
        ]
        kept = [(path, one) for path, one in kept if path.is_file()]
        if not kept:
            raise UserError(f"{versions[-1][0]} has no validation: a sweep compares runs by {SELECTING}")
        return max(kept, key=lambda pair: pair[1].metrics[SELECTING])

    def test_of(self, checkpoint: Path) -> Results | None:
        """The test of a checkpoint; None: there is none."""
        folder = self.folder / log_name(self.asked.settings(self._testing(checkpoint)).run)
        found = (Results.read(path) for path in sorted(folder.glob(f"version_*/{METRICS}")))
        return next((one for one in found if one.checkpoint == str(checkpoint)), None)

    def _testing(self, checkpoint: Path) -> Values:
        return {**self.training, "pretrain_path": "", "load_path": str(checkpoint), "test_only": True}

    def step(self) -> Values | None:
        """The values of what is to be done next; None: nothing. Raises UserError where the last step has left nothing."""
        best, values = self.best(), self.training
        if best is not None:
            test, values = self.test_of(best[0]) if self.tested else None, self._testing(best[0])
            self.checkpoint, self.validation = str(best[0]), best[1].metrics
            if test is not None:
                self.test, self.headlines = test.metrics, test.headlines
            if test is not None or not self.tested:
                return None
        else:
            begun = (folder / "checkpoints" / "last.ckpt" for folder, _ in reversed(self.versions()))
            if (path := next((path for path in begun if path.is_file()), None)) is not None:
                values = {**values, "resume_from": str(path)}
        done = "test" if best is not None else "training"
        if self._last == done:
            raise UserError(f"its {done} has ended without results: {self.log} has what it printed")
        self._last = done
        return values


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two configurations train the same. A key that one of them lacks is of another version."""
    return all(one[key] == other[key] for key in one.keys() & other.keys() - {*_INCIDENTAL})


def carry_out(runs: Sequence[SweepRun], processes: int, ended: Callable[[SweepRun], None]) -> None:
    """Do what is left to do for each run, several at once. Failures stay in the runs. ended: is told each run."""
    waiting = list(runs)
    running: dict[subprocess.Popen[bytes], tuple[SweepRun, int]] = {}
    with _terminated(running):
        while waiting or running:
            while waiting and len(running) < max(processes, 1):
                one = waiting.pop(0)
                if (values := _next(one)) is None:
                    ended(one)
                elif processes:
                    place = min(set(range(processes)) - {place for _, place in running.values()})
                    running[_started(one, values, place, processes)] = one, place
                else:
                    _done_here(one, values)
                    waiting.insert(0, one)
            for process in [process for process in running if process.poll() is not None]:
                one, _ = running.pop(process)
                one.error = "" if process.returncode == 0 else _last_line(one.log, process.returncode)
                waiting.insert(0, one)
            time.sleep(_WAIT if running else 0)


def _next(one: SweepRun) -> Values | None:
    """What is to be done; nothing where the run has failed."""
    if one.error:
        return None
    try:
        return one.step()
    except UserError as error:
        one.error = str(error)
        return None


def _done_here(one: SweepRun, values: Values) -> None:
    announce(shlex.join(["python", "run.py", *one.asked.command(values)]))
    try:
        run(one.asked.settings(values))
    except Exception as error:  # of a single run, whatever it is: the others go on
        one.error = f"{type(error).__name__}: {first_line(error)}"


def _started(one: SweepRun, values: Values, place: int, processes: int) -> "subprocess.Popen[bytes]":
    """A process of a run; the GPUs and the cores are shared out over those that run at once."""
    command = one.asked.command(values)
    announce(shlex.join(["python", "run.py", *command]))
    one.folder.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if processes > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
        if torch.cuda.device_count() > 1 and one.settings.run.num_gpus == 1:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
            devices = visible.split(",")
            environment["CUDA_VISIBLE_DEVICES"] = devices[place % len(devices)]
    with one.log.open("ab") as log:
        return subprocess.Popen([sys.executable, sys.argv[0], *command], stdout=log, stderr=log, env=environment)


def _last_line(log: Path, status: int) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = f"it ended with signal {-status}" if status < 0 else f"it ended with status {status}"
    return f"{lines[-1].strip() if lines else said} ({log})"


@contextmanager
def _terminated(running: "Mapping[subprocess.Popen[bytes], Any]") -> Iterator[None]:
    """Where the block ends, by SIGTERM too, the processes save and stop."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
