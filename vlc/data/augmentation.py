"""timm's augmentation, as an image pipeline of `vlc.data.sample.Preparation`."""

import random
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import AugmentOp, AutoAugment, RandAugment, posterize

from vlc.data.geometry import Shown
from vlc.data.images import Picture, to_pil
from vlc.data.transforms import MEAN, STD


def seed_everything_drawn_from(rng: np.random.Generator) -> None:
    """Seed the generators that timm's and torchvision's augmentations draw from: Python's, numpy's and torch's."""
    first, second, third = rng.integers(2**32, size=3).tolist()
    random.seed(first)
    np.random.seed(second)  # noqa: NPY002  timm's mixup and RandAugment draw from it
    torch.default_generator.manual_seed(third)


class Augmentation:
    """A picture -> normalised float32 (3, S, S): crop, flip, RandAugment or colour jitter, random erasing.

    It does not know where the points of the picture lie in the image.

    policy: timm's name of an augmentation policy; None: colour jitter instead.
    color_jitter: its strength; None: none.
    erasing, mode, count: of random erasing, the probability, the content and the number of regions.

    Raises ValueError for a policy that timm does not know.
    """

    def __init__(
        self, size: int, policy: str | None, color_jitter: float | None, erasing: float, mode: str, count: int
    ):
        try:
            self.steps = create_transform(
                input_size=size,
                is_training=True,
                color_jitter=color_jitter,  # type: ignore[arg-type]  # timm takes None, and does not declare it
                auto_augment=policy,
                interpolation="bicubic",
                re_prob=erasing,
                re_mode=mode,
                re_count=count,
                mean=MEAN,
                std=STD,
            )
        except AssertionError as error:  # the policy's name is all of it that can be wrong
            raise ValueError(str(error)) from error
        for operation in (operation for step in self.steps.transforms for operation in _operations(step)):
            if operation.aug_fn is posterize:
                operation.aug_fn = _posterize

    def __call__(self, picture: Picture, rng: np.random.Generator) -> Shown:
        image = to_pil(picture)
        seed_everything_drawn_from(rng)
        return Shown(self.steps(image), None)


def _operations(step: Any) -> list[AugmentOp]:
    """The operations of a RandAugment or AutoAugment policy; none for any other step of a pipeline."""
    if isinstance(step, AutoAugment):
        return [operation for policy in step.policy for operation in policy]
    return list(step.ops) if isinstance(step, RandAugment) else []


def _posterize(image: Image.Image, bits: int, **options: Any) -> Image.Image:
    """timm's, with at least one bit left: drawn magnitudes reach none, which Pillow refuses since release 13."""
    return posterize(image, max(bits, 1), **options)
