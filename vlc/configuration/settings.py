"""Frozen settings. Only `Settings.from_config` reads Sacred's raw dictionary.

Each key of the configuration is a field of exactly one group of settings, an option of an objective, or a task.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from vlc.common.errors import UserError, require
from vlc.configuration.aliases import ALIASES
from vlc.configuration.checks import check
from vlc.configuration.groups import NESTED, DataSettings, Groups, ModelSettings, OptimSettings, RunSettings, keys
from vlc.configuration.recipes import OBJECTIVE_NAMES
from vlc.configuration.task_settings import (
    OF_A_TASK,
    OF_THE_RUN,
    TASK_FIELDS,
    configured_tasks,
    read_options,
    task_names,
)
from vlc.configuration.values import as_text, check_known, check_types, is_number, is_whole, plain, read
from vlc.objectives.options import OPTIONS
from vlc.tasks import TASKS

_GROUPS = {"data": DataSettings, "model": ModelSettings, "optim": OptimSettings, "run": RunSettings}


@dataclass(frozen=True)
class Settings(Groups):
    """All settings of a run, checked. Raises UserError, naming the key and the valid values."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Settings":
        check_keys(config)
        groups, nested = {}, {}
        for name, group in NESTED.items():
            types = {field.name: field.type for field in fields(group)}
            nested[name] = group(**{key: read(value, types[key]) for key, value in config[name].items()})
            check_types(nested[name], name)
        for name, group in _GROUPS.items():
            types = {field.name: field.type for field in fields(group)}
            inner = {key: nested.pop(key) for key in types if key in nested}
            groups[name] = group(**{key: read(config[key], types[key]) for key in keys(group)}, **inner)
            check_types(groups[name])
        check_weights(groups["model"].loss_names)
        options = read_options(config)
        for kind, own in options.items():
            check_types(own, kind)
        tasks = configured_tasks(config, options)
        for task in tasks:
            check_types(task, task.name)
            for head in task.heads:
                check_types(head.options, task.prefix + head.kind)
        settings = cls(**groups, **nested, options=options, tasks=tasks)
        check(settings)
        return settings

    def as_config(self) -> dict[str, Any]:
        """Return the settings as a dictionary of plain values, as checkpoints store it."""
        groups = [getattr(self, name) for name in _GROUPS]
        config = {key: getattr(group, key) for group in groups for key in keys(group)}
        config |= {name: asdict(getattr(self, name)) for name in NESTED}
        config |= {kind: asdict(options) for kind, options in self.options.items()}
        config |= {key: config[kind][option] for key, (kind, option) in ALIASES.items()}
        named = {task.name: task.as_config() for task in self.tasks if task.name}
        return plain(config | {"tasks": list(named)} | named)


def config_keys() -> tuple[str, ...]:
    """Return every key of a configuration without named tasks."""
    flat = (key for group in _GROUPS.values() for key in keys(group))
    return (*flat, *ALIASES, *OPTIONS, *NESTED, "tasks")


def check_keys(config: Mapping[str, Any], others: Collection[str] = ()) -> None:
    """Raise UserError for an unknown key, with the nearest known ones; others: further known keys."""
    names = task_names(config.get("tasks", ()))
    check_known(names, TASKS, "task")
    nested = {key: key for name, group in NESTED.items() for key in (f"{name}.{field.name}" for field in fields(group))}
    # A group is set by its keys. For a name like a group's the message shows the first: logger=[wandb] means logging.to.
    nested |= {name: f"{name}.{fields(group)[0].name}" for name, group in NESTED.items()}
    own = (key for key in config if key not in TASKS)
    check_known(own, (*config_keys(), *others), "config key", meant=nested)
    losses = config.get("loss_names", {})
    require(isinstance(losses, Mapping), "loss_names", losses, "weights by objective, as in loss_names.mlm=1")
    check_known(losses, OBJECTIVE_NAMES, "objective in loss_names")
    for kind in OPTIONS.keys() & config.keys():
        _check_options(kind, OPTIONS[kind], config[kind])
    for name in NESTED.keys() & config.keys():
        _check_options(name, NESTED[name], config[name])
    for name in TASKS.keys() & config.keys():
        known = ("objectives", *TASK_FIELDS, *TASKS[name].objectives)
        example = f"values by key, as in {name}.learning_rate=1e-4"
        require(isinstance(config[name], Mapping), name, config[name], example)
        check_known(config[name], known, f"key of task {name}")
        for kind in TASKS[name].objectives.keys() & config[name].keys():
            _check_options(f"{name}.{kind}", OPTIONS[kind], config[name][kind])
        weights = config[name].get("objectives", {})
        require(isinstance(weights, Mapping), f"{name}.objectives", weights, "weights by objective")
        check_known(weights, TASKS[name].objectives, f"objective of task {name}")
        check_weights(weights, f"{name}.objectives")


def _check_options(key: str, group: type, values: Any) -> None:
    known = [field.name for field in fields(group)]
    require(isinstance(values, Mapping), key, values, f"options by name, as in {key}.{known[0]}=...")
    check_known(values, known, f"option of {key}")


def check_weights(weights: Mapping[str, Any], key: str = "loss_names") -> None:
    """Raise UserError for a weight of a loss that is not a number, or is below 0."""
    for name, weight in weights.items():
        require(is_number(weight), f"{key}.{name}", weight, "a number")
        require(weight >= 0, f"{key}.{name}", weight, "a weight of 0 or more")


def check_sources(config: Mapping[str, Any]) -> None:
    """Raise UserError for values of wrong types from which other defaults are computed."""
    if "seed" in config:
        seed = config["seed"]
        require(is_whole(seed) and 0 <= seed < 2**32, "seed", seed, "a whole number from 0 to 4294967295")
    for key in ("vit", "tokenizer"):
        if key in config:
            require(isinstance(config[key], str), key, config[key], f"a text{as_text(key, config[key])}")
    check_weights(config.get("loss_names", {}))


def check_named(config: Mapping[str, Any]) -> None:
    """Raise UserError where a complete configuration has a dictionary of a task that is missing in `tasks`."""
    names = task_names(config["tasks"])
    for name in TASKS.keys() & config.keys() - set(names):
        key = next(iter(config[name]), "")
        raise UserError(
            f"{name}.{key} is given, but tasks={list(names)} lacks {name}: add it there, or leave {name}.{key} out"
        )


def check_given(given: Collection[str], nested: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise UserError for keys that have no effect, as their task or objective is not active.

    given: the keys that a command line states.
    nested: the dictionaries of the command line, before options moved to their flat names.
    """
    names = task_names(config["tasks"])
    clashing = sorted(set(given) & set(OF_A_TASK)) if names else []
    if clashing:
        raise UserError(
            f"tasks={list(names)} and {clashing[0]} are both given, but each task has its own: leave {clashing[0]} out, or "
            f"pass {names[0]}.{clashing[0].replace('loss_names', 'objectives')}"
        )
    for key in OF_THE_RUN if len(names) == 1 else ():
        if key in given and nested.get(names[0], {}).get(key, config[key]) != config[key]:
            raise UserError(
                f"{key}={config[key]!r} and {names[0]}.{key}={nested[names[0]][key]!r} are two names of the same value "
                f"where {names[0]} is the only task: pass one of them"
            )
    options = read_options(config)
    active = {kind for task in configured_tasks(config, options) for kind in task.kinds}
    for kind in OPTIONS.keys() & set(nested):
        if kind not in active:
            raise UserError(
                f"{kind}.{next(iter(nested[kind]), '')} is given, but the objective {kind} is not active ("
                f"{', '.join(sorted(active))} are): give it a weight in loss_names, name a task that has it, or leave the "
                "option out"
            )
