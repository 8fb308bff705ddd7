"""`python run.py fit with table=FILE`: the steps from a labelled table to a tested model, each printed as it is taken."""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlc.checkpoint import timm_models
from vlc.common.errors import MissingFile, UserError
from vlc.common.files import check_room, to_json
from vlc.common.terminal import cell, printable
from vlc.configuration.command_settings import FitSettings
from vlc.configuration.config import resolve
from vlc.configuration.settings import Settings
from vlc.configuration.use_settings import USE_KEYS, UseSettings
from vlc.evaluation.predictions import write_text
from vlc.tokenizer.training import train as train_tokenizer
from vlc.use.report import report
from vlc.use.results import REJECTED
from vlc.workflows.commands import Stage, announce, console, run_command, typed
from vlc.workflows.fit import columns, kinds, outcome, training
from vlc.workflows.fit.items import Item, items_of, refuse_many_problems, with_boxes
from vlc.workflows.fit.kinds import KINDS
from vlc.workflows.fit.pictures import Picture, pictures_of, state_of
from vlc.workflows.fit.rows import Problem, Table, read_table
from vlc.workflows.fit.splits import with_splits
from write_arrow.__main__ import main as write_arrow

_MADE_HERE = ("tasks", "datasets", "loss_names", "data_root", "log_dir", "exp_name", "test_only")
_PIECES = 8000  # of a tokenizer that is trained on the texts, at most


@dataclass(frozen=True)
class Folder:
    """Where the files of a call lie."""

    out: Path
    task: str

    @property
    def task_file(self) -> Path:
        return self.out / f"{self.task}.py"

    @property
    def table(self) -> Path:
        return self.out / "table.jsonl"

    @property
    def arrows(self) -> Path:
        return self.out / "arrows"

    @property
    def settings(self) -> Path:
        return self.out / "settings.json"


@dataclass(frozen=True)
class Examples:
    """The examples of a table, divided.

    name: the kind of the task.
    names: of the answers or classes.
    pictures: by the paths of the images.
    """

    name: str
    items: list[Item]
    names: list[str]
    pictures: Mapping[str, Picture]


@dataclass(frozen=True)
class Passed:
    """What the command line states for training.

    values: by key; a dictionary's as key.option.
    named: the named configurations.
    minutes: that training may take; None: the command line states max_steps or max_epoch.
    """

    values: Mapping[str, Any]
    named: Sequence[str]
    minutes: float | None


def fit(
    config: Mapping[str, Any], given: Collection[str], values: Mapping[str, Any], named: Sequence[str] = ()
) -> dict[str, float]:
    """Learn what a labelled table shows, test it, write a report, and return the metrics of the test.

    config: the configuration of the command.
    given: the keys that the command line states, directly or in named configurations.
    values: the values that it states directly, nested; keys of training are passed on.
    named: the named configurations, likewise.
    Raises UserError for a table that cannot be learnt from.
    """
    use = UseSettings.from_config(config)
    if not use.table:
        raise UserError("table=FILE is missing: name the table to learn from (docs/own_tables.md)")
    if made := [key for key in _MADE_HERE if key in given]:
        raise UserError(f"{made[0]} is given, but fit makes it of the table: leave it out")
    for key in ("load_path", "pretrain_path"):
        path = str(values.get(key) or "")
        if path and not path.startswith(timm_models.PREFIX) and not Path(path).exists():
            raise MissingFile(f"{key}={path} does not exist")
    minutes = None if {"max_steps", "max_epoch"} & {*given} else use.fit.minutes
    passed = Passed(_flat({key: value for key, value in values.items() if key not in USE_KEYS}), named, minutes)
    stem = re.sub(r"\W+", "_", Path(use.table).stem).strip("_")
    folder = Folder(Path(use.out or f"result/fit_{stem}"), f"fit_{stem}")
    check_room("out=", folder.out)
    examples = _examples(Path(use.table), use.fit, folder, int(config["seed"]))
    start = _start(passed.values, examples, folder)
    texts = [item.text for item in examples.items]
    count = sum(item.split == "train" for item in examples.items)
    model, said = training.model_of(KINDS[examples.name], start, texts, count)
    _say(said)
    write_text(folder.task_file, kinds.task_file(examples.name, folder.task, examples.names, model))
    write_text(folder.settings, to_json(training.settings_of(start, KINDS[examples.name], model)))
    _convert(examples, folder)
    trained, tested = _train_and_test(passed, folder)
    page = folder.out / "report.html"
    announce(f"python run.py report with {typed({'run': tested.log_dir, 'out': page})}")
    report({**config, "run": str(tested.log_dir), "out": str(page)}, ())
    _say_result(examples, trained, tested, page)
    return tested.metrics


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        console.print(cell(line), soft_wrap=True)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of dictionaries as key.option."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _examples(path: Path, settings: FitSettings, folder: Folder, seed: int) -> Examples:
    """Read the table, find out what it describes, and divide its examples."""
    table = read_table(path, settings, folder.out / "images")
    root = Path(settings.root or (path if path.is_dir() else path.parent))
    roles = columns.understood(table, settings.columns, root)
    name = kinds.kind_of(table, roles, settings.task)
    console.print(cell(f"{path}: {len(table.rows):,} rows"), columns.as_grid(table, roles), sep="\n")
    why = "fit.task" if settings.task else "as the columns say; fit.task=KIND chooses another"
    console.print(cell(f"Task: {name}, {KINDS[name].about} ({why})"), soft_wrap=True)
    several = {{"text": roles.text, "answer": roles.answer}[role] for role in KINDS[name].several}
    items = items_of(table, roles, kinds.wanted_roles(KINDS[name], roles), root, several)
    pictures, damaged = pictures_of((image for item in items for image in item.images), folder.out / "pictures.json")
    table.problems += [
        Problem(item.where, damaged[image]) for item in items for image in item.images if image in damaged
    ]
    items = [item for item in items if all(image in pictures for image in item.images)]
    if "box" in KINDS[name].roles:
        items = with_boxes(items, pictures, settings.boxes or roles.boxes, table.problems)
    refuse_many_problems(table, len(items))
    _say(_left_out(table, folder.out / REJECTED))
    items, divided = with_splits(kinds.normalised(name, items), pictures, settings.split, seed)
    names, said = kinds.names_of(name, items, table)
    _say([*divided, *said])
    return Examples(name, items, names, pictures)


def _left_out(table: Table, path: Path) -> list[str]:
    """List the rows that are left out in a file, and return a line about them."""
    if not table.problems:
        path.unlink(missing_ok=True)
        return []
    lines = (json.dumps({"path": where, "reason": reason}, ensure_ascii=False) for where, reason in table.problems)
    write_text(path, "".join(f"{line}\n" for line in lines))
    shown = [f"  {': '.join(problem)}" for problem in table.problems[:3]]
    return [f"{len(table.problems):,} rows are left out, and listed in {path}:", *shown]


def _start(given: Mapping[str, Any], examples: Examples, folder: Folder) -> training.Start:
    """What training starts from; without a checkpoint, a tokenizer is trained on the texts of training."""
    start = training.start_of(given, examples.pictures.values(), folder.out)
    _say(start.notes)
    if start.tokenizer or not KINDS[examples.name].reads_text:
        return start
    texts = [item.text for item in examples.items if item.split == "train"]
    tokenizer = train_tokenizer("wordpiece", lambda: iter(texts), _PIECES, lowercase=True)
    tokenizer.save_pretrained(folder.out / "tokenizer")
    _say([f"A tokenizer of {len(tokenizer):,} pieces was made of the training texts: {folder.out / 'tokenizer'}"])
    return training.Start(start.load_path, start.vit, start.image_size, str(folder.out / "tokenizer"))


def _convert(examples: Examples, folder: Folder) -> None:
    """Write the Arrow files, except where they are there already, made of the same rows and images."""
    root = os.path.commonpath([os.path.dirname(path) for path in examples.pictures])
    shown = kinds.images_of(KINDS[examples.name])
    lines = []
    for item in examples.items:
        paths = {name: os.path.relpath(path, root) for name, path in zip(shown, item.images, strict=True)}
        pictures = [examples.pictures[image] for image in item.images]
        lines.append(
            json.dumps(paths | kinds.record(examples.name, item, examples.names, pictures), ensure_ascii=False)
        )
    write_text(folder.table, "".join(f"{line}\n" for line in lines))
    words = ["table", "--dataset", str(folder.task_file), "--table", str(folder.table), "--root", root]
    words += ["--out", str(folder.arrows), "--follow-links"]
    task_rows = folder.task_file.read_text(encoding="utf-8").partition("TASKS = ")[0]
    states = [[path, state_of(path)] for path in sorted(examples.pictures)]
    digest = hashlib.sha256(json.dumps([words, task_rows, lines, states]).encode()).hexdigest()
    mark = folder.out / "arrows.json"
    files = [folder.arrows / f"{folder.task}_{split}.arrow" for split in ("train", "val", "test")]
    announce(f"python -m write_arrow {shlex.join(words)}")
    if all(file.is_file() for file in files) and mark.is_file() and json.loads(mark.read_text()) == digest:
        _say([f"{folder.arrows} has been written from the same rows and images already"])
        return
    write_arrow(words)
    write_text(mark, json.dumps(digest))


def _train_and_test(passed: Passed, folder: Folder) -> tuple[Stage, Stage]:
    """Train, and test the checkpoint that was best in validation."""
    places = {"tasks": [str(folder.task_file)], "data_root": str(folder.arrows), "log_dir": str(folder.out / "log")}
    common, names = {**passed.values, **places}, (str(folder.settings), *passed.named)
    how_long: dict[str, Any] = {}
    if passed.minutes is not None:
        settings = Settings.from_config(resolve(*names, **common))
        steps, said = training.num_steps(settings, passed.minutes)
        _say([f"Training takes {said}"])
        how_long = {"max_steps": steps, "val_check_interval": max(1, steps // 10)}
    trained = run_command(*names, **common, **how_long, exp_name=folder.task)
    best = sorted((trained.log_dir / "checkpoints").glob("epoch=*.ckpt"))
    checkpoint = str(best[0]) if best else trained.checkpoint
    updates = {key: value for key, value in common.items() if key not in ("load_path", "pretrain_path", "resume_from")}
    tested = run_command(*names, **updates, load_path=checkpoint, test_only=True, exp_name=f"{folder.task}_test")
    return trained, tested


def _say_result(examples: Examples, trained: Stage, tested: Stage, page: Path) -> None:
    known = outcome.baselines(examples.name, examples.items, examples.names, examples.pictures)
    grid, judged = outcome.as_grid(examples.name, tested, known)
    console.rule(style="dim")
    console.print(grid)
    _say(judged)
    checkpoint, item = tested.settings.run.load_path, next(one for one in examples.items if one.split == "test")
    asked = {"load_path": checkpoint, "image": item.images[0]}
    asked |= {"image2": item.images[1]} if len(item.images) > 1 else {}
    asked |= {"text": item.text} if item.text else {}
    _say([f"Checkpoint: {checkpoint}", f"Report: {page}", "Go on with:"])
    for command in (f"predict with {typed(asked)}", f"serve with {typed({'load_path': checkpoint})}"):
        console.print(
            f"  python run.py {printable(command)}", style="bold", highlight=False, markup=False, soft_wrap=True
        )
