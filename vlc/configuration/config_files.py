"""Configuration files of `run.py with FILE`: JSON or YAML with known keys and plain values, and nothing else.

Sacred itself unpickles files, builds the objects that a JSON file names, and expands YAML's aliases without end, so that a
foreign file could run code or use up the machine. This reader prevents both.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from vlc.common.errors import UserError
from vlc.configuration.groups import NESTED
from vlc.configuration.settings import check_keys, check_sources
from vlc.configuration.task_settings import OF_TEXTS, OWN_FILE, task_names
from vlc.configuration.use_settings import USE_KEYS
from vlc.objectives.options import OPTIONS
from vlc.tasks import TASKS

MAX_BYTES = 64 * 1024  # all keys with their comments take 10 kB
_SUFFIXES = (".json", ".yaml", ".yml")
_CURE = "Write key: value lines (.yaml) or a JSON object (.json) of the keys that print_config shows"


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, which can grow without end, and without tags that name types."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.YAMLError(f"an alias (*) in line {mark.line + 1}: write its value")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        _refuse_repeated(key.value for key, _ in node.value if isinstance(key.value, str))
        return super().construct_mapping(node, deep)


# In YAML 1.1, 1e-4 is a text, as it has no point.
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_config_file(path: str | Path) -> dict[str, Any]:
    """Read the values of a file, by key. Raises UserError for anything but known keys with plain values."""
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        pickled = " (a pickle could run code)" if path.suffix in (".pickle", ".pkl") else ""
        raise UserError(f"Configuration file {path} is not read{pickled}: expected {', '.join(_SUFFIXES)}. {_CURE}")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"Configuration file {path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"Configuration file {path} is larger than {MAX_BYTES // 1024} kB. {_CURE}")
    try:
        values = _parsed(content.decode("utf-8-sig"), path.suffix)
        if not isinstance(values, dict):
            raise ValueError(f"it holds {type(values).__name__}, and no keys")
        for key, value in values.items():
            check_value(key, value)
        if own := [name for name in task_names(values.get("tasks", ())) if OWN_FILE.fullmatch(name)]:
            raise ValueError(f"a task's file is executed, and so it is named on a command line alone: tasks=[{own[0]}]")
        check_keys(values, USE_KEYS)
        check_sources(values)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise UserError(f"Configuration file {path} cannot be used: {reason[:1000]}. {_CURE}") from error
    return values


def _parsed(text: str, suffix: str) -> Any:
    if suffix == ".json":
        return json.loads(text, object_pairs_hook=_without_repeats)
    return yaml.load(text, _PlainLoader)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_repeated(name for name, _ in pairs)
    return dict(pairs)


def _refuse_repeated(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"the key {name!r} stands there twice")
        seen.add(name)


def check_value(key: Any, value: Any) -> None:
    """Raise UserError for a value that no key takes: not a single value, nor a list or mapping of single values."""
    if not isinstance(key, str):
        raise UserError(f"the key {key!r} is no text")
    singles: Sequence[Any] = [value]
    if isinstance(value, list | tuple):
        singles = value
    elif isinstance(value, dict):
        singles = [*value.keys(), *value.values()]
        # The dictionaries of tasks and options have lists, and a task's dictionary has the options of its objectives, and
        # dictionaries of the values of its texts.
        # The dictionaries of NESTED, and of commands, have lists and dictionaries.
        first, last = key.partition(".")[0], key.rpartition(".")[2]
        if key in TASKS or last in (*OPTIONS, *OF_TEXTS) or first in NESTED or isinstance(USE_KEYS.get(first), dict):
            for name, part in value.items():
                check_value(f"{key}.{name}", part)
            singles = list(value)
    for single in singles:
        if isinstance(single, int) and abs(single) >= 2**63:
            raise UserError(f"{key} holds a number of more than 64 bits")
        if isinstance(single, float) and not math.isfinite(single):
            raise UserError(f"{key} holds a number that is not finite")
        if single is not None and type(single) not in (bool, int, float, str):
            raise UserError(f"{key} holds {type(single).__name__} where a single value is expected")
