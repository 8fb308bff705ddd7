"""Checks before training whether this run can continue a checkpoint, and finds the newest checkpoint of a run."""

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from vlc.common.errors import MissingFile, UserError, first_line
from vlc.configuration.groups import NESTED

# What torch.load raises for files that are none of its own.
_READ_ERRORS = (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, AttributeError, OSError)

AUTO = "auto"  # in place of a path: the newest checkpoint of this run, if there is one


def newest(paths: Iterable[Path]) -> Path | None:
    """The checkpoint that was written last."""
    return max((path for path in paths if path.is_file()), key=lambda path: path.stat().st_mtime, default=None)


def read(option: str, path: str | Path, otherwise: str) -> Mapping[str, Any]:
    """The content of a run's checkpoint; its tensors stay on the disk.

    option: how the user named it, as in "resume_from=x.ckpt".
    otherwise: the advice for a file that holds weights alone.

    Raises UserError where the file is missing, damaged, or no checkpoint of a run.
    """
    if not Path(path).is_file():
        raise MissingFile(f"{option} does not exist")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except _READ_ERRORS as error:
        raise UserError(f"{option} cannot be read as a checkpoint of a run ({first_line(error)})") from error
    parts = {"state_dict", "optimizer_states", "loops", "callbacks", "vlc"}
    if not isinstance(found, Mapping) or not parts <= set(found):
        raise UserError(f"{option} holds no state of a run of this program, at most weights: {otherwise}")
    return found


def facts(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """`DataModule.facts` of the run that wrote the checkpoint; older checkpoints have none."""
    return checkpoint["callbacks"].get("Progress", {}).get("facts", {})


def check_facts(option: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UserError where a position in the saved run's data means nothing in the data of this run."""
    before, here = saved.get("global_batch", now["global_batch"]), now["global_batch"]
    if before != here:
        raise UserError(
            f"{option} was saved with {before} samples a step over all devices, this run has {here}: resume with the same "
            "batch size of a device and number of devices"
        )
    before, here = saved.get("tasks", {}), now.get("tasks", {})
    if list(before.items()) != list(here.items()):  # their order decides whose turn it is
        raise UserError(
            f"{option} was saved in a run of {_tasks_listed(before)}, this run has {_tasks_listed(here)}: resume with the "
            "same tasks and batch sizes, or start from its weights"
        )
    before, here = saved.get("clean"), now["clean"]
    if before != here:
        lists = (
            "no list of images to leave out" if digest is None else f"list {digest[:12]}" for digest in (before, here)
        )
        raise UserError(
            f"{option} was saved in a run with {next(lists)}, this run has {next(lists)}: give the same clean.exclude and "
            "clean.lists, or start from its weights"
        )
    before, here = saved.get("num_samples", now["num_samples"]), now["num_samples"]
    if before != here:
        raise UserError(
            f"{option} was saved in a run over other data: {_listed(before)} training samples, this run has "
            f"{_listed(here)}. Give the same data, or start from its weights"
        )


def differences(saved: Mapping[str, Any], now: Mapping[str, Any], ignored: Iterable[str] = ()) -> list[str]:
    """Settings that differ, as "name VALUE (now VALUE)". Settings that only one of the two has are left out."""
    saved, now = _taken_apart(saved), _taken_apart(now)
    return [
        f"{name} {saved[name]!r} (now {now[name]!r})"
        for name in saved
        if name in now and name not in ignored and _plain(saved[name]) != _plain(now[name])
    ]


def _taken_apart(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with a name for each field of the groups in NESTED, as "schedule.kind"."""
    fields = {f"{name}.{key}": value for name in NESTED for key, value in settings.get(name, {}).items()}
    return {name: value for name, value in settings.items() if name not in NESTED} | fields


def misfits(saved: Mapping[str, torch.Tensor], now: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of parameters that only one of two models has, or has in another shape. A scalar equals a shape of (1,)."""
    shapes, here = ({name: tuple(value.shape) or (1,) for name, value in state.items()} for state in (saved, now))
    return [name for name in {**shapes, **here} if shapes.get(name) != here.get(name)]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _tasks_listed(tasks: Mapping[str, list[int]]) -> str:
    """Say which tasks train, with their batches and steps in samples."""
    if not tasks:
        return "one task"
    return ", ".join(f"{name} (batches of {batch}, steps of {step})" for name, (batch, step, _) in tasks.items())


def _listed(numbers: int | list[int]) -> str:
    return " + ".join(map(str, numbers)) if isinstance(numbers, list) else str(numbers)
