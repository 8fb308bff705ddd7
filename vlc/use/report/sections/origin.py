"""What the run is: command, settings that differ, versions, machine, data and seed."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from vlc.common.errors import UserError
from vlc.configuration.config import resolve
from vlc.configuration.recipes import RECIPES
from vlc.use.report.run import Run
from vlc.use.report.section import Section

_OF_THE_MACHINE = ("log_dir", "resume_from")  # say where a run wrote, and not what it did


def section(run: Run) -> Section | None:
    runs = [_described(one) for one in run.both]
    differing = [] if run.beside is None else _between(run, run.beside)
    return Section("What it is", "origin", {"runs": runs, "differing": differing})


def _between(first: Run, second: Run) -> list[tuple[str, Any, Any]]:
    """The settings in which two runs differ; none where one of them does not say its settings."""
    try:
        return changed(first.config, second.config)
    except UserError:  # the table of the run says it
        return []


def _described(run: Run) -> dict[str, Any]:
    facts = run.facts
    rows = {"name": run.name, "folder": str(run.folder), "kind": "test" if run.is_test else "training"}
    if facts is not None:
        rows |= {"command": facts.command, "started": facts.started, "machine": facts.machine}
        rows["commit"] = facts.commit or "not in a repository"
        rows["versions"] = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    else:
        rows["command, versions, machine, data"] = "not stored: an older version wrote the run"
    changes: list[tuple[str, Any, Any]] = []
    named: list[str] = []
    try:
        config, rows["checkpoint"] = run.config, str(run.checkpoint)
        named = named_configs(run)
        changes = changed(config, defaults(config, named))
        rows["seed"] = str(config["seed"])
    except UserError as error:
        rows["checkpoint or configuration"] = str(error)
    base = " ".join(named) or "the defaults of its tasks"
    return {"name": run.label, "rows": rows, "base": base, "changes": changes, "data": _data(run)}


def named_configs(run: Run) -> list[str]:
    """The named configurations in the command of a run."""
    words = run.facts.command.split() if run.facts else []
    return [word for word in words if word in RECIPES]


def defaults(config: Mapping[str, Any], named: list[str]) -> Mapping[str, Any]:
    """What the named configurations state, or else what the tasks of the run state. Raises UserError for unknown tasks."""
    tasks = {} if named or not config.get("tasks") else {"tasks": list(config["tasks"])}
    return resolve(*named, **tasks)


def changed(config: Mapping[str, Any], base: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The settings that differ: key, value, value of the base. Keys that one of the two lacks are left out.

    So are those of a task that say what the key of the run says, as batch sizes do.
    """
    own, other = dict(_flat(config)), dict(_flat(base))
    return [
        (key, own[key], other[key])
        for key in own
        if key in other
        and own[key] != other[key]
        and key not in _OF_THE_MACHINE
        and own[key] != own.get(key.partition(".")[2])
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values with names such as vqa.batch_size; lists are equal to tuples."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def _data(run: Run) -> list[dict[str, Any]]:
    """A row for each source of the data: its splits have equal files once."""
    entries = run.facts.data if run.facts else []
    rows = []
    for (dataset, split), own in groupby(entries, key=lambda entry: (entry["dataset"], entry["split"])):
        first = next(own)
        files = [
            f"{file['name']} ({file['bytes']:,} bytes, {file['checksum'] or 'no checksum'})" for file in first["files"]
        ]
        rows.append({"dataset": dataset, "split": split, "samples": first["samples"], "files": files})
    return rows
