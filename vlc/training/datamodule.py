"""The data of a run: splits opened and checked at start-up, one loader for training and one for each evaluation split."""

from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from vlc.common.errors import UserError
from vlc.configuration.groups import DataSettings
from vlc.configuration.task_settings import TaskSettings
from vlc.data.arrow import ArrowSplit, find_tables, has_tables
from vlc.data.catalog import CATALOG
from vlc.data.checks import check_annotations, check_ids
from vlc.data.clean import CleanList, Removal, removal
from vlc.data.composers import COMPOSERS
from vlc.data.kinds import IDENTIFIERS, LABELS
from vlc.data.labelled.source import LabelledImages
from vlc.data.labelled.splits import check_classes, open_split
from vlc.data.mixing import MixedSampler, Mixing, Stretch
from vlc.data.parts import Part, columns_of
from vlc.data.sample import Preparation
from vlc.data.sampler import EvalSampler, EvalSamplers, Position, TrainSampler
from vlc.data.samples import NamedSamples, Samples
from vlc.data.selection import Selection, by_language, select
from vlc.data.spec import DatasetSpec
from vlc.data.tokens import TextEncoder, load_tokenizer
from vlc.data.transforms import EXCHANGING, transform
from vlc.data.workers import loader_options
from vlc.training import loading


@dataclass(frozen=True)
class TaskNeeds:
    """The requirements of a task's objectives for its batches.

    parts: what batches hold beside texts and images.
    num_images: the number of images of an example; 0: images are not read, although the data may have some.
    images_required: whether data sets without any are refused.
    num_classes: the number of classes of labelled images; None: no objective reads such images.
    """

    parts: frozenset[Part]
    num_images: int = 1
    images_required: bool = True
    num_classes: int | None = None


class TaskData:
    """The data of one task.

    evaluation: data sets by the names of their splits in metrics, each evaluated apart: the split's name, and with the data
        set's (val_coco) where several have that split.
    evaluated_splits: the names of the splits alone.
    selecting: the splits that select the checkpoint, by their names in metrics.
    removals: what `clean` has removed from each split that it cleans.
    text_only: whether no example has an image.
    """

    def __init__(
        self,
        task: TaskSettings,
        settings: DataSettings,
        tokenizer: PreTrainedTokenizerFast | None,
        needs: TaskNeeds,
        *,
        num_patches: int,
        seed: int,
        test_only: bool,
        clean: CleanList | None = None,
    ):
        self.task, self.settings, self.needs, self.seed = task, settings, needs, seed
        self.clean, self.removals = clean, list[Removal]()
        self.num_patches, self.test_only, self.tokenizer = num_patches, test_only, tokenizer
        self.composer = COMPOSERS[task.composer]
        specs = {name: CATALOG[name] for name in task.datasets}
        _check_images(specs, needs)
        _check_fields(specs, columns_of(needs.parts, "labelled", "always") | self.composer.columns)
        _check_pairs(task, specs, columns_of(needs.parts) | self.composer.columns)
        _check_pipelines(task, settings, specs, needs.parts)
        self.text_only = needs.num_images == 0 or not any(spec.images for spec in specs.values())
        if self.composer.packs and not self.text_only:
            raise UserError(
                f"{task.prefix}composer={task.composer} appends the texts of other rows, which are not about the image of "
                f"datasets={list(specs)}: pass {task.prefix}composer=plain, or data sets of texts alone"
            )
        self._description = f"datasets={list(specs)}" + (f" of task {task.name}" if task.name else "")
        if not test_only and not any("train" in spec.tables for spec in specs.values()):
            raise UserError(f"{self._description} have no training split: pass test_only=True")
        self.train = None if test_only else self._dataset("train", task.datasets, training=True)
        evaluated = {name: _evaluated(spec, settings, test_only) for name, spec in specs.items()}
        self.evaluated_splits = list(dict.fromkeys(split for splits in evaluated.values() for split in splits))

        def called(split: str, dataset: str) -> str:
            return f"{split}_{dataset}" if sum(split in splits for splits in evaluated.values()) > 1 else split

        self.evaluation = {
            called(split, name): self._dataset(split, (name,), called=called(split, name))
            for split in self.evaluated_splits
            for name in evaluated
            if split in evaluated[name]
        }
        published = settings.published_splits
        selecting = {
            name: evaluated[name] if spec.labelled else spec.selecting(published) for name, spec in specs.items()
        }
        self.selecting = {called(split, name) for name, splits in selecting.items() for split in splits}
        self.class_names = () if needs.num_classes is None else self._checked_classes(needs.num_classes)
        if test_only and not self.evaluated_splits:
            cure = f": leave {task.name} out of tasks" if task.name else ""
            raise UserError(f"test_only=True, but {self._description} have no test split{cure}")

    def _dataset(
        self, split: str, datasets: Sequence[str], *, training: bool = False, called: str | None = None
    ) -> Samples:
        """A split of data sets, joined."""
        sources: list[Any] = [
            self._open(name, split, training)
            for name in datasets
            if CATALOG[name].labelled or split in CATALOG[name].splits(self.settings.published_splits)
        ]
        selection = self._selection(training)
        if selection:
            for source in sources:
                select(source, selection, split, self.task.prefix, training=training)
        if training and self.task.language_weights:
            sources = _by_weighted_language(sources, self.task)
        dataset = Samples(
            split,
            sources,
            self.needs.parts,
            self._preparation(training),
            training=training,
            seed=self.seed,
            called=called,
            task=self.task.name,
            reads_images=self.needs.num_images > 0,
        )
        if self.needs.num_classes is not None:
            return dataset  # its labels were checked when it was opened
        if not len(dataset):
            left = f", or none that clean.exclude={self.clean.exclude} leaves" if self.clean else ""
            raise UserError(f"split {split!r} of datasets={list(datasets)} has no samples{left}")
        if not self.test_only and (lacking := columns_of(self.needs.parts, "labelled") - dataset.fields):
            missing = ", ".join(sorted(lacking))
            raise UserError(
                f"split {split!r} of datasets={list(datasets)} has no {missing}: without labels a split can "
                "only be tested (test_only=True)"
            )
        for source in sources:
            check_annotations(source, dataset.fields | self.composer.columns, training=training)
            if self.test_only:
                always = columns_of(self.needs.parts, "always")
                check_ids(source, [name for name in always if source.spec.fields[name].kind is IDENTIFIERS])
        return dataset

    def _selection(self, training: bool) -> Selection:
        """Which texts are samples."""
        task = self.task
        if training:
            return Selection(task.where, task.pairs)
        return Selection({**task.where, **task.tested_where}, task.tested_pairs or task.pairs)

    def _open(self, name: str, split: str, training: bool) -> ArrowSplit | LabelledImages:
        spec, settings = CATALOG[name], self.settings
        verify = not training if settings.verify is None else settings.verify
        if spec.labelled:
            return open_split(settings.data_root, split, verify=verify)
        columns = spec.columns(columns_of(self.needs.parts, "labelled", "always") | self.composer.columns)
        # Files may lack the boxes of a detector, for example, but not where every batch has them.
        always = (spec.fields[name] for name in columns_of(self.needs.parts, "always"))
        columns |= {column.name for column in always if column.optional}
        if settings.image_only:
            columns = columns - {spec.text}
        stems = spec.splits(settings.published_splits)[split]
        paths = find_tables(settings.data_root, stems, name, spec.writer, settings.data_cache)
        leaves_out = None
        if self.clean and split in spec.cleaned and spec.images and not spec.own_images:
            self.clean.check(name, spec, lambda stems: has_tables(settings.data_root, stems, settings.data_cache))
            leaves_out = partial(self.clean.rows, dataset=name, spec=spec, split=split)
        source = ArrowSplit(
            paths, spec, name, columns, read_texts=not settings.image_only, verify=verify, leaves_out=leaves_out
        )
        if self.clean and split in spec.cleaned and spec.images:
            self.removals.append(removal(self.task.name, source, split, self.clean))
        return source

    def _checked_classes(self, num_classes: int) -> tuple[str, ...]:
        """The names of the classes by label, where the data have names. Raises UserError where splits do not agree."""
        opened = {"train": self.train, **self.evaluation}
        sources: dict[str, Any] = {
            split: samples.sources[0] for split, samples in opened.items() if samples is not None
        }
        check_classes(sources, num_classes)
        return next((source.class_names for source in sources.values() if source.class_names), ())

    def _preparation(self, training: bool) -> Preparation:
        task, settings = self.task, self.settings
        (pipeline,) = task.train_transform_keys if training else task.val_transform_keys
        prepared = (training and settings.train_transform) or transform(pipeline, settings.image_size)
        encoder = None
        if self.tokenizer is not None and self.needs.num_classes is None:
            encoder = TextEncoder(self.tokenizer, task.max_text_len)
        follows_mirror = pipeline in EXCHANGING or any(part.needs_placements for part in self.needs.parts)
        return Preparation(prepared, self.num_patches, encoder, self.composer, follows_mirror=follows_mirror)


class DataModule(LightningDataModule):
    """Opens the data of a run's tasks. `start` is the position where training begins.

    `vlc.training.multitask.Multitask` sets the attributes that belong to runs of several tasks:
    mixing: how their batches are mixed.
    stretch: returns the stretch of rounds of a number.
    num_rounds: the number of rounds of the run; None: it has one task.
    due: the names of the tasks that are validated next; None: all.

    needs: the needs of each task, in the order of the tasks.
    test_only: open the test splits instead of training and validation.
    clean: the images that training leaves out.

    Raises UserError or MissingFile, before any training, where files, columns or fields are missing.
    """

    trainer: Trainer  # Lightning sets it before it asks for loaders

    def __init__(
        self,
        settings: DataSettings,
        tasks: Sequence[TaskSettings],
        needs: Sequence[TaskNeeds],
        *,
        num_patches: int,
        seed: int,
        test_only: bool,
        clean: CleanList | None = None,
    ):
        super().__init__()
        self.clean = clean
        self.settings, self.seed, self.start = settings, seed, Position(0, 0)
        self.mixing: Mixing | None = None
        self.stretch: Callable[[int], Stretch] | None = None
        self.num_rounds: int | None = None
        self.due: Collection[str] | None = None
        self.tokenizer = None if settings.image_only else load_tokenizer(settings.tokenizer)
        self.tasks = {
            task.name: TaskData(
                task,
                settings,
                self.tokenizer,
                own,
                num_patches=num_patches,
                seed=seed,
                test_only=test_only,
                clean=clean,
            )
            for task, own in zip(tasks, needs, strict=True)
        }
        self._training = {name: data.train for name, data in self.tasks.items() if data.train is not None}
        self._measured_workers: int | None = None

    @property
    def train(self) -> Samples | NamedSamples | None:
        """The training samples; of several tasks together, None where the run only tests."""
        return NamedSamples(self._training) if len(self._training) > 1 else next(iter(self._training.values()), None)

    @property
    def evaluation(self) -> dict[str, Samples]:
        """The evaluated data sets by split, or by task/split where the tasks have names."""
        return {
            f"{name}/{split}" if name else split: dataset
            for name, data in self.tasks.items()
            for split, dataset in data.evaluation.items()
        }

    @property
    def num_images(self) -> int:
        """The most images that an example of any task has, at least 1: models of texts have the type of an image too."""
        return max(1, *(data.needs.num_images for data in self.tasks.values()))

    @property
    def text_only(self) -> bool:
        """Whether no example of any task has an image."""
        return all(data.text_only for data in self.tasks.values())

    @property
    def removals(self) -> list[Removal]:
        """What `clean` has removed from the data of all tasks."""
        return [one for data in self.tasks.values() for one in data.removals]

    def facts(self, world_size: int) -> dict[str, Any]:
        """What a position depends on: samples of a step on all processes, samples of each data set, images left out.

        Of several tasks it has, by name, the samples of a batch and of a step, and the number of all samples.
        """
        lone = next(iter(self.tasks.values())).task
        known: dict[str, Any] = {
            "global_batch": lone.per_gpu_batchsize * world_size,
            "num_samples": [size for samples in self._training.values() for size in samples.sizes],
            "clean": self.clean and self.clean.digest,
        }
        if len(self._training) > 1:
            tasks = {name: self.tasks[name].task for name in self._training}
            known["tasks"] = {
                name: [task.per_gpu_batchsize * world_size, task.batch_size, len(self._training[name])]
                for name, task in tasks.items()
            }
        return known

    def train_dataloader(self) -> DataLoader:
        return self._train_loader(self._num_workers())

    def _train_loader(self, num_workers: int) -> DataLoader:
        assert self.train is not None
        samplers = self.train_samplers()
        if len(samplers) == 1:
            return DataLoader(self.train, sampler=next(iter(samplers.values())), **self._loader_options(num_workers))
        assert self.mixing is not None
        assert self.stretch is not None
        sampler = MixedSampler(samplers, self.mixing, self.stretch, start=self.start)
        return DataLoader(self.train, sampler=sampler, **self._loader_options(num_workers))

    def train_samplers(self) -> dict[str, TrainSampler]:
        """The samplers of the tasks that train. Of several tasks, epochs have whole optimiser steps alone."""
        return {name: self._train_sampler(name, samples) for name, samples in self._training.items()}

    def _train_sampler(self, name: str, samples: Samples) -> TrainSampler:
        task, processes, several = self.tasks[name].task, self.trainer.world_size, len(self._training) > 1
        batches = num_accumulated(task, processes) if several else 1
        if self.settings.whole_steps:
            batches = self.trainer.accumulate_grad_batches
        whole = self.settings.whole_steps or batches > 1
        sampler = TrainSampler(
            samples.sizes,
            task.per_gpu_batchsize,
            seed=self.seed,
            weights=source_weights(task, samples.sources),
            rank=self.trainer.global_rank,
            world_size=processes,
            start=Position(0, 0) if several else self.start,
            whole_steps=batches if whole else None,
        )
        if self.settings.whole_steps and not len(sampler):
            batch = self.settings.per_gpu_batchsize
            raise UserError(
                f"Split 'train' has {sampler.num_samples} images, fewer than one step takes: {batch * batches * processes} "
                f"(--batch_size {batch} x --accum_iter {batches} x {processes} processes)"
            )
        if several and not len(sampler):
            raise UserError(
                f"Task {name} has {sampler.num_samples} training samples, fewer than a step takes: leave it out of tasks, "
                f"or lower {name}.batch_size"
            )
        return sampler

    def val_dataloader(self) -> DataLoader:
        """One loader, and so one set of processes, for all evaluated data sets."""
        return self._evaluation_loader(self._num_workers())

    test_dataloader = val_dataloader

    def _evaluation_loader(self, num_workers: int) -> DataLoader:
        rank, processes = self.trainer.global_rank, self.trainer.world_size
        if not self.settings.shares_evaluation:
            rank, processes = 0, 1
        samplers = {
            name: EvalSampler(len(samples), size, rank=rank, world_size=processes)
            for (name, samples), size in zip(self.evaluation.items(), self._evaluation_sizes(), strict=True)
        }
        sampler = EvalSamplers(samplers, self._due)
        return DataLoader(NamedSamples(self.evaluation), sampler=sampler, **self._loader_options(num_workers))

    def _evaluation_sizes(self) -> list[int]:
        """The batch size of each evaluated data set, in the order of `evaluation`."""
        return [data.task.per_gpu_batchsize for data in self.tasks.values() for _ in data.evaluation]

    def _due(self) -> list[str] | None:
        """The names of the data sets whose tasks are validated next."""
        if self.due is None:
            return None
        return [name for name, samples in self.evaluation.items() if samples.task in self.due]

    def _num_workers(self) -> int:
        """The number of loader processes; with num_workers=auto, measured once a run."""
        if isinstance(self.settings.num_workers, int):
            return self.settings.num_workers
        if self._measured_workers is None:
            training = self.train is not None
            loader = self._train_loader if training else self._evaluation_loader
            self._measured_workers = loading.choose_for(self.trainer, loader, training=training)
        return self._measured_workers

    def _loader_options(self, num_workers: int) -> dict[str, Any]:
        pinned = self.settings.pin_memory and self.trainer.strategy.root_device.type == "cuda"
        return loader_options(num_workers, pinned=pinned)


def num_accumulated(task: TaskSettings, num_devices: int) -> int:
    """The batches that accumulate so that a task's batch_size is reached, at least approximately."""
    at_once = task.per_gpu_batchsize * num_devices
    batches, rest = divmod(task.batch_size, at_once)
    if batches == 0:
        raise UserError(
            f"{task.prefix}batch_size={task.batch_size} is less than one step's {at_once} samples "
            f"({task.prefix}per_gpu_batchsize={task.per_gpu_batchsize} on {num_devices} devices): raise "
            f"{task.prefix}batch_size or lower {task.prefix}per_gpu_batchsize"
        )
    if rest:
        rank_zero_warn(
            f"{task.prefix}batch_size={task.batch_size} is not a multiple of {at_once}: a step takes {batches * at_once}"
        )
    return batches


def _evaluated(spec: DatasetSpec, settings: DataSettings, test_only: bool) -> Collection[str]:
    """The splits of a data set that are evaluated."""
    if spec.labelled and settings.splits is not None:
        return settings.splits
    if not test_only:
        splits: Collection[str] = spec.validated(settings.published_splits)
    else:
        splits = spec.test if settings.splits is None else [split for split in settings.splits if split in spec.tables]
    places = settings.data_root, settings.data_cache
    return [
        split for split in splits if split not in spec.optional or has_tables(places[0], spec.tables[split], places[1])
    ]


def _check_images(specs: dict[str, DatasetSpec], needs: TaskNeeds) -> None:
    """Raise UserError where a data set lacks images that the objectives read."""
    num_images = needs.num_images
    if num_images == 0:
        return
    without = [name for name, spec in specs.items() if not spec.images]
    if without and len(without) < len(specs):
        raise UserError(
            f"datasets={list(specs)} cannot be joined: {', '.join(without)} has no images, the others have; use one kind "
            "at a time"
        )
    for name, spec in specs.items():
        if len(spec.images) != num_images and (spec.images or needs.images_required):
            raise UserError(
                f"The objectives need {num_images} image(s) for each text, data set {name!r} has {len(spec.images)}"
            )


def _check_fields(specs: dict[str, DatasetSpec], fields: Collection[str]) -> None:
    """Raise UserError where a data set lacks a field that batches are made from."""
    for field in sorted(fields):
        for name, spec in specs.items():
            if field not in spec.fields:
                providers = [other for other, spec in CATALOG.items() if field in spec.fields]
                raise UserError(
                    f"The objectives need batch field {field!r}, which data set {name!r} does not provide. "
                    f"Data sets that do: {', '.join(providers)}"
                )


def _check_pairs(task: TaskSettings, specs: dict[str, DatasetSpec], fields: Collection[str]) -> None:
    """Raise UserError where batches are made from the second text of a pair, and samples are no pairs."""
    for name, spec in specs.items():
        of_second = sorted(field for field in fields if field in spec.fields and spec.fields[field].of_second)
        if of_second and not task.pairs:
            raise UserError(
                f"The objectives need batch field {of_second[0]!r}, which in data set {name!r} is a translation, and "
                f"samples are no pairs: pass {task.prefix}pairs=[en-de], or other directions"
            )


def _by_weighted_language(sources: Sequence[ArrowSplit], task: TaskSettings) -> list[ArrowSplit]:
    """A source for each language, or direction, of each source. Raises UserError where weights and data differ."""
    parts: list[ArrowSplit] = []
    for source in sources:
        for language, chosen in by_language(source).items():
            if language not in task.language_weights:
                raise UserError(
                    f"{task.prefix}language_weights has no {language}, which data set {source.dataset!r} has: give it a "
                    f"weight, or leave it out by {task.prefix}where.lang or {task.prefix}pairs"
                )
            part = copy(source)
            part.chosen, part.language = chosen, language
            parts.append(part)
    if absent := task.language_weights.keys() - {part.language for part in parts}:
        raise UserError(f"{task.prefix}language_weights has {', '.join(sorted(absent))}, which no training text has")
    return parts


def source_weights(task: TaskSettings, sources: Sequence[Any]) -> tuple[float, ...] | None:
    """The shares of the sources of a task in training; None: all their samples are drawn."""
    if task.language_weights:
        return tuple(task.language_weights[source.language] for source in sources)
    return task.dataset_weights


def _check_pipelines(
    task: TaskSettings, settings: DataSettings, specs: dict[str, DatasetSpec], parts: Collection[Part]
) -> None:
    """Raise UserError where an image pipeline does not say where boxes lie, or mirrors what cannot be exchanged."""
    placed = sorted(part.name for part in parts if part.needs_placements)
    if settings.train_transform is not None and placed:
        raise UserError(
            f"The objectives need batch field {placed[0]!r}, but timm's augmentation (main_finetune.py) does not say where "
            "boxes lie in its images: train with run.py and one of its image pipelines, such as "
            f"{task.prefix}train_transform_keys=['keep_shape_flip']"
        )
    for key in ("train_transform_keys", "val_transform_keys"):
        names = getattr(task, key)
        for dataset, spec in specs.items() if names[0] in EXCHANGING else ():
            labels = [name for name in columns_of(parts) & set(spec.fields) if spec.fields[name].kind is LABELS]
            if labels or len(spec.images) > 1:
                stays = min(labels) if labels else "texts about two images"
                raise UserError(
                    f"{task.prefix}{key}={list(names)} mirrors images, and left and right change places in their texts, "
                    f"but cannot in {stays} of data set {dataset!r}: pass {task.prefix}{key}=['keep_shape']"
                )
