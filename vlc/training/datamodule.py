"""The data of a run: splits opened and checked at start-up, one loader for training and one for each evaluation split."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from vlc.common.errors import UserError
from vlc.configuration.settings import DataSettings
from vlc.data.arrow import ArrowSplit, find_tables
from vlc.data.catalog import CATALOG
from vlc.data.checks import check_annotations, check_ids, labelled_answers
from vlc.data.composers import COMPOSERS
from vlc.data.parts import Part, columns_of
from vlc.data.sampler import EvalSampler, Position, TrainSampler
from vlc.data.samples import Preparation, Samples
from vlc.data.spec import DatasetSpec
from vlc.data.tokens import TextEncoder, load_tokenizer
from vlc.data.transforms import transform
from vlc.data.workers import worker_options


class DataModule(LightningDataModule):
    """Opens the data sets of a run and serves what its objectives want. `start` is where training begins.

    parts: what batches hold beside texts and images.
    num_images: how many images an example has. need_images: whether data sets without any are refused.
    composer: the name in `COMPOSERS` by which texts are put together.
    evaluation: data sets by the names of their metrics, each evaluated apart: the split's name, and with the data set's
    (val_coco) where several have that split. evaluated_splits: the names of the splits alone.
    test_only opens the test splits instead of training and validation. Raises UserError or MissingFile, before any
    training, where files, columns or fields are missing.
    """

    def __init__(
        self,
        settings: DataSettings,
        parts: Collection[Part],
        *,
        num_images: int = 1,
        need_images: bool = True,
        num_patches: int,
        seed: int,
        test_only: bool,
        composer: str = "plain",
    ):
        super().__init__()
        self.settings, self.parts, self.seed = settings, frozenset(parts), seed
        self.num_images, self.num_patches, self.test_only = num_images, num_patches, test_only
        self.composer = COMPOSERS[composer]
        self.start = Position(0, 0)
        self.tokenizer = None if settings.image_only else load_tokenizer(settings.tokenizer)
        specs = {name: CATALOG[name] for name in settings.datasets}
        _check_images(specs, num_images, need_images)
        _check_fields(specs, columns_of(self.parts, "labelled", "always") | self.composer.columns)
        self.text_only = not any(spec.images for spec in specs.values())
        if not test_only and not any("train" in spec.tables for spec in specs.values()):
            raise UserError(f"datasets={list(specs)} have no training split: pass test_only=True")
        self.train = None if test_only else self._dataset("train", settings.datasets, training=True)
        wanted = {name: _evaluated(spec, settings, test_only) for name, spec in specs.items()}
        self.evaluated_splits = list(dict.fromkeys(split for splits in wanted.values() for split in splits))

        def called(split: str, dataset: str) -> str:
            return f"{split}_{dataset}" if sum(split in splits for splits in wanted.values()) > 1 else split

        self.evaluation = {
            called(split, name): self._dataset(split, (name,), called=called(split, name))
            for split in self.evaluated_splits
            for name in wanted
            if split in wanted[name]
        }
        published = settings.published_splits
        self.selecting = {called(split, name) for name, spec in specs.items() for split in spec.selecting(published)}
        if test_only and not self.evaluated_splits:
            raise UserError(f"test_only=True, but datasets={list(specs)} have no test split")

    def _dataset(
        self, split: str, datasets: Sequence[str], *, training: bool = False, called: str | None = None
    ) -> Samples:
        """A split of data sets, joined."""
        sources = [
            self._open(name, stems, training)
            for name in datasets
            if (stems := CATALOG[name].splits(self.settings.published_splits).get(split))
        ]
        preparation, seed = self._preparation(training), self.seed
        dataset = Samples(split, sources, self.parts, preparation, training=training, seed=seed, called=called)
        if not len(dataset):
            raise UserError(f"split {split!r} of datasets={list(datasets)} has no samples")
        if not self.test_only and (lacking := columns_of(self.parts, "labelled") - dataset.fields):
            missing = ", ".join(sorted(lacking))
            raise UserError(
                f"split {split!r} of datasets={list(datasets)} has no {missing}: without labels a split can "
                "only be tested (test_only=True)"
            )
        for source in sources:
            check_annotations(source, dataset.fields | self.composer.columns, training=training)
            if self.test_only:
                check_ids(source, columns_of(self.parts, "always"))
        return dataset

    def _open(self, name: str, stems: tuple[str, ...], training: bool) -> ArrowSplit:
        spec, settings = CATALOG[name], self.settings
        columns = spec.columns(columns_of(self.parts, "labelled", "always") | self.composer.columns)
        if settings.image_only:
            columns = columns - {spec.text}
        paths = self._find(stems, name)
        verify = not training if settings.verify is None else settings.verify
        return ArrowSplit(paths, spec, name, columns, read_texts=not settings.image_only, verify=verify)

    def _find(self, stems: tuple[str, ...], name: str) -> list[Path]:
        settings = self.settings
        return find_tables(settings.data_root, stems, name, CATALOG[name].writer, settings.data_cache)

    def _preparation(self, training: bool) -> Preparation:
        settings = self.settings
        (pipeline,) = settings.train_transform_keys if training else settings.val_transform_keys
        encoder = None if self.tokenizer is None else TextEncoder(self.tokenizer, settings.max_text_len)
        return Preparation(transform(pipeline, settings.image_size), self.num_patches, encoder, self.composer)

    def facts(self, world_size: int) -> dict[str, Any]:
        """What a position in the training data depends on: samples a step over all processes, samples of the data sets."""
        return {
            "global_batch": self.settings.per_gpu_batchsize * world_size,
            "num_samples": list(self.train.sizes),
        }

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        sampler = TrainSampler(
            self.train.sizes,
            self.settings.per_gpu_batchsize,
            seed=self.seed,
            weights=self.settings.dataset_weights,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            start=self.start,
        )
        return DataLoader(self.train, sampler=sampler, **self._loader_options())

    def val_dataloader(self) -> list[DataLoader]:
        return [self._evaluation_loader(dataset) for dataset in self.evaluation.values()]

    test_dataloader = val_dataloader

    def _evaluation_loader(self, dataset: Samples) -> DataLoader:
        sampler = EvalSampler(
            len(dataset),
            self.settings.per_gpu_batchsize,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        return DataLoader(dataset, sampler=sampler, **self._loader_options())

    def _loader_options(self) -> dict[str, Any]:
        return worker_options(self.settings.num_workers) | {
            "batch_size": None,  # the sampler yields whole batches
            "pin_memory": self.trainer.strategy.root_device.type == "cuda",
        }


def _evaluated(spec: DatasetSpec, settings: DataSettings, test_only: bool) -> Collection[str]:
    """The splits of a data set that are evaluated."""
    if not test_only:
        return spec.validated(settings.published_splits)
    return spec.test if settings.splits is None else [split for split in settings.splits if split in spec.tables]


def answer_vocabulary(settings: DataSettings, splits: Collection[str] | None = None) -> list[str]:
    """Answers by label, from all labelled splits of the data sets, or from those given; "" where a label never occurs.

    Raises UserError where a label stands for several answers.
    """
    answers: dict[int, str] = {}
    for name in settings.datasets:
        spec = CATALOG[name]
        for split, stems in spec.tables.items():
            if split in spec.unlabelled or "answer_labels" not in spec.fields:
                continue
            if splits is not None and split not in splits:
                continue
            paths = find_tables(settings.data_root, stems, name, spec.writer, settings.data_cache)
            table = ArrowSplit(paths, spec, name, {"answers", "answer_labels"}, read_texts=False)
            for label, answer in labelled_answers(table):
                if answers.setdefault(label, answer) != answer:
                    raise UserError(
                        f"{', '.join(map(str, paths))}: answer label {label} stands for {answer!r}, and elsewhere for "
                        f"{answers[label]!r}. Write the data sets together again: python -m write_arrow {spec.writer} "
                        "--out FOLDER"
                    )
    return [answers.get(label, "") for label in range(max(answers, default=-1) + 1)]


def _check_images(specs: dict[str, DatasetSpec], num_images: int, need_images: bool) -> None:
    """Raise UserError where a data set lacks images that the objectives read."""
    without = [name for name, spec in specs.items() if not spec.images]
    if without and len(without) < len(specs):
        raise UserError(
            f"datasets={list(specs)} cannot be joined: {', '.join(without)} has no images, the others have; use one kind "
            "at a time"
        )
    for name, spec in specs.items():
        if len(spec.images) != num_images and (spec.images or need_images):
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
