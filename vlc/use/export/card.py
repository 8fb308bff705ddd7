"""The model card of a folder: what the model is, what it was trained on, what was measured, and what is not known.

Its front matter is what the model hub reads (Mitchell et al. 2019, "Model Cards for Model Reporting", for the content).
"""

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from vlc.checkpoint.weights import Checkpoint
from vlc.common.terminal import printable
from vlc.evaluation import examples
from vlc.evaluation.examples import read_examples
from vlc.evaluation.intervals import Interval, bootstrap
from vlc.evaluation.results import FILE as METRICS
from vlc.evaluation.results import Results
from vlc.tasks import HEADS, TASKS
from vlc.training import facts
from vlc.training.facts import Facts
from vlc.use.opened import OpenedModel

# What the model hub calls the use of a head, by the kind of its objective; the first head with a name decides.
_USES = {
    "answers": "visual-question-answering",
    "generation": "image-text-to-text",
    "image_classes": "image-classification",
    "itc": "zero-shot-image-classification",
    "itm": "feature-extraction",
    "mlm": "feature-extraction",
}
_HUB_NAME = re.compile(r"[\w.-]+/[\w-]+")
_MOST_FILES = 6  # of a split that the card lists


@dataclass(frozen=True)
class Measured:
    """A metric of a test, with its interval where the test has left its examples.

    headline: whether it judges the task.
    """

    name: str
    value: float
    interval: Interval | None
    headline: bool


def card(model: OpenedModel, found: Checkpoint) -> str:
    """Return README.md. What the log folder of the run says stands in it where it lies beside the checkpoint."""
    training, tests = _training(found.path), list(_tests(model.path))
    measured = [one for results, folder in tests for one in _measured(model, results, folder)]
    config = found.extras.get("config") or {}
    tasks = list(config.get("tasks") or ())
    datasets = [name for task in tasks for name in config.get(task, {}).get("datasets", ())] or config.get("datasets")
    environment = Environment(
        loader=PackageLoader("vlc.use.export"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = lambda value: printable(value).replace("|", "\\|")
    shown = {
        "front_matter": _front_matter(model, config, list(dict.fromkeys(datasets or ())), measured),
        "name": _name(model.path.absolute()),
        "model": model,
        "describes": any(
            head.kind == "generation" and not getattr(head.options, "target", "")
            for head in model.settings.tasks[0].heads
        ),
        "heads": [(head.name, head.kind) for head in model.settings.tasks[0].heads],
        "parameters": sum(one.numel() for one in model.module.parameters()),
        "tasks": tasks,
        "start": [_name(PurePath(config[key])) for key in ("pretrain_path", "load_path") if config.get(key)],
        "config": config,
        "facts": training,
        "command": None if training is None else _without_folders(training.command),
        "data": [] if training is None else _data(training),
        "measured": measured,
        "answers": {name: len(answers) for name, answers in model.module.extras["answers"].items() if answers},
    }
    return environment.get_template("card.md.jinja").render(shown)


def _name(path: PurePath) -> str:
    """The name of the file or folder; of a run's checkpoint, whose name says nothing, the one of its log folder."""
    return path.parents[2].name if path.parent.name == "checkpoints" and len(path.parents) > 3 else path.stem


def _training(path: Path) -> Facts | None:
    """The facts of the run that wrote a checkpoint, where they lie beside it."""
    beside = [folder / facts.FILE for folder in path.absolute().parents[:2]]
    return next((Facts.read(file) for file in beside if file.is_file()), None)


def _tests(path: Path) -> Iterator[tuple[Results, Path]]:
    """The tests of a checkpoint in the log folders beside its own, the oldest first."""
    whole = path.absolute()
    if whole.parent.name != "checkpoints" or len(whole.parents) < 4:
        return
    files = whole.parents[3].glob(f"*/version_*/{METRICS}")
    for file in sorted(files, key=lambda file: file.stat().st_mtime):
        results = Results.read(file)
        if Path(results.checkpoint).resolve() == path.resolve():
            yield results, file.parent


def _measured(model: OpenedModel, results: Results, folder: Path) -> Iterator[Measured]:
    """The metrics of a test, the headlines first."""
    intervals = _intervals(model, folder)
    for name in sorted(results.metrics, key=lambda name: (name not in results.headlines, name)):
        if not name.startswith("val/"):
            yield Measured(name, results.metrics[name], intervals.get(name), name in results.headlines)


def _intervals(model: OpenedModel, folder: Path) -> dict[str, Interval]:
    """The interval of each headline that is a mean over the examples which a test has left, by the metric's name."""
    scores: dict[tuple[str, str, str], list[float]] = {}
    for one in read_examples(folder / examples.FILE) if (folder / examples.FILE).is_file() else ():
        if one.score is not None:
            scores.setdefault((one.task, one.place.head, one.split), []).append(one.score)
    found = {}
    for (task, head, split), own in scores.items():
        if head in model.module.objectives:
            headline, interval = model.module.objectives[head].headline, bootstrap(own)
            found[f"{task or head}/{split}/{headline}"] = interval
            found[f"{task}/{split}/{head}_{headline}"] = interval  # of a task with several heads
    return found


def _front_matter(
    model: OpenedModel, config: Mapping[str, Any], datasets: Sequence[str], measured: Sequence[Measured]
) -> str:
    """The YAML that the model hub reads."""
    kinds = [head.kind for head in model.settings.tasks[0].heads]
    results = [
        EvalResult(
            task_type=_use(_kinds(one.name.partition("/")[0])) or "other",
            dataset_type=one.name.rpartition("/")[0],
            dataset_name=one.name.rpartition("/")[0],
            metric_type=one.name.rpartition("/")[2],
            metric_value=round(one.value, 4),
        )
        for one in measured
        if one.headline
    ]
    data = ModelCardData(
        library_name="vlc",
        pipeline_tag=_use(kinds),
        tags=["vlc", "vision-language", *kinds],
        datasets=list(datasets) or None,
        metrics=list(dict.fromkeys(one.metric_type for one in results)) or None,
        base_model=_base_model(config),
        model_name=_name(model.path.absolute()) if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


def _kinds(name: str) -> Collection[str]:
    """The kinds of objectives of a task, or of a head where the flat keys describe the task."""
    return TASKS[name].objectives if name in TASKS else (HEADS[name].kind,) if name in HEADS else ()


def _use(kinds: Collection[str]) -> str | None:
    """What the model hub calls the use of such heads; None where it has no name for it."""
    return next((use for kind, use in _USES.items() if kind in kinds), None)


def _base_model(config: Mapping[str, Any]) -> str | None:
    """The name on the model hub that the training started from; None where it was a file, a folder or nothing."""
    paths = [config[key] for key in ("load_path", "pretrain_path") if config.get(key)]
    return next((path for path in paths if _HUB_NAME.fullmatch(path) and not Path(path).exists()), None)


def _data(training: Facts) -> list[dict[str, Any]]:
    """The splits of the training's data, each with its files; of many files the number."""
    rows = []
    for entry in training.data:
        files = [
            f"{file['name']} ({file['bytes']:,} bytes, {file['checksum'] or 'no checksum'})" for file in entry["files"]
        ]
        more = len(files) - _MOST_FILES
        rows.append({**entry, "files": files[:_MOST_FILES] + ([f"and {more} more"] if more > 0 else [])})
    return rows


def _without_folders(command: str) -> str:
    """The command, in which absolute paths are replaced by their last component."""
    words = []
    for word in shlex.split(command):
        key, sign, value = word.rpartition("=")
        words.append(f"{key}{sign}{PurePath(value).name}" if value.startswith(("/", "~")) else word)
    return shlex.join(words)
