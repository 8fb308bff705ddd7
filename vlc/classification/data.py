"""Batches of labelled images, and timm's augmentation.

All randomness of a sample follows from (seed, epoch, sample), as in `vlc.data.samples`: batches depend neither on the
number of workers or processes nor on what was read before.
"""

import random
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from pytorch_lightning import LightningDataModule
from timm.data import create_transform
from timm.data.auto_augment import AugmentOp, AutoAugment, RandAugment, posterize
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, PILToTensor, Resize

from vlc.common.errors import UserError
from vlc.common.inputs import Tensors
from vlc.data.batch import CorruptImage
from vlc.data.images import UndecodableImage, open_image, to_pil
from vlc.data.keys import Key
from vlc.data.labelled.source import LabelledImages as Source
from vlc.data.labelled.splits import check_classes, open_split
from vlc.data.sampler import EvalSampler, Position, TrainSampler
from vlc.data.transforms import MEAN, STD
from vlc.data.workers import worker_options

MAX_CORRUPT_RATIO = 0.01  # share of undecodable training images above which a run fails
_ATTEMPTS = 100  # at replacing a corrupt image


@dataclass(frozen=True)
class LabelledImages(Tensors):
    """images (B, 3, H, W), uint8 or normalised float32; labels (B,) int64; corrupt, again: as in `vlc.data.batch.Batch`."""

    images: Tensor
    labels: Tensor
    corrupt: tuple[CorruptImage, ...] = ()
    again: bool = False

    def __len__(self) -> int:
        return len(self.labels)


def train_transform(arguments: Namespace) -> Callable[[Any], Tensor]:
    """PIL image -> normalised float32 (3, S, S): crop, flip, RandAugment or colour jitter, random erasing.

    Raises UserError for an --aa that timm does not know.
    """
    try:
        made = create_transform(
            input_size=arguments.input_size,
            is_training=True,
            color_jitter=arguments.color_jitter,
            auto_augment=arguments.aa,
            interpolation="bicubic",
            re_prob=arguments.reprob,
            re_mode=arguments.remode,
            re_count=arguments.recount,
            mean=MEAN,
            std=STD,
        )
    except (AssertionError, ValueError) as error:  # the policy's name is all of it that can be wrong
        raise UserError(f"--aa {arguments.aa}: timm has no such policy ({error})") from error
    for step in made.transforms:
        for operation in _operations(step):
            if operation.aug_fn is posterize:
                operation.aug_fn = _posterize
    return made


def _operations(step: Any) -> list[AugmentOp]:
    """The operations of a RandAugment or AutoAugment policy; none for any other step of a pipeline."""
    if isinstance(step, AutoAugment):
        return [operation for policy in step.policy for operation in policy]
    return list(step.ops) if isinstance(step, RandAugment) else []


def _posterize(image: Image.Image, bits: int, **options: Any) -> Image.Image:
    """timm's, with at least one bit left: drawn magnitudes reach none, which Pillow refuses since release 13."""
    return posterize(image, max(bits, 1), **options)


def eval_transform(input_size: int) -> Callable[[Any], Tensor]:
    """PIL image -> uint8 (3, S, S): the central 7/8 up to 224 pixels, the largest central square above (as MAE's)."""
    short_side = int(input_size * 256 / 224) if input_size <= 224 else input_size
    resize = Resize(short_side, interpolation=InterpolationMode.BICUBIC)
    return Compose([resize, CenterCrop(input_size), PILToTensor()])


class ImageDataset(Dataset):
    """The images of a source, by lists of keys.

    An image that cannot be decoded gives way to another one in training (and is listed in the batch), and raises
    UserError in evaluation.
    """

    def __init__(self, source: Source, transform: Callable[[Any], Tensor], *, training: bool, seed: int):
        self.source, self.transform, self.training, self.seed = source, transform, training, seed

    def __len__(self) -> int:
        return len(self.source.labels)

    def __getitem__(self, keys: list[Key]) -> LabelledImages:
        corrupt: list[CorruptImage] = []
        samples = [self._sample(Key(*key), corrupt) for key in keys]
        images, labels = zip(*samples, strict=True)
        again = any(Key(*key).again for key in keys)
        return LabelledImages(torch.stack(images), torch.tensor(labels), tuple(corrupt), again)

    def _sample(self, key: Key, corrupt: list[CorruptImage]) -> tuple[Tensor, int]:
        rng = np.random.default_rng((self.seed, key.epoch, key.sample))
        number = key.sample
        for _ in range(_ATTEMPTS):
            try:
                image = to_pil(open_image(self.source.read(number)))
            except UndecodableImage as error:
                place = self.source.place(number)
                if not self.training:
                    raise UserError(
                        f"The image in row {place.row} of {place.table} cannot be decoded ({error}): mend or remove it, "
                        "evaluation leaves nothing out"
                    ) from error
                corrupt.append(CorruptImage(*place, str(error)))
                number = int(rng.integers(len(self)))
                continue
            if self.training:
                seed_everything_drawn_from(rng)
            return self.transform(image), int(self.source.labels[number])
        raise UserError(f"{_ATTEMPTS} images in a row cannot be decoded, the last one in {corrupt[-1]}")


def seed_everything_drawn_from(rng: np.random.Generator) -> None:
    """Seed the generators that timm's and torchvision's augmentations draw from: Python's, numpy's and torch's."""
    first, second, third = rng.integers(2**32, size=3).tolist()
    random.seed(first)
    np.random.seed(second)  # noqa: NPY002  timm's mixup and RandAugment draw from it
    torch.default_generator.manual_seed(third)


class WholeSteps(TrainSampler):
    """Training batches of full size, and as many as make whole optimiser steps; what is left over waits for a new order.

    As the published loop, which drops the last batch and the gradients of a step that was not completed.
    """

    def __init__(self, *args, accumulate: int, **kwargs):
        super().__init__(*args, **kwargs)
        self.accumulate = accumulate

    def __len__(self) -> int:
        return self.num_samples // (self.global_batch * self.accumulate) * self.accumulate


class ImageData(LightningDataModule):
    """Opens the splits of a run; mistakes in them show here, before anything else is built.

    With --eval the evaluated split alone is opened. `start` is where training begins.
    """

    def __init__(self, arguments: Namespace, world_size: int = 1):
        super().__init__()
        self.arguments = arguments
        self.start = Position(0, 0)
        splits = [arguments.eval_split] if arguments.eval else ["train", arguments.eval_split]
        verified = {split: split == arguments.eval_split for split in splits}
        if arguments.verify is not None:
            verified = dict.fromkeys(splits, arguments.verify)
        sources = {split: open_split(arguments.data_path, split, verify=verified[split]) for split in splits}
        check_classes(sources, arguments.nb_classes)
        self.train = None
        if not arguments.eval:
            transform = train_transform(arguments)
            self.train = ImageDataset(sources["train"], transform, training=True, seed=arguments.seed)
            step = arguments.batch_size * arguments.accum_iter * world_size
            if len(self.train) < step:
                raise UserError(
                    f"Split 'train' has {len(self.train)} images, fewer than one step takes: {step} (--batch_size "
                    f"{arguments.batch_size} x --accum_iter {arguments.accum_iter} x {world_size} processes)"
                )
        transform = eval_transform(arguments.input_size)
        self.evaluation = ImageDataset(sources[arguments.eval_split], transform, training=False, seed=arguments.seed)

    def facts(self, world_size: int) -> dict[str, Any]:
        """What a position in the training data depends on: samples a step over all processes, samples of the data."""
        return {"global_batch": self.arguments.batch_size * world_size, "num_samples": [len(self.train)]}

    def train_dataloader(self) -> DataLoader:
        sampler = WholeSteps(
            [len(self.train)],
            self.arguments.batch_size,
            seed=self.arguments.seed,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            accumulate=self.arguments.accum_iter,
            start=self.start,
        )
        return DataLoader(self.train, sampler=sampler, **self._loader_options())

    def val_dataloader(self) -> DataLoader:
        """With --dist_eval whole batches are dealt out to the processes; without, each evaluates everything."""
        shared = self.arguments.dist_eval
        sampler = EvalSampler(
            len(self.evaluation),
            self.arguments.batch_size,
            rank=self.trainer.global_rank if shared else 0,
            world_size=self.trainer.world_size if shared else 1,
        )
        return DataLoader(self.evaluation, sampler=sampler, **self._loader_options())

    def _loader_options(self) -> dict[str, Any]:
        return worker_options(self.arguments.num_workers) | {
            "batch_size": None,  # the sampler yields whole batches
            "pin_memory": self.arguments.pin_mem and self.trainer.strategy.root_device.type == "cuda",
        }
