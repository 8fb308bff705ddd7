"""Tasks of users' own: rows of a Python file that a command line names, or rows that a checkpoint stores.

The file is executed because the user names it. A checkpoint stores the rows as plain data, and the name of the file for
messages only: nothing in a checkpoint is ever executed.
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
from vlc.configuration.stored_rows import as_dataset, as_plain, as_task
from vlc.configuration.task_settings import OWN_FILE, TaskSettings, make_options, task_names
from vlc.configuration.values import check_known, check_types
from vlc.data.catalog import CATALOG
from vlc.data.composers import COMPOSERS
from vlc.data.kinds import Kind
from vlc.data.spec import Column, DatasetSpec, ImageKey
from vlc.objectives.options import CLASSES, OPTIONS, Options
from vlc.tasks import HEADS, TASKS, Report, Task, add_heads

PAGE = "docs/your_own_task.md"
_Stored = Iterable[tuple[str | Path, Mapping[str, Any]]]


@dataclass
class Source:
    """A file with rows, and its lines for messages, or a checkpoint, which has no lines.

    tasks, datasets: the rows by name.
    """

    path: Path
    lines: list[str] = field(default_factory=list)
    tasks: dict[str, Task] = field(default_factory=dict)
    datasets: dict[str, DatasetSpec] = field(default_factory=dict)

    @contextmanager
    def at(self, *words: str) -> Iterator[None]:
        """Put file and line before a UserError; the line is the first that has one of the words in quotes."""
        try:
            yield
        except UserError as error:
            quoted = [f"{mark}{word}{mark}" for word in words for mark in "\"'"]
            found = (n for text in quoted for n, line in enumerate(self.lines, start=1) if text in line)
            number = next(found, None)
            raise UserError(f"{self.path}{f', line {number}' if number else ''}: {error}") from error


_OWN: dict[tuple[str, str], Source] = {}
"""The source of each row of users, by the row's registry and name."""


def entered(tasks: Any, checkpoints: Callable[[], _Stored]) -> list[str]:
    """Enter the rows of users' own tasks into the registries; returns the names of all tasks. Raises UserError.

    tasks: the entries of the command line; FILE.py or FILE.py:NAME stands for a row of a file.
    checkpoints: returns the checkpoints of the run with their stored rows, for names that no file has.
    """
    files: dict[str, Source] = {}
    names = []
    for entry in task_names(tasks):
        if match := OWN_FILE.fullmatch(entry):
            path = match[1]
            files[path] = files.get(path) or load(path)
            names.append(_only(files[path].tasks, match[2], path, "task"))
        else:
            names.append(entry)
    if not set(names) <= TASKS.keys():
        for checkpoint, rows in checkpoints():
            enter_stored(checkpoint, rows)
    for name in set(names) - TASKS.keys():
        if Path(f"{name}.py").is_file():
            raise UserError(f"tasks={names} has no task {name}: pass tasks=[{name}.py] to use the file of this name")
    return names


def own_dataset(entry: str) -> tuple[str, DatasetSpec]:
    """Return name and row of the data set that FILE.py or FILE.py:NAME stands for. Raises UserError."""
    match = OWN_FILE.fullmatch(entry)
    require(match is not None, "--dataset", entry, "FILE.py, or FILE.py:NAME where the file has several data sets")
    assert match is not None
    rows = load(match[1]).datasets
    name = _only(rows, match[2], match[1], "data set")
    return name, rows[name]


def options() -> dict[str, dict[str, Any]]:
    """Return the default options of the objectives of users' files, by kind."""
    return {kind: asdict(OPTIONS[kind]()) for registry, kind in _OWN if registry == "OBJECTIVES"}


def stored(tasks: Iterable[TaskSettings]) -> dict[str, Any]:
    """Return the rows of users' tasks and data sets as a checkpoint stores them; empty where there are none."""
    rows: dict[str, dict[str, Any]] = {"tasks": {}, "datasets": {}}
    for task in tasks:
        if source := _OWN.get(("TASKS", task.name)):
            row = TASKS[task.name]
            rows["tasks"][task.name] = as_plain(row) | {"report": row.report != Report(), "file": source.path.name}
        for name in task.datasets:
            if ("DATASETS", name) in _OWN:
                rows["datasets"][name] = as_plain(CATALOG[name])
    return rows if any(rows.values()) else {}


def enter_stored(path: str | Path, rows: Mapping[str, Any]) -> None:
    """Enter the rows that a checkpoint stores, except where the command line names a file. Raises UserError."""
    source = Source(Path(path))
    try:
        for name, row in rows.get("datasets", {}).items():
            if not _from_file("DATASETS", name):
                source.datasets[name] = as_dataset(row, source.path)
        for name, row in rows.get("tasks", {}).items():
            if not _from_file("TASKS", name):
                source.tasks[name] = as_task(name, row, source.path)
    except (TypeError, AttributeError, KeyError) as error:
        raise UserError(f"{path} is damaged: its rows of tasks and data sets are not as they are written") from error
    _enter(source)
    for name in source.tasks:
        if rows["tasks"][name].get("report"):
            from pytorch_lightning.utilities import rank_zero_warn  # here, as the configuration is read without torch

            file = rows["tasks"][name].get("file")
            rank_zero_warn(
                f"The Report of task {name} is code of {file}: without tasks=[{file}] its metrics are left out"
            )


def load(path: str) -> Source:
    """Execute a user's file and enter its rows. Raises UserError, with the line where it is known."""
    source = Source(Path(path))
    if not source.path.is_file():
        raise MissingFile(f"{path} does not exist: name the file of your task by its path ({PAGE} shows one)")
    try:
        source.lines = source.path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a text in UTF-8 ({error})") from error
    module = _executed(source.path)
    for kind, classes in _table(module, "OBJECTIVES", source, required=False).items():
        with source.at(kind):
            _enter_objective(kind, classes, source)
    source.datasets = _table(module, "DATASETS", source, required=False)
    source.tasks = _table(module, "TASKS", source, required=True)
    _enter(source)
    return source


def _executed(path: Path) -> ModuleType:
    """Return the module of a file. Its folder is added to sys.path, as worker processes import the module by name."""
    name, location = path.stem, str(path.resolve())
    known = sys.modules.get(name) or (name.isidentifier() and importlib.util.find_spec(name))
    origin = getattr(known, "__file__", None) or getattr(known, "origin", None)
    if not name.isidentifier() or (known and origin != location):
        reason = f"Python has a module {name} already ({origin})" if known else "its name is not valid for a module"
        raise UserError(f"{path} cannot be used, because {reason}: rename the file, for example to my_task.py")
    if str(path.resolve().parent) not in sys.path:
        sys.path.append(str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(name, location)
    assert spec is not None
    assert spec.loader is not None
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
    """Return the dictionary that the file defines under this name."""
    rows = getattr(module, name, None if required else {})
    row = {"TASKS": "Task(...)", "DATASETS": "DatasetSpec(...)", "OBJECTIVES": "(OPTIONS_CLASS, OBJECTIVE_CLASS)"}[name]
    if not isinstance(rows, dict) or (required and not rows):
        raise UserError(f'{source.path} has no rows {name} = {{"NAME": {row}}}: add them as {PAGE} shows')
    return rows


def _only(rows: Mapping[str, Any], name: str | None, path: str, what: str) -> str:
    """Return the name if rows have it, or the name of the only row. Raises UserError otherwise."""
    if name is None and len(rows) == 1:
        return next(iter(rows))
    if name is not None and name in rows:
        return name
    has = f"has {', '.join(rows) or 'none'}" + ("" if name is None else f", and no {name}")
    cure = f"name one of them, as in {path}:{next(iter(rows))}" if rows else f"add one as {PAGE} shows"
    raise UserError(f"{path} should give one {what}, and {has}: {cure}")


def _from_file(registry: str, name: str) -> bool:
    """Whether a row comes from a file. Rows of a checkpoint, in contrast, may be replaced by another checkpoint."""
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
    heads = {task.head(kind): kind for task in source.tasks.values() for kind in task.objectives}
    for name, kind in heads.items():
        if ("HEADS", name) in _OWN or name not in HEADS or HEADS[name].kind != kind:
            _OWN["HEADS", name] = source
            HEADS.pop(name, None)
    for task in source.tasks.values():
        add_heads(task)


def _refuse_names(registry: str, name: Any, taken: Iterable[str], source: Source) -> None:
    """Raise UserError for a name that is not an identifier, or that another row has."""
    valid = isinstance(name, str) and name.isidentifier()
    require(valid, f"the name in {registry}", name, "letters, digits and _, as in my_task")
    own = _OWN.get((registry, name))
    if own is not None and bool(own.lines) == bool(source.lines) and own.path.name == source.path.name:
        return  # the same file, read again
    if name in taken and (own is None or own.lines):
        owner = f"a row of {own.path}" if own else "a row, or a key of the configuration, of vlc itself"
        raise UserError(f"the name {name!r} in {registry} is the name of {owner}: choose another name")


def _enter_objective(kind: str, classes: Any, source: Source) -> None:
    """Enter a kind of objective with its options."""
    _refuse_names("OBJECTIVES", kind, config_keys(), source)
    pair = isinstance(classes, tuple) and len(classes) == 2 and all(isinstance(one, type) for one in classes)
    valid = pair and issubclass(classes[0], Options) and hasattr(classes[1], "forward")
    require(valid, f"OBJECTIVES[{kind!r}]", classes, "a pair of a subclass of Options and a subclass of Objective")
    OPTIONS[kind], CLASSES[kind] = classes
    _OWN["OBJECTIVES", kind] = source


def _check_task(name: str, task: Task, datasets: Mapping[str, DatasetSpec], source: Source) -> None:
    """Raise UserError, with file and line, for a row with unknown names or with values of wrong types."""
    with source.at(name):
        check_types(task, name)
        require(bool(task.objectives), f"{name}.objectives", task.objectives, "at least one objective with its weight")
        check_weights(task.objectives, f"{name}.objectives")
    for other in task.published:
        owner = next((row for row, known in TASKS.items() if row != name and other in (row, *known.published)), None)
        with source.at(other, name):
            require(owner is None, f"{name}.published", other, f"a name that the task {owner} does not have")
    for words, known, what in (
        (task.objectives, OPTIONS, "objective"),
        (task.datasets, datasets, "data set"),
        (task.transforms, TRANSFORM_NAMES, "image pipeline"),
        ((task.composer,), COMPOSERS, "composer"),
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
            # A head without a name of its own has that of its kind, whatever our heads are called.
            if head != kind and ("HEADS", head) not in _OWN and head in HEADS and HEADS[head].kind != kind:
                raise UserError(f"the head {head!r} of {name} is a head of vlc of another kind ({HEADS[head].kind})")


def _check_dataset(name: str, spec: Any) -> None:
    """Raise UserError for a row that data cannot be read with. Names of files cannot lead out of data_root."""
    require(isinstance(spec, DatasetSpec), name, spec, 'a row DatasetSpec("table", {"train": ("STEM",)}, ...)')
    check_types(spec, name)
    require(bool(spec.tables), f"{name}.tables", spec.tables, "file stems by split")
    for split, stems in (*spec.tables.items(), *spec.published.items()):
        valid = isinstance(stems, tuple) and all(isinstance(s, str) and s and not set(s) & set("/\\:") for s in stems)
        require(valid, f"{name}.tables[{split!r}]", stems, 'a tuple of names without folders, as in ("birds_train",)')
    valid = spec.image_key is None or isinstance(spec.image_key, ImageKey)
    require(valid, f"{name}.image_key", spec.image_key, 'ImageKey("COLUMN", "COLLECTION"), or None')
    for key in ("validation", "test", "optional", "from_training"):
        for split in getattr(spec, key):
            check_known([split], spec.tables, f"split in {name}.{key}")
    for key, column in spec.fields.items():
        valid = isinstance(column, Column) and isinstance(column.name, str) and isinstance(column.kind, Kind)
        require(valid, f"{name}.fields[{key!r}]", column, 'a column, as in Column("COLUMN", IDENTIFIERS)')
