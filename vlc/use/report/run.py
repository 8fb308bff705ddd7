"""A finished run, read from its log folder: what it was, what it logged, and what its model answers."""

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vlc.checkpoint import weights
from vlc.common.errors import UserError
from vlc.configuration import own_tasks
from vlc.configuration.config import resolve
from vlc.configuration.settings import Settings
from vlc.configuration.task_settings import OF_THE_RUN
from vlc.configuration.use_settings import without_use_keys
from vlc.data.catalog import CATALOG
from vlc.data.images import UndecodableImage
from vlc.data.samples import Samples
from vlc.data.spec import DatasetSpec
from vlc.evaluation import examples
from vlc.evaluation.examples import Example, pictures_of, read_examples, text_of
from vlc.evaluation.results import FILE as METRICS
from vlc.evaluation.results import Results
from vlc.training import facts
from vlc.training.datamodule import DataModule
from vlc.training.facts import Facts
from vlc.training.module import VLCModule
from vlc.training.run import build_data, build_module
from vlc.training.validations import read_validations
from vlc.use.explain import DEFAULT
from vlc.use.model import Model
from vlc.use.report.evaluation import Evaluated, evaluate

logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it reports every file that it has read to its end

_EVENTS = "events.out.tfevents.*"
MOST_VALUES = 24  # of a field that describes examples
Curve = list[tuple[int, float]]  # (step, value)


def is_run(folder: Path) -> bool:
    """Whether a folder is the log folder of a run."""
    return any((folder / name).is_file() for name in (facts.FILE, METRICS)) or any(
        True for pattern in (_EVENTS, "checkpoints/*.ckpt") for _ in folder.glob(pattern)
    )


def runs_in(folder: Path) -> list[Path]:
    """The log folders of runs below a folder, the oldest first."""
    found = {path.parent for pattern in (_EVENTS, facts.FILE, METRICS) for path in folder.rglob(pattern)}
    return sorted(
        (path for path in found if is_run(path)), key=lambda path: min(p.stat().st_mtime for p in path.iterdir())
    )


class Run:
    """A run of run.py, training or test. What needs its checkpoint or its data is read when it is first asked for.

    What cannot be read raises UserError, and the sections that need it are left out of the page.

    folder: its log folder.
    config: a configuration with all keys, for those that a run of an older version lacks.
    overrides: values in place of the run's own, such as data_root, or load_path, which names its checkpoint.
    num_examples: how many samples of each split are evaluated here.
    method: that explains answers, by its name.
    beside: another run that this one is compared with.
    label: what the page calls it.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        overrides: dict[str, Any],
        num_examples: int,
        method: str = DEFAULT,
    ):
        self.folder, self.defaults, self.overrides = folder, without_use_keys(config), overrides
        self.num_examples, self.method = num_examples, method
        self.beside: Run | None = None
        self.label = self.name
        self.facts = Facts.read(folder / facts.FILE) if (folder / facts.FILE).is_file() else None
        self.results = Results.read(folder / METRICS) if (folder / METRICS).is_file() else None

    @property
    def name(self) -> str:
        """The name of the run and its version, for a reader."""
        whole = self.folder.absolute()
        return f"{whole.parent.name}/{whole.name}" if whole.name.startswith("version_") else whole.name

    @property
    def is_test(self) -> bool:
        return self.results is not None or bool(self.facts and self.facts.config.get("test_only"))

    @property
    def both(self) -> list["Run"]:
        """This run, and the one beside it."""
        return [self] if self.beside is None else [self, self.beside]

    @cached_property
    def checkpoint(self) -> Path:
        """Its last checkpoint, or the one that it tested. Raises UserError where there is none."""
        if path := self.overrides.get("load_path"):
            return Path(path)
        if self.is_test:
            tested = self.results.checkpoint if self.results else self.facts.config["load_path"] if self.facts else ""
            if not Path(tested).exists():
                raise UserError(f"{self.folder} tested {tested}, which does not exist: pass load_path=CHECKPOINT")
            return Path(tested)
        found = sorted((self.folder / "checkpoints").glob("*.ckpt"), key=lambda path: (path.stem != "last", path.name))
        if not found:
            raise UserError(f"{self.folder} has no checkpoint in its folder checkpoints: pass load_path=CHECKPOINT")
        return found[0]

    @cached_property
    def _stored(self) -> weights.Checkpoint:
        found = weights.read(str(self.checkpoint))
        own_tasks.enter_stored(found.path, found.extras.get("rows", {}))
        return found

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Its configuration, as it says itself, or else its checkpoint. Raises UserError where neither does."""
        if self.facts is not None:
            return self.facts.config
        if not (config := self._stored.extras.get("config")):
            raise UserError(f"{self.checkpoint} holds no configuration, so that it cannot be evaluated here")
        return config

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """What it logged, by tag; of a test, that of its checkpoint's run. Without TensorBoard, its validations."""
        folder = self.folder
        if self.is_test and Path(self.checkpoint).parent.name == "checkpoints":
            folder = Path(self.checkpoint).parents[1]
        if not any(folder.glob(_EVENTS)):
            validations = read_validations(folder)
            names = dict.fromkeys(name for one in validations for name in one.metrics)
            return {
                name: [(one.step, one.metrics[name]) for one in validations if name in one.metrics] for name in names
            }
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    @cached_property
    def settings(self) -> Settings:
        """The settings of a test of its checkpoint. Raises UserError where another version wrote the run."""
        _ = self._stored  # its own tasks are known from here on
        here: dict[str, Any] = {
            "load_path": str(self.checkpoint),
            "pretrain_path": "",
            "resume_from": None,
            "test_only": True,
        }
        here |= {"num_workers": 0, "fsdp": False, "compile": False, "fast_dev_run": False}
        try:
            return Settings.from_config({**self._completed(), **here, **self.overrides})
        except UserError as error:
            raise UserError(
                f"{self.folder} has settings that are not valid now, as another version wrote it: {error}"
            ) from error

    def _completed(self) -> dict[str, Any]:
        """Its configuration, with the keys that a run of an older version lacks.

        Where the labels of tests are withheld, a training is evaluated on validation splits.
        """
        names = list(self.config.get("tasks", ()))
        base = resolve(tasks=names) if names else self.defaults
        of_the_run = {key: self.config[key] for key in OF_THE_RUN if self.config.get(key) is not None}
        config = dict(base)
        for key, value in self.config.items():
            whole = not isinstance(value, Mapping) or key not in base or key == "loss_names"
            config[key] = value if whole else {**base[key], **(of_the_run if key in names else {}), **value}
        specs = [CATALOG[name] for name in config["datasets"] if name in CATALOG]
        if not self.is_test and config["splits"] is None and any(_withheld(spec) for spec in specs):
            chosen = (spec.validation if _withheld(spec) else spec.test for spec in specs)
            config["splits"] = list(dict.fromkeys(split for splits in chosen for split in splits))
        return config

    @cached_property
    def data(self) -> DataModule:
        """Its test splits, or validation splits."""
        return build_data(self.settings)

    @cached_property
    def module(self) -> VLCModule:
        """Its trained module, in evaluation mode."""
        module = build_module(self.settings, self.data).eval()
        gpu = self.settings.run.num_gpus and torch.cuda.is_available()
        return module.to("cuda" if gpu else "cpu")

    @cached_property
    def model(self) -> Model:
        """Its model for use, which explains answers."""
        return Model.from_checkpoint(self.checkpoint, num_gpus=self.settings.run.num_gpus, precision=32)

    @cached_property
    def evaluated(self) -> Evaluated:
        """What its model makes of samples of its test splits."""
        return evaluate(self.module, self.data, self.num_examples)

    @cached_property
    def stores_examples(self) -> bool:
        """Whether the run itself, a test, has left its answered examples."""
        return (self.folder / examples.FILE).is_file()

    @cached_property
    def examples(self) -> list[Example]:
        """The answered examples: all of a test that has left them, otherwise those that are evaluated here."""
        return read_examples(self.folder / examples.FILE) if self.stores_examples else self.evaluated.examples

    def by_head(self) -> dict[tuple[str, str, str], list[Example]]:
        """The examples that have a score, by task, head and split."""
        found: dict[tuple[str, str, str], list[Example]] = {}
        for one in self.examples:
            if one.score is not None:
                found.setdefault((one.task, one.place.head, one.split), []).append(one)
        return found

    @cached_property
    def _describing(self) -> dict[tuple[str, str, str], list[str]]:
        """The fields that describe the examples, by task, head and split; one with many values names them."""
        found = {}
        for place, own in self.by_head().items():
            values: dict[str, set[str]] = {}
            for one in own:
                for name, value in one.about.items():
                    values.setdefault(name, set()).add(value)
            found[place] = [name for name, different in values.items() if len(different) <= MOST_VALUES]
        return found

    def fields(self, task: str, head: str, split: str) -> list[str]:
        """The fields by which the examples of a head are told apart, such as a type of question."""
        return self._describing.get((task, head, split), [])

    def kind(self, example: Example) -> str:
        """The first thing that describes an example; empty where nothing does."""
        names = self.fields(example.task, example.place.head, example.split)
        return next((example.about[name] for name in names if name in example.about), "")

    def samples(self, example: Example) -> Samples:
        """The split of an example. Raises UserError where the data are no longer those of the test."""
        split = self.data.tasks[example.task].evaluation.get(example.split)
        if split is not None and example.number < len(split):
            source, where = split.locate(example.number)
            table, row = source.table_and_row(where)
            if (Path(table).name, row) == (example.place.table, example.place.row):
                return split
        raise UserError(
            f"The data are no longer those that {self.folder} has tested: pass data_root=FOLDER with them, or test again"
        )

    def pictures(self, example: Example) -> list[Image.Image]:
        """The pictures of an example, as they are stored. Raises UserError where one cannot be decoded."""
        try:
            return pictures_of(self.samples(example), example.number)
        except UndecodableImage as error:
            raise UserError(
                f"An image in row {example.place.row} of {example.place.table} is damaged ({error})"
            ) from error

    def text(self, example: Example) -> str:
        """The text of an example, with what stands beside it."""
        return text_of(self.samples(example), example.number)


def _withheld(spec: DatasetSpec) -> bool:
    """Whether no test split of a data set has labels: its validation split is evaluated in its place."""
    return all(split in spec.unlabelled for split in spec.test)


def head_name(task: str, head: str) -> str:
    """The name of a head for a reader: that of its task, with its own where they differ."""
    return head if not task else task if head in task else f"{task} ({head})"
