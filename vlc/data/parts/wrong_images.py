"""Images that do not belong to the texts, for image-text matching."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from vlc.common.errors import UserError
from vlc.common.inputs import Images, Tensors
from vlc.data.images import UndecodableImage
from vlc.data.keys import Location
from vlc.data.parts.part import Part
from vlc.data.sample import Sample, SampleSet, Source
from vlc.data.stacking import stack_images

_ATTEMPTS = 100


@dataclass(frozen=True)
class WrongImageChoice(Tensors):
    """A wrong image for each example, and what decides whether it takes the place of the right one.

    keeps_own_image (B,) float32 in [0, 1): the examples with the smallest draws keep their own image.
    rows (B,) int64: the batch's row of the wrong image, an example's own row where the batch has none; or None.
    images (B, 1, 3, H, W): wrong images from elsewhere in the data set, padded as the batch's images are; or None.
    """

    keeps_own_image: Tensor
    rows: Tensor | None = None
    images: Images | None = None


@dataclass(frozen=True)
class WrongImages(Part):
    """`WrongImageChoice` out of the batch, or out of the whole data set."""

    name: ClassVar[str] = "wrong_images"
    source: Literal["batch", "dataset"] = "batch"

    def make(self, batch: Sequence[Sample], samples: SampleSet) -> WrongImageChoice:
        draws = torch.tensor([sample.rng.random() for sample in batch])
        if self.source == "dataset":
            return WrongImageChoice(draws, images=stack_images([[_wrong_image(s, samples)] for s in batch]))
        return WrongImageChoice(draws, torch.tensor([_wrong_row(number, batch) for number in range(len(batch))]))


def _wrong_image(sample: Sample, samples: SampleSet) -> Tensor:
    """An image (3, H, W) of another row that does not have the sample's text."""
    for _ in range(_ATTEMPTS):
        source, where = samples.draw(sample.rng)
        if _describes(sample, source, where):
            continue
        try:
            return samples.image(source, where, source.spec.images[0], sample.rng).pixels
        except UndecodableImage:
            continue  # reported when it is drawn as a sample of its own
    raise UserError(
        f"No wrong image found for the caption {sample.text!r} in {_ATTEMPTS} draws: split {samples.name!r} has too few "
        "images, or too many with this caption"
    )


def _wrong_row(number: int, batch: Sequence[Sample]) -> int:
    """The number of a random sample whose image does not have this sample's text; its own number if there is none."""
    sample = batch[number]
    for other in sample.rng.permutation(len(batch)).tolist():
        if not _describes(sample, batch[other].source, batch[other].where):
            return other
    return number


def _describes(sample: Sample, source: Source, where: Location) -> bool:
    """Whether this row is the sample's own, or has its text."""
    same_row = source is sample.source and where[:2] == sample.where[:2]
    return same_row or sample.text in source.texts(where)
