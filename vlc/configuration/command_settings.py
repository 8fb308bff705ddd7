"""The keys that one command alone has, in a dictionary of its name."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from vlc.common.errors import require
from vlc.configuration.values import are_texts, check_known, check_types, read

API_KEY_VARIABLE = "VLC_API_KEY"  # in the environment
SEARCHES = ("grid", "random", "tpe")
_Own = TypeVar("_Own", bound="CommandSettings")


@dataclass(frozen=True)
class CommandSettings:
    """What the dictionaries have in common.

    command: the name of the command and of its dictionary.
    example: of a key with a value.
    """

    command: ClassVar[str]
    example: ClassVar[str]

    @classmethod
    def from_config(cls: type[_Own], config: Mapping[str, Any]) -> _Own:
        """Read and check the dictionary of a configuration. Raises UserError."""
        types = {field.name: field.type for field in fields(cls)}
        require(isinstance(config, Mapping), cls.command, config, f"options by name, as in {cls.example}")
        check_known(config, types, f"option of {cls.command}")
        settings = cls(**{key: read(value, types[key]) for key, value in config.items()})
        check_types(settings, cls.command)
        settings.check()
        return settings

    def check(self) -> None:
        """Raise UserError for a value that cannot be used."""


@dataclass(frozen=True)
class ServiceSettings(CommandSettings):
    """Where `run.py serve` listens, and what it takes.

    host: the address to listen at; 0.0.0.0 is every address of the machine.
    port: to listen at.
    checkpoints: further checkpoints by name, beside load_path or in place of it; the name stands in their addresses.
    api_key: the key that requests have to show; None: the environment variable VLC_API_KEY, or else none is asked for.
    wait_ms: milliseconds for which a request waits for others that can be computed with it.
    queue: requests that may be under way; further ones are refused with status 503.
    timeout_s: seconds that a request may take; then it is answered with status 504.
    decoders: threads of a process that decode pictures and texts.
    processes: that answer, each with models of its own; each has its part of queue.
    max_bytes: size of the body of a request.
    max_pixels: width times height of a picture.
    max_text: characters of a text.
    max_items: texts, options or boxes of a request.
    """

    command = "service"
    example = "service.port=5000"

    host: str = "127.0.0.1"
    port: int = 5000
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    api_key: str | None = None
    wait_ms: float = 5.0
    queue: int = 256
    timeout_s: float = 30.0
    decoders: int = 4
    processes: int = 1
    max_bytes: int = 16 * 1024**2
    max_pixels: int = 50_000_000
    max_text: int = 2000
    max_items: int = 64

    @property
    def key(self) -> str:
        """The key that requests have to show, or else an empty text."""
        return self.api_key or os.environ.get(API_KEY_VARIABLE, "")

    def check(self) -> None:
        named = self.checkpoints.items()
        valid = all(isinstance(path, str) and name.replace("-", "_").isidentifier() for name, path in named)
        expected = "paths by names of letters, digits, - and _, as in service.checkpoints.NAME=PATH"
        require(valid, "service.checkpoints", dict(named), expected)
        require(0 <= self.port < 2**16, "service.port", self.port, "0 to 65535; 0 is any free port")
        require(0 <= self.wait_ms <= 1000, "service.wait_ms", self.wait_ms, "0 to 1000")
        require(self.timeout_s > 0, "service.timeout_s", self.timeout_s, "a number above 0")
        for key in ("queue", "decoders", "processes", "max_bytes", "max_pixels", "max_text", "max_items"):
            require(getattr(self, key) >= 1, f"service.{key}", getattr(self, key), "1 or more")


@dataclass(frozen=True)
class SweepSettings(CommandSettings):
    """Which runs `run.py sweep` does.

    values: lists of values by key, as in sweep.values.learning_rate=[1e-4,3e-4]; with a list for seed, every combination of
        the others runs with each seed. random and tpe also take ranges, as in {"low": 1e-5, "high": 1e-3, "log": True}.
    search: grid: every combination; random: combinations at random; tpe: combinations that resemble good ones (Bergstra et
        al. 2011, by optuna).
    trials: how many combinations random and tpe try.
    processes: runs at once, each in a process of its own; 0: one after the other in this process, which starts faster.
    test: whether the best checkpoint of each run is tested. Tests choose nothing.
    metrics: patterns of further metrics in the table, such as */score, beside val/the_metric and those that judge tests.
    """

    command = "sweep"
    example = "sweep.values.seed=[0,1,2]"

    values: Mapping[str, Any] = field(default_factory=dict)
    search: str = "grid"
    trials: int = 20
    processes: int = 1
    test: bool = True
    metrics: tuple[str, ...] = ()

    def check(self) -> None:
        require(self.search in SEARCHES, "sweep.search", self.search, f"one of {', '.join(SEARCHES)}")
        require(self.trials >= 1, "sweep.trials", self.trials, "1 or more")
        require(self.processes >= 0, "sweep.processes", self.processes, "0 or more")


@dataclass(frozen=True)
class ProbeSettings(CommandSettings):
    """How `run.py probe` measures a checkpoint on images in classes.

    templates: of the texts that stand for a class in zero-shot classification, with {} for its name; several are averaged.
    names: file that says what the classes of the data are called (`vlc.use.probe.command.class_names`); None: their names.
    shots: images of each class that the linear probe learns from; None: all.
    features: that it reads: patches, the mean of the encoded patches, or pooled.
    """

    command = "probe"
    example = "probe.shots=16"

    templates: tuple[str, ...] = ("{}", "a {}", "a photo of a {}")
    names: str | None = None
    shots: int | None = None
    features: str = "patches"

    def check(self) -> None:
        named = bool(self.templates) and all("{}" in template for template in self.templates)
        require(named, "probe.templates", list(self.templates), "texts with {} for the name of a class")
        shots = self.shots
        require(shots is None or shots >= 2, "probe.shots", shots, "2 or more, as one chooses the penalty; None: all")
        require(self.features in ("patches", "pooled"), "probe.features", self.features, "patches or pooled")


@dataclass(frozen=True)
class FitSettings(CommandSettings):
    """How `run.py fit` reads a labelled table, and what it trains.

    columns: the names of columns by role, as in fit.columns.question=q; other roles are found by names and contents.
    task: what is learnt of the table, such as questions (own_tables.md); empty: the columns decide.
    root: the folder that paths of images start from; empty: the folder of the table.
    boxes: what the four numbers of a box are: xyxy, left, top, right and bottom; or xywh, left, top, width and height;
        empty: the boxes decide.
    split: the shares of training, validation and test, where the table has no column of splits.
    minutes: the time that training takes, about, where neither max_steps nor max_epoch is given.
    encoding: of a CSV or TSV, such as latin-1; empty: UTF-8, or what its first bytes say.
    delimiter: between the cells of a CSV; empty: a comma, semicolon or tab, as its first line has them.
    """

    command = "fit"
    example = "fit.columns.question=q"

    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    task: str = ""
    root: str = ""
    boxes: str = ""
    split: tuple[float, ...] = (0.8, 0.1, 0.1)
    minutes: float = 5.0
    encoding: str = ""
    delimiter: str = ""

    def check(self) -> None:
        for role, names in self.columns.items():
            named = are_texts(names) and len(names) > 0
            require(named, f"fit.columns.{role}", names, "the name of a column, or a list of them")
        require(self.boxes in ("", "xyxy", "xywh"), "fit.boxes", self.boxes, "xyxy or xywh")
        shares = self.split
        valid = len(shares) == 3 and all(share > 0 for share in shares) and abs(sum(shares) - 1) < 1e-6
        require(
            valid, "fit.split", list(shares), "three shares above 0 whose sum is 1: of training, validation and test"
        )
        require(self.minutes > 0, "fit.minutes", self.minutes, "a number above 0")
        require(len(self.delimiter) < 2, "fit.delimiter", self.delimiter, "one character")
