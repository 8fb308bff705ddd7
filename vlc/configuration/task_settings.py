"""The tasks of a run: rows of TASKS as the configuration changes them, or one task that the flat keys describe."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from operator import itemgetter
from typing import Any

from vlc.common.errors import UserError, require
from vlc.configuration.aliases import ALIASES, FLAT_NAMES
from vlc.configuration.recipes import OBJECTIVE_NAMES, loss_weights
from vlc.configuration.values import is_number, is_whole, read
from vlc.objectives.options import OPTIONS, RANKED_IN_TESTS, Options, ranking_kind
from vlc.tasks import HEADS, TASKS
from vlc.tasks.task import EVALUATORS, Report, Task

# Flat keys that every named task has for itself; beside named tasks they have no meaning.
OF_A_TASK = (
    "loss_names",
    "datasets",
    "dataset_weights",
    "max_text_len",
    "train_transform_keys",
    "val_transform_keys",
)

# Keys that a named task has alone: which texts are samples.
OF_TEXTS = ("where", "pairs", "tested_where", "tested_pairs", "language_weights")

# An entry of `tasks` that names a user's file, and perhaps one of its rows.
OWN_FILE = re.compile(r"(.+\.py)(?::(\w+))?", re.DOTALL)
# Numbers of published tasks, as 12-in-1's command joins them.
_NUMBERS = re.compile(r"[0-9]+(-[0-9]+)*")
# Keys of the run by which the checks of options name them: of weights, flat ones, and nested ones.
_RUN_KEYS = re.compile(rf"(?<![\w.])(?:loss_names\.(\w+)|({'|'.join(ALIASES)})|((?:{'|'.join(OPTIONS)})\.[a-z_]+))\b")


@dataclass(frozen=True)
class HeadSettings:
    """An objective of a task.

    name: the name of the head, which tasks may share.
    kind: a key of `vlc.objectives.kinds.KINDS`.
    weight: the weight of the loss.
    """

    name: str
    kind: str
    weight: float
    options: Options
    report: Report


@dataclass(frozen=True)
class TaskSettings:
    """One stream of batches and the heads that learn from it.

    name: "" for the task that the flat keys describe.
    learning_rate: beside other tasks, the task's loss is scaled by the ratio of this rate to the run's.
    composer: a name in `vlc.data.composers.COMPOSERS`, which composes the task's texts.
    evaluators: n by name; an evaluator runs in tests and at every n-th validation; 0: in tests only; None: never.
    batch_size: the samples of an optimiser step over all devices; gradients accumulate to reach it.
    per_gpu_batchsize: the samples of a batch of one device.
    where, pairs, tested_where, tested_pairs: which texts are samples in training and in evaluation, as in `Task`.
    language_weights: shares of languages, or of directions, in training.
    """

    name: str
    heads: tuple[HeadSettings, ...] = ()
    datasets: tuple[str, ...] = ()
    dataset_weights: tuple[float, ...] | None = None
    max_text_len: int = 40
    train_transform_keys: tuple[str, ...] = ("mae",)
    val_transform_keys: tuple[str, ...] = ("mae",)
    learning_rate: float = 1e-4
    composer: str = "plain"
    evaluators: Mapping[str, int | None] = field(default_factory=dict)
    batch_size: int = 0
    per_gpu_batchsize: int = 0
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pairs: tuple[str, ...] = ()
    tested_where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tested_pairs: tuple[str, ...] = ()
    language_weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """The beginning of the task's keys in the configuration."""
        return f"{self.name}." if self.name else ""

    @property
    def token(self) -> str:
        """The name of its task token, which is its own name.

        The task that the flat keys describe has the token of the first named task with the same heads and data sets, or
        else with the same heads. Empty: there is none.
        """
        heads, datasets = {head.name for head in self.heads}, set(self.datasets)
        alike = {name: row for name, row in TASKS.items() if {row.head(kind) for kind in row.objectives} == heads}
        same = (name for name, row in alike.items() if set(row.datasets) == datasets)
        return self.name or next(same, next(iter(alike), ""))

    @property
    def kinds(self) -> dict[str, HeadSettings]:
        """The heads by the kind of their objective."""
        return {head.kind: head for head in self.heads}

    def options(self, kind: str) -> Options:
        """Return the options of an objective, or its defaults where the task does not have it."""
        return self.kinds[kind].options if kind in self.kinds else OPTIONS[kind]()

    def metric(self, head: HeadSettings, split: str, metric: str) -> str:
        """Return the name of a metric: task/split/metric, or head/split/metric where the flat keys describe the task."""
        if not self.name:
            return f"{head.name}/{split}/{metric}"
        return f"{self.name}/{split}/{metric if len(self.heads) == 1 else f'{head.name}_{metric}'}"

    def file(self, head: HeadSettings, split: str) -> str:
        """Return the name of the file for the records of a split, without its suffix."""
        if not self.name:
            return f"{head.name}_{split}"
        return f"{self.name}_{split}" if len(self.heads) == 1 else f"{self.name}_{head.name}_{split}"

    @contextmanager
    def errors_name_its_keys(self) -> Iterator[None]:
        """Replace, in UserErrors of the block, the run's keys of options by the keys of a named task.

        The checks of options name the run's keys, and a named task has its options for itself.
        """
        try:
            yield
        except UserError as error:
            if not self.name:
                raise
            raise type(error)(_RUN_KEYS.sub(self._own_key, str(error))) from error

    def _own_key(self, key: re.Match[str]) -> str:
        if key[1]:
            return f"{self.name}.objectives.{HEADS[key[1]].kind if key[1] in HEADS else key[1]}"
        return self.prefix + (key[3] or ".".join(ALIASES[key[2]]))

    def as_config(self) -> dict[str, Any]:
        """Return the dictionary of the task in the configuration."""
        own = {name: getattr(self, name) for name in TASK_FIELDS}
        own |= {head.kind: asdict(head.options) for head in self.heads}
        return own | {"objectives": {head.kind: head.weight for head in self.heads}}


# The keys in the dictionary of a task, besides its objectives and their options, with their types.
TASK_FIELDS = {field.name: field.type for field in fields(TaskSettings) if field.name not in ("name", "heads")}


def task_names(tasks: Any) -> tuple[str, ...]:
    """Return the names in `tasks`. Raises UserError where it is not a list of different names.

    Published names stand for our names. Published numbers need no list: 7, or 1-2-4 as 12-in-1's command has it.
    """
    given = read(tasks, tuple[str, ...])
    if is_whole(given) or (isinstance(given, str) and _NUMBERS.fullmatch(given)):
        given = tuple(str(given).split("-"))
    valid = isinstance(given, tuple) and all(isinstance(name, str) or is_whole(name) for name in given)
    require(valid, "tasks", tasks, f"a list of names, as in [{','.join(TASKS)}]")
    published = {other: name for name, row in TASKS.items() for other in row.published}
    names = tuple(published.get(str(name), str(name)) for name in given)
    numbers = ", ".join(
        f"{number} ({published[number]})" for number in sorted(filter(str.isdecimal, published), key=int)
    )
    require(not any(map(str.isdecimal, names)), "tasks", tasks, f"published numbers out of {numbers}")
    require(len(set(names)) == len(names), "tasks", tasks, "each name once")
    return names


def row_default(tasks: Any, field: str, default: Any, together: Callable[[Sequence[Any]], Any] = itemgetter(0)) -> Any:
    """Return what the tasks' rows say of a key that follows from a field of theirs; the default without tasks.

    together: makes one value of the values of the rows; by default the first task decides.
    """
    values = [getattr(row, field) for row in _rows(tasks).values()]
    return together(values) if values else default


def step_size(tasks: Any, values: Mapping[str, Any]) -> int | None:
    """Return batch_size as it follows from the tasks; None where there are several, which have their own.

    values: the dictionaries of the tasks, by name.
    """
    rows = [row.batch_size for row in _rows(tasks).values()]
    return of_tasks(tasks, values, "batch_size") or (rows[0] if len(rows) == 1 else None if rows else 4096)


def task_values(tasks: Any, options: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the dictionaries of the named tasks, by name. Unknown names are left out, as the settings report them.

    options: the options of the run's objectives by kind, and get_recall_metric. Those that differ from the defaults are
        valid for all tasks.
    """
    return {name: _row_values(row, options) for name, row in _rows(tasks).items()}


def of_tasks(tasks: Any, values: Mapping[str, Any], key: str) -> Any:
    """Return a flat key that follows from the tasks: all their data sets, the longest text, the lowest learning rate.

    values: the dictionaries of the tasks, by name. Returns None without tasks.
    """
    found = [values[name].get(key) for name in _rows(tasks) if isinstance(values[name], Mapping)]
    if not found or any(value is None for value in found):
        return None
    if key == "datasets":
        return list(dict.fromkeys(name for datasets in found for name in read(datasets, tuple[str, ...])))
    together = {"max_text_len": max, "learning_rate": min}.get(key)
    return together(found) if together and all(map(is_number, found)) else found[0]


def weights_of(tasks: Any) -> dict[str, float]:
    """Return loss_names as they follow from the tasks, for heads with a published name; empty without tasks."""
    rows = _rows(tasks).values()
    weights = {row.head(kind): weight for row in rows for kind, weight in row.objectives.items()}
    return loss_weights(**{name: weight for name, weight in weights.items() if name in OBJECTIVE_NAMES}) if rows else {}


OF_THE_RUN = ("learning_rate", "batch_size", "per_gpu_batchsize")  # what an only task takes from the flat keys


def values_of_the_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the dictionaries of tasks take from the flat keys.

    An only task takes OF_THE_RUN. Of several tasks, each takes the batch sizes that it does not state itself, or its row's.
    """
    names = [name for name in task_names(config["tasks"]) if isinstance(config[name], Mapping)]
    if len(names) == 1:
        return {names[0]: {key: config[key] for key in OF_THE_RUN}}
    given = {"batch_size": config["batch_size"], "per_gpu_batchsize": config["per_gpu_batchsize"]}
    return {
        name: {
            key: next(value for value in (config[name][key], own, getattr(TASKS[name], key, None)) if value is not None)
            for key, own in given.items()
        }
        for name in names
    }


def _rows(tasks: Any) -> dict[str, Task]:
    return {name: TASKS[name] for name in task_names(tasks) if name in TASKS}


def _row_values(row: Task, options: Mapping[str, Any]) -> dict[str, Any]:
    values = {
        "objectives": dict(row.objectives),
        "datasets": list(row.datasets),
        "dataset_weights": None,
        "max_text_len": row.max_text_len,
        "train_transform_keys": [row.transforms[0]],
        "val_transform_keys": [row.transforms[1]],
        "learning_rate": row.learning_rate,
        "composer": row.composer,
        "evaluators": _with_ranking(row.evaluators, row.objectives, options["get_recall_metric"]),
        "batch_size": None,
        "per_gpu_batchsize": None,
        "where": {name: list(values) for name, values in row.where.items()},
        "pairs": list(row.pairs),
        "tested_where": {name: list(values) for name, values in row.tested_where.items()},
        "tested_pairs": list(row.tested_pairs),
        "language_weights": dict(row.language_weights),
    }
    for kind in row.objectives:
        values[kind] = asdict(OPTIONS[kind]()) | dict(row.options.get(kind, {})) | _changed(kind, options[kind])
    return values


def _changed(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that differ from the defaults."""
    defaults = OPTIONS[kind]()
    return {name: value for name, value in options.items() if value != getattr(defaults, name, None)}


def head_options(loss_names: Any, kind: str, tasks: Any = ()) -> dict[str, Any]:
    """Return the default options of a kind, changed as the row of its head with a weight in loss_names says.

    Options with a flat name keep their defaults. So do all options beside named tasks, which have their rows' options.
    """
    active = (name for name, weight in dict(loss_names).items() if weight and name in HEADS and not tasks)
    head = next((HEADS[name] for name in active if HEADS[name].kind == kind), None)
    own = {} if head is None else {name: v for name, v in head.options.items() if (kind, name) not in FLAT_NAMES}
    return asdict(OPTIONS[kind]()) | own


def read_options(config: Mapping[str, Any]) -> dict[str, Options]:
    """Return the options of every kind of objective; a flat name wins over the nested one, which follows from it."""
    values = {kind: dict(config.get(kind) or {}) for kind in OPTIONS}
    for key, (kind, option) in ALIASES.items():
        values[kind][option] = config[key]
    return {kind: make_options(kind, own) for kind, own in values.items()}


def make_options(kind: str, values: Mapping[str, Any]) -> Options:
    """Return an objective's options from plain values; missing options have their defaults."""
    types = {field.name: field.type for field in fields(OPTIONS[kind])}
    return OPTIONS[kind](**{name: read(value, types[name]) for name, value in values.items()})


def configured_tasks(config: Mapping[str, Any], options: Mapping[str, Options]) -> tuple[TaskSettings, ...]:
    """Return the tasks of a configuration whose keys are known."""
    names = task_names(config.get("tasks", ()))
    if names:
        return tuple(_named_task(name, config[name]) for name in names)
    heads = tuple(flat_head(name, weight, options) for name, weight in config["loss_names"].items() if weight > 0)
    values = {key: config[key] for key in (*OF_A_TASK, *OF_THE_RUN) if key != "loss_names"}
    kinds = [head.kind for head in heads]
    own = {"ranking": 0} if set(kinds) & set(RANKED_IN_TESTS) else {}
    evaluators = _with_ranking(own, kinds, config["get_recall_metric"])
    values |= {name: () if name.endswith("pairs") else {} for name in OF_TEXTS}
    return (_task("", heads, values | {"composer": "plain", "evaluators": evaluators}),)


def _with_ranking(evaluators: Mapping[str, int], kinds: Collection[str], wanted: bool) -> dict[str, int | None]:
    """Return all evaluators, with a ranking at every validation if it is wanted and one of the objectives can rank."""
    own = {name: evaluators.get(name) for name in EVALUATORS}
    return own | ({"ranking": 1} if wanted and ranking_kind(kinds) else {})


def flat_head(name: str, weight: float, options: Mapping[str, Options]) -> HeadSettings:
    """Return the head of a name in loss_names."""
    head = HEADS[name]
    own = head_options({name: 1}, head.kind) | _changed(head.kind, asdict(options[head.kind]))
    return HeadSettings(name, head.kind, weight, make_options(head.kind, own), head.report)


def _named_task(name: str, values: Mapping[str, Any]) -> TaskSettings:
    row = TASKS[name]
    heads = tuple(
        HeadSettings(row.head(kind), kind, weight, make_options(kind, values[kind]), row.report)
        for kind, weight in values["objectives"].items()
        if weight > 0
    )
    return _task(name, heads, values)


def _task(name: str, heads: tuple[HeadSettings, ...], values: Mapping[str, Any]) -> TaskSettings:
    return TaskSettings(name, heads, **{key: read(values[key], kind) for key, kind in TASK_FIELDS.items()})
