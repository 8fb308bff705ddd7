"""Tasks of users' own: rows of a Python file that a command line names, or rows that a checkpoint stores.

The file is executed because the user names it. A checkpoint stores the rows as plain data, and the file's name for messages
alone: nothing that it says is ever executed.
"""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from vlc.common.errors import MissingFile, UserError, require
from vlc.configuration.checks import TRANSFORM_NAMES
from vlc.configuration.settings import check_weights, config_keys
from vlc.configuration.task_settings import OWN_FILE, TaskSettings, make_options, task_names
from vlc.configuration.values import check_known, check_types, plain
from vlc.data import kinds
from vlc.data.catalog import CATALOG
from vlc.data.composers import COMPOSERS
from vlc.data.kinds import Kind
from vlc.data.spec import Column, DatasetSpec
from vlc.objectives.options import CLASSES, OPTIONS, Options
from vlc.tasks import HEADS, TASKS, Report, Task, add_heads

PAGE = "docs/your_own_task.md"
_KINDS = {name: value for name, value in vars(kinds).items() if isinstance(value, Kind)}
_Stored = Iterable[tuple[str | Path, Mapping[str, Any]]]


@dataclass
class Source:
    """Where rows come from: a file, with its lines for messages, or a checkpoint.

    tasks, datasets: the rows by name.
    """

    path: Path
    lines: list[str] = field(default_factory=list)
    tasks: dict[str, Task] = field(default_factory=dict)
    datasets: dict[str, DatasetSpec] = field(default_factory=dict)

    @contextmanager
    def at(self, *words: str) -> Iterator[None]:
        """Puts file and line before a UserError; the line is the first that has one of the words in quotes."""
        try:
            yield
        except UserError as error:
            quoted = [f"{mark}{word}{mark}" for word in words for mark in "\"'"]
            found = (n for text in quoted for n, line in enumerate(self.lines, start=1) if text in line)
            number = next(found, None)
            raise UserError(f"{self.path}{f', line {number}' if number else ''}: {error}") from error


_OWN: dict[tuple[str, str], Source] = {}
"""Where each row that is not ours comes from, by the registry it was entered in and its name."""


def entered(tasks: Any, checkpoints: Callable[[], _Stored]) -> list[str]:
    """The names of the tasks, with the rows of users' own entered into the registries. Raises UserError.

    tasks: as a command line gives them; FILE.py or FILE.py:NAME stands for a row of a file.
    checkpoints: returns the checkpoints of the run with the rows that they store, for names that no file gave.
    """
    files: dict[str, Source] = {}
    names = []
    for entry in task_names(tasks):
        path, name = match.groups() if (match := OWN_FILE.fullmatch(entry)) else (None, entry)
        if path:
            files[path] = files.get(path) or load(path)
            name = _only(files[path].tasks, name, path, "task")
        names.append(name)
    if not set(names) <= TASKS.keys():
        for checkpoint, rows in checkpoints():
            enter_stored(checkpoint, rows)
    for name in set(names) - TASKS.keys():
        if Path(f"{name}.py").is_file():
            raise UserError(f"tasks={names} has no task {name}: pass tasks=[{name}.py] to use the file of this name")
    return names


def own_dataset(entry: str) -> tuple[str, DatasetSpec]:
    """Name and row of the data set that FILE.py or FILE.py:NAME stands for. Raises UserError."""
    match = OWN_FILE.fullmatch(entry)
    require(match is not None, "--dataset", entry, "FILE.py, or FILE.py:NAME where the file has several data sets")
    rows = load(match[1]).datasets
    name = _only(rows, match[2], match[1], "data set")
    return name, rows[name]


def options() -> dict[str, dict[str, Any]]:
    """The default options of the kinds of objectives that users' files have entered."""
    return {kind: asdict(OPTIONS[kind]()) for registry, kind in _OWN if registry == "OBJECTIVES"}


def stored(tasks: Iterable[TaskSettings]) -> dict[str, Any]:
    """What a checkpoint stores of tasks and data sets that are not ours; empty where there are none."""
    tasks = list(tasks)
    datasets = {name for task in tasks for name in task.datasets if ("DATASETS", name) in _OWN}
    rows = {
        "tasks": {task.name: _plain_task(task.name) for task in tasks if ("TASKS", task.name) in _OWN},
        "datasets": {name: _plain_dataset(CATALOG[name]) for name in sorted(datasets)},
    }
    return rows if any(rows.values()) else {}


def enter_stored(path: str | Path, rows: Mapping[str, Any]) -> None:
    """Enter the rows that a checkpoint stores. Rows of a file that was named stay. Raises UserError."""
    source = Source(Path(path))
    try:
        for name, row in rows.get("datasets", {}).items():
            if not _from_file("DATASETS", name):
                source.datasets[name] = _dataset(row, source.path)
        for name, row in rows.get("tasks", {}).items():
            if not _from_file("TASKS", name):
                source.tasks[name] = _task(name, row, source.path)
    except (TypeError, AttributeError, KeyError) as error:
        raise UserError(f"{path} is damaged: it does not tell its tasks and data sets as they are written") from error
    _enter(source)
    for name in source.tasks:
        if rows["tasks"][name].get("report"):
            from pytorch_lightning.utilities import (
                rank_zero_warn,
            )  # here, because the configuration is read without torch

            file = rows["tasks"][name].get("file")
            rank_zero_warn(
                f"The Report of task {name} is code of {file}: without tasks=[{file}] its metrics are left out"
            )


def load(path: str) -> Source:
    """Execute a user's file and enter its rows. Raises UserError, with the line where it is known."""
    place = Path(path)
    if not place.is_file():
        raise MissingFile(f"{path} does not exist: name the file of your task by its path ({PAGE} shows one)")
    try:
        lines = place.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a text in UTF-8 ({error})") from error
    module, source = _executed(place), Source(place, lines)
    for kind, classes in _table(module, "OBJECTIVES", source, required=False).items():
        with source.at(kind):
            _enter_objective(kind, classes, source)
    source.datasets = _table(module, "DATASETS", source, required=False)
    source.tasks = _table(module, "TASKS", source, required=True)
    _enter(source)
    return source


def _executed(path: Path) -> ModuleType:
    """The module of a file. Worker processes import it by its name, and so its folder becomes a place of modules."""
    name, location = path.stem, str(path.resolve())
    known = sys.modules.get(name) or (name.isidentifier() and importlib.util.find_spec(name))
    origin = getattr(known, "__file__", None) or getattr(known, "origin", None)
    if not name.isidentifier() or (known and origin != location):
        reason = f"Python has a module {name} already ({origin})" if known else "its name cannot be that of a module"
        raise UserError(f"{path} cannot be used, because {reason}: rename the file, for example to my_task.py")
    if str(path.resolve().parent) not in sys.path:
        sys.path.append(str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(name, location)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == location]
        number = error.lineno if isinstance(error, SyntaxError) and error.filename == location else None
        number = number or (frames[-1] if frames else None)
        where = f"{path}, line {number}" if number else f"{path}"
        raise UserError(f"{where}: the file raises {type(error).__name__}: {error}. Mend it there") from error
    return module


def _table(module: ModuleType, name: str, source: Source, *, required: bool) -> dict[str, Any]:
    """A dictionary that the file defines under this name."""
    rows = getattr(module, name, None if required else {})
    row = {"TASKS": "Task(...)", "DATASETS": "DatasetSpec(...)", "OBJECTIVES": "(OPTIONS_CLASS, OBJECTIVE_CLASS)"}[name]
    if not isinstance(rows, dict) or (required and not rows):
        raise UserError(f'{source.path} has no rows {name} = {{"NAME": {row}}}: add them as {PAGE} shows')
    return rows


def _only(rows: Mapping[str, Any], name: str | None, path: str, what: str) -> str:
    """The name, where rows have it, or the name of the only row."""
    if name is None and len(rows) == 1:
        return next(iter(rows))
    if name not in rows:
        has = f"has {', '.join(rows) or 'none'}" + ("" if name is None else f", and no {name}")
        cure = f"name one of them, as in {path}:{next(iter(rows))}" if rows else f"add one as {PAGE} shows"
        raise UserError(f"{path} should give one {what}, and {has}: {cure}")
    return name


def _from_file(registry: str, name: str) -> bool:
    """Whether a row comes from a file. A row of a checkpoint may be replaced by a row of another checkpoint."""
    own = _OWN.get((registry, name))
    return own is not None and bool(own.lines)


def _enter(source: Source) -> None:
    """Check rows and enter them."""
    for name, spec in source.datasets.items():
        with source.at(name):
            _refuse_names("DATASETS", name, CATALOG, source)
            _check_dataset(name, spec)
    known = CATALOG | source.datasets
    for name, task in source.tasks.items():
        with source.at(name):
            _refuse_names("TASKS", name, (*TASKS, *config_keys()), source)
            require(isinstance(task, Task), name, task, "a row Task({OBJECTIVE: WEIGHT}, (DATA_SET,), ...)")
        _check_task(name, task, known, source)
    CATALOG.update(source.datasets)
    TASKS.update(source.tasks)
    _OWN.update({("DATASETS", name): source for name in source.datasets})
    _OWN.update({("TASKS", name): source for name in source.tasks})
    heads = [task.head(kind) for task in source.tasks.values() for kind in task.objectives]
    for name in heads:
        if ("HEADS", name) in _OWN or name not in HEADS:
            _OWN["HEADS", name] = source
            HEADS.pop(name, None)
    for task in source.tasks.values():
        add_heads(task)


def _refuse_names(registry: str, name: Any, taken: Iterable[str], source: Source) -> None:
    """Raise UserError for a name that is none, or that another row has."""
    valid = isinstance(name, str) and name.isidentifier()
    require(valid, f"the name in {registry}", name, "letters, digits and _, as in my_task")
    own = _OWN.get((registry, name))
    if own is not None and bool(own.lines) == bool(source.lines) and own.path.name == source.path.name:
        return  # the same file, read again
    if name in taken and (own is None or own.lines):
        owner = f"a row of {own.path}" if own else "a row, or a key of the configuration, of vlc itself"
        raise UserError(f"the name {name!r} in {registry} is that of {owner}: choose another name")


def _enter_objective(kind: str, classes: Any, source: Source) -> None:
    """Enter a kind of objective with its options."""
    _refuse_names("OBJECTIVES", kind, config_keys(), source)
    pair = isinstance(classes, tuple) and len(classes) == 2 and all(isinstance(one, type) for one in classes)
    valid = pair and issubclass(classes[0], Options) and hasattr(classes[1], "forward")
    require(valid, f"OBJECTIVES[{kind!r}]", classes, "a pair of a subclass of Options and a subclass of Objective")
    OPTIONS[kind], CLASSES[kind] = classes
    _OWN["OBJECTIVES", kind] = source


def _check_task(name: str, task: Task, datasets: Mapping[str, DatasetSpec], source: Source) -> None:
    """Raise UserError, with the place, for a row that names what there is not."""
    with source.at(name):
        for key in ("objectives", "heads", "options"):
            value = getattr(task, key)
            require(isinstance(value, Mapping), f"{name}.{key}", value, "a dictionary by kind of objective")
        require(bool(task.objectives), f"{name}.objectives", task.objectives, "at least one objective with its weight")
        check_types(task, name)
        check_weights(task.objectives, f"{name}.objectives")
        require(task.composer in COMPOSERS, f"{name}.composer", task.composer, f"one of {', '.join(COMPOSERS)}")
        valid = isinstance(task.transforms, tuple) and len(task.transforms) == 2
        require(valid, f"{name}.transforms", task.transforms, "two names, of training and of evaluation")
    for words, known, what in (
        (task.objectives, OPTIONS, "objective"),
        (task.datasets, datasets, "data set"),
        (task.transforms, TRANSFORM_NAMES, "image pipeline"),
        ((*task.heads, *task.options), task.objectives, "objective"),
    ):
        for word in words:
            with source.at(word, name):
                check_known([word], known, f"{what} in the row {name}")
    for kind in task.objectives:
        head, own = task.head(kind), task.options.get(kind, {})
        with source.at(*own, name):
            require(isinstance(own, Mapping), f"{name}.options[{kind!r}]", own, "a dictionary of options")
            check_known(own, [option.name for option in fields(OPTIONS[kind])], f"option of {name}.{kind}")
            made = make_options(kind, own)
            check_types(made, f"{name}.{kind}")
            made.check_values()
        with source.at(head, name):
            require(isinstance(head, str) and head.isidentifier(), f"{name}.heads", head, "names of letters and digits")
            if ("HEADS", head) not in _OWN and head in HEADS and HEADS[head].kind != kind:
                raise UserError(f"the head {head!r} of {name} is a head of vlc of another kind ({HEADS[head].kind})")


def _check_dataset(name: str, spec: Any) -> None:
    """Raise UserError for a row that cannot be read by. Names of files lead nowhere else than below data_root."""
    require(isinstance(spec, DatasetSpec), name, spec, 'a row DatasetSpec("table", {"train": ("STEM",)}, ...)')
    check_types(spec, name)
    require(
        isinstance(spec.tables, Mapping) and bool(spec.tables), f"{name}.tables", spec.tables, "file stems by split"
    )
    for split, stems in (*spec.tables.items(), *dict(spec.published).items()):
        valid = isinstance(stems, tuple) and all(isinstance(s, str) and s and not set(s) & set("/\\:") for s in stems)
        require(valid, f"{name}.tables[{split!r}]", stems, 'a tuple of names without folders, as in ("birds_train",)')
    for key in ("validation", "test"):
        for split in getattr(spec, key):
            check_known([split], spec.tables, f"split in {name}.{key}")
    require(isinstance(spec.fields, Mapping), f"{name}.fields", spec.fields, "a Column by batch field")
    for key, column in spec.fields.items():
        valid = isinstance(column, Column) and isinstance(column.name, str) and isinstance(column.kind, Kind)
        require(valid, f"{name}.fields[{key!r}]", column, 'a column, as in Column("COLUMN", IDENTIFIERS)')


# -- rows as plain data


def _plain_task(name: str) -> dict[str, Any]:
    row = TASKS[name]
    kept = {item.name: plain(getattr(row, item.name)) for item in fields(Task) if item.name != "report"}
    return kept | {"report": row.report != Report(), "file": _OWN["TASKS", name].path.name}


def _task(name: str, row: Mapping[str, Any], path: Path) -> Task:
    own = {key: _tuples(value) for key, value in row.items() if key not in ("report", "file")}
    for kind in own["objectives"]:
        if kind not in OPTIONS:
            file = row["file"]
            raise UserError(
                f"{path} has learnt {name} with the objective {kind}, which is code of {file}: pass tasks=[{file}]"
            )
    return Task(**own)


def _plain_dataset(spec: DatasetSpec) -> dict[str, Any]:
    kept = {item.name: getattr(spec, item.name) for item in fields(DatasetSpec)}
    kept["fields"] = {name: _plain_column(column) for name, column in spec.fields.items()}
    return plain(kept | {"unlabelled": sorted(spec.unlabelled)})


def _dataset(row: Mapping[str, Any], path: Path) -> DatasetSpec:
    own = {key: _tuples(value) for key, value in row.items() if key != "fields"}
    columns = {name: _column(column, path) for name, column in row["fields"].items()}
    return DatasetSpec(**own | {"fields": columns, "unlabelled": frozenset(own["unlabelled"])})


def _plain_column(column: Column | None) -> dict[str, Any] | None:
    if column is None:
        return None
    kept = {item.name: getattr(column, item.name) for item in fields(Column)}
    name = next((name for name, kind in _KINDS.items() if kind is column.kind), None)
    return kept | {"kind": name or list(column.kind.names), "fallback": _plain_column(column.fallback)}


def _column(row: Mapping[str, Any] | None, path: Path) -> Column | None:
    if row is None:
        return None
    kind = _KINDS[row["kind"]] if isinstance(row["kind"], str) else kinds.one_of(row["kind"])
    if not row["kind"]:
        raise UserError(
            f"{path}: the column {row['name']} is of a kind that a file of yours defines: name it in tasks=[...]"
        )
    return Column(**dict(row) | {"kind": kind, "fallback": _column(row["fallback"], path)})


def _tuples(value: Any) -> Any:
    """Tuples in place of lists, at every depth."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
