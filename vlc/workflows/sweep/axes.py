"""What a sweep varies: the values of keys, and the settings that are made of them."""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlc.common.errors import UserError, require
from vlc.configuration.command_settings import SweepSettings
from vlc.configuration.values import is_number, read

SEED = "seed"
_RANGE = {"low", "high"}, {"low", "high", "log"}
_DIGITS = 4  # of a number that is drawn from a range
_LONGEST = 100  # name of a folder

Values = dict[str, Any]  # by key of the configuration


@dataclass(frozen=True)
class Range:
    """Numbers from low to high; whole ones where both are; log: drawn evenly on a logarithmic scale."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Axes:
    """values: what each key may be, without the seeds, which repeat every setting; empty: the one of the configuration."""

    values: Mapping[str, Sequence[Any] | Range]
    seeds: Sequence[int]

    @classmethod
    def of(cls, settings: SweepSettings) -> "Axes":
        """Read sweep.values. Raises UserError."""
        found = dict(_flat(settings.values))
        if not found:
            raise UserError("sweep.values is empty: name keys with lists of values, as in sweep.values.seed=[0,1,2]")
        values = {key: _axis(f"sweep.values.{key}", value) for key, value in found.items()}
        seeds = values.pop(SEED, ())
        ranges = [key for key, axis in values.items() if isinstance(axis, Range)]
        if isinstance(seeds, Range) or (ranges and settings.search == "grid"):
            key = ranges[0] if ranges else SEED
            raise UserError(
                f"sweep.values.{key} is a range: only random and tpe draw from ranges, and never seeds: give a list"
            )
        if settings.search != "grid" and not values:
            raise UserError(
                f"sweep.search={settings.search} has nothing to search but seeds: name keys in sweep.values"
            )
        return cls(values, seeds)

    def grid(self) -> list[Values]:
        """Return every combination."""
        lists = [axis for axis in self.values.values() if not isinstance(axis, Range)]
        return [dict(zip(self.values, chosen, strict=True)) for chosen in itertools.product(*lists)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys with their dots, which Sacred has made dictionaries of."""
    for key, value in values.items():
        if isinstance(value, Mapping) and set(value) not in _RANGE:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _axis(key: str, value: Any) -> Sequence[Any] | Range:
    if isinstance(value, Mapping):
        axis = Range(**value)
        logarithmic = axis.log is True or axis.log is False
        numbers = is_number(axis.low) and is_number(axis.high) and logarithmic and axis.low < axis.high
        expected = 'numbers {"low": 1e-5, "high": 1e-3}, low below high, above 0 where "log" is True'
        require(numbers and (axis.low > 0 or not axis.log), key, dict(value), expected)
        return axis
    values = read(value, tuple[str, ...])  # a shell removes the quotes of names
    require(isinstance(values, tuple) and bool(values), key, value, "a list of values, as in [1,2]")
    require(len(set(map(repr, values))) == len(values), key, list(values), "values that differ")
    return values


def label(values: Values) -> str:
    """Return the name of a setting's folder."""
    said = ",".join(f"{key}={value}" for key, value in values.items()) or "as_given"
    short = re.sub(r"[^\w.,=+-]", "_", said)[:_LONGEST]
    return short if short == said else f"{short}-{hashlib.sha256(said.encode()).hexdigest()[:6]}"


class Search:
    """The settings of a random or tpe search, by optuna; told the same scores it asks for the same settings again.

    Raises UserError where optuna is not installed.
    """

    def __init__(self, axes: Axes, settings: SweepSettings):
        try:
            import optuna
        except ImportError as error:
            raise UserError(
                f"sweep.search={settings.search} needs optuna: pip install -e '.[sweep]', or pass sweep.search=grid"
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        samplers = optuna.samplers
        first = min(10, max(1, settings.trials // 3))  # drawn at random
        made: dict[str, Callable[[], Any]] = {
            "random": lambda: samplers.RandomSampler(seed=0),
            "tpe": lambda: samplers.TPESampler(seed=0, n_startup_trials=first),
        }
        self._axes, self.told = axes, 0
        self._study = optuna.create_study(direction="maximize", sampler=made[settings.search]())
        self._failed = optuna.trial.TrialState.FAIL

    def ask(self) -> tuple[Any, Values]:
        """Return a trial of optuna, and the values of its setting."""
        trial = self._study.ask()
        return trial, {key: _drawn(trial, key, axis) for key, axis in self._axes.values.items()}

    def tell(self, trial: Any, score: float | None) -> None:
        """Report a trial. score: higher is better; None: a run of the setting has failed."""
        self.told += 1
        self._study.tell(trial, score, state=self._failed if score is None else None)


def _drawn(trial: Any, key: str, axis: Sequence[Any] | Range) -> Any:
    if not isinstance(axis, Range):
        return axis[trial.suggest_categorical(key, range(len(axis)))]
    if isinstance(axis.low, int) and isinstance(axis.high, int):
        return trial.suggest_int(key, axis.low, axis.high, log=axis.log)
    return float(f"{trial.suggest_float(key, axis.low, axis.high, log=axis.log):.{_DIGITS}g}")
