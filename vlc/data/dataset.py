"""From sample numbers to batches: the only place where rows, pipelines and tokens meet.

The data set hands out whole batches, because some parts of a batch (padding, wrong images) concern several samples. All
randomness of a sample comes from a generator seeded by (seed, epoch, sample), so batches depend neither on the number
of workers or processes nor on what was read before, and a run can resume anywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vlc.common.errors import UserError
from vlc.common.inputs import Sizes
from vlc.data.arrow import ArrowSplit, Location
from vlc.data.batch import Batch, CorruptImage, Identity, Needs
from vlc.data.images import Picture, UndecodableImage, open_image
from vlc.data.tokens import HiddenTokens, TextEncoder, TokenHider, Tokens, masked_text

_ATTEMPTS = 100  # at replacing a corrupt image or finding a wrong one


class Key(NamedTuple):
    """A sample in an epoch; the epoch decides its augmentation. again: in evaluation, it was counted elsewhere."""

    epoch: int
    sample: int
    again: bool = False


@dataclass(frozen=True)
class Recipe:
    """How samples are prepared.

    transform: image pipeline. num_patches: length of a row of patch noise. text_encoder None: images alone.
    false_images: whether a wrong image of each sample is read from the data set, instead of taken from the batch.
    draw_false_text: texts of other images for each sample.
    """

    transform: Callable[[Picture, np.random.Generator], Tensor]
    num_patches: int
    text_encoder: TextEncoder | None
    token_hider: TokenHider | None
    false_images: bool = False
    draw_false_text: int = 0


@dataclass
class _Sample:
    key: Key
    split: ArrowSplit
    where: Location
    rng: np.random.Generator
    images: list[Tensor]  # K of (3, H, W) uint8
    text: str | None = None
    tokens: Tokens | None = None
    hidden: HiddenTokens | None = None


class BatchDataset(Dataset):
    """The samples of one or more splits (of the same name, of several data sets), by lists of keys.

    called: how batches and metrics name the split, where not by its own name. Indexing with a list of keys gives a Batch.
    An image that cannot be decoded gives way to another sample in training (and is listed in the batch), and raises
    UserError in evaluation.
    """

    def __init__(
        self,
        name: str,
        sources: list[ArrowSplit],
        needs: Needs,
        recipe: Recipe,
        *,
        training: bool,
        seed: int,
        called: str | None = None,
    ):
        self.called = called or name
        self.name, self.sources, self.needs, self.recipe = name, sources, needs, recipe
        self.training, self.seed = training, seed
        self._starts = np.cumsum([0] + [len(source) for source in sources])
        labelled = [name not in source.spec.unlabelled and not _withholds(source, needs) for source in sources]
        if any(labelled) and not all(labelled):
            without = ", ".join(source.dataset for source, has in zip(sources, labelled, strict=True) if not has)
            raise UserError(f"split {name!r} of {without} has no labels, that of the others has: use one at a time")
        provided = {
            name
            for name in needs.optional
            if all(source.provides(name) and not source.withholds(name) for source in sources)
        }
        self.fields = needs.ids | (needs.fields | provided if all(labelled) else set())
        self._collate = {name: _collation(name, sources) for name in self.fields}

    def __len__(self) -> int:
        """Number of samples."""
        return int(self._starts[-1])

    @property
    def sizes(self) -> list[int]:
        """Number of samples of each source."""
        return np.diff(self._starts).tolist()

    def locate(self, sample: int) -> tuple[ArrowSplit, Location]:
        """The source of a sample and its place there."""
        number = int(np.searchsorted(self._starts, sample, side="right")) - 1
        source = self.sources[number]
        return source, source.locate(sample - int(self._starts[number]))

    def __getitem__(self, keys: list[Key]) -> Batch:
        corrupt: list[CorruptImage] = []
        samples = [self._sample(Key(*key), corrupt) for key in keys]
        needs, recipe = self.needs, self.recipe
        parts: dict[str, Any] = {}
        image_parts = [[sample.images for sample in samples]]
        if recipe.text_encoder is not None:
            parts["text"] = recipe.text_encoder.pad([sample.tokens.ids for sample in samples])
        if needs.masked_text:
            hidden = [sample.hidden for sample in samples]
            parts["masked_text"] = masked_text(recipe.text_encoder, [sample.tokens for sample in samples], hidden)
        if needs.noise:
            shape = (needs.noise, recipe.num_patches)
            noise = np.stack([sample.rng.random(shape, dtype=np.float32) for sample in samples])
            parts["noise"] = torch.from_numpy(noise)
        if needs.matching:
            parts["match_draw"] = torch.tensor([sample.rng.random() for sample in samples])
            if recipe.false_images:
                image_parts.append([[self._false_image(sample)] for sample in samples])
            else:
                parts["negative"] = torch.tensor([_false_row(number, samples) for number in range(len(samples))])
        if needs.shows:
            parts["identity"] = self._identity(samples)
            parts["shows"] = parts["identity"].shows(parts["identity"])
        if needs.false_texts:
            texts = [tokens.ids for sample in samples for tokens in self._false_texts(sample)]
            parts["false_text"] = recipe.text_encoder.pad(texts)
        (images, sizes), *false = stack_images(*image_parts)
        negative_images, negative_sizes = false[0] if false else (None, None)
        return Batch(
            images=images,
            sizes=sizes,
            negative_images=negative_images,
            negative_sizes=negative_sizes,
            index=torch.tensor([sample.key.sample for sample in samples]),
            split=self.called,
            fields=self._collate_fields(samples),
            corrupt=tuple(corrupt),
            again=any(sample.key.again for sample in samples),
            **parts,
        )

    def _identity(self, samples: list[_Sample]) -> Identity:
        numbers = {id(source): number for number, source in enumerate(self.sources)}
        rows, texts, of_row = [], [], {}
        for sample in samples:
            row = (numbers[id(sample.split)] << 55) + (sample.where.batch << 31) + sample.where.row
            rows.append(row)
            texts.append(_hash(sample.text))
            if row not in of_row:
                of_row[row] = [_hash(text) for text in sample.split.texts(sample.where) if text is not None]
        longest = max(map(len, of_row.values()))
        padded = [of_row[row] + [text] * (longest - len(of_row[row])) for row, text in zip(rows, texts, strict=True)]
        return Identity(torch.tensor(rows), torch.tensor(texts), torch.tensor(padded))

    def _sample(self, key: Key, corrupt: list[CorruptImage], *, texts: bool = True) -> _Sample:
        rng = np.random.default_rng((self.seed, key.epoch, key.sample))
        for _ in range(_ATTEMPTS):
            source, where = self.locate(key.sample)
            try:
                images = [self._image(source, where, column, rng) for column in source.spec.images]
            except UndecodableImage as error:
                table, row = source.table_and_row(where)
                if not self.training:
                    raise UserError(f"The image in row {row} of {table}.arrow cannot be decoded ({error})") from error
                found = CorruptImage(table, row, str(error))
                if found not in corrupt:
                    corrupt.append(found)
                key = Key(key.epoch, int(rng.integers(len(self))))
                continue
            sample = _Sample(key, source, where, rng, images)
            if not texts:
                return sample
            if self.recipe.text_encoder is not None:
                sample.text = source.text(where)
                sample.tokens = self.recipe.text_encoder(sample.text)
            if self.needs.masked_text:
                sample.hidden = self.recipe.token_hider(sample.tokens, rng)
            return sample
        raise UserError(f"{_ATTEMPTS} images in a row cannot be decoded, the last one in {corrupt[-1]}")

    def _image(self, source: ArrowSplit, where: Location, column: str, rng: np.random.Generator) -> Tensor:
        return self.recipe.transform(open_image(source.image(where, column)), rng)

    def _false_image(self, sample: _Sample) -> Tensor:
        """An image (3, H, W) of another row that does not have the sample's caption."""
        for _ in range(_ATTEMPTS):
            source, where = self.locate(int(sample.rng.integers(len(self))))
            if _shows(source, where, sample):
                continue
            try:
                return self._image(source, where, source.spec.images[0], sample.rng)
            except UndecodableImage:
                continue  # reported when it is drawn as a sample of its own
        raise UserError(
            f"No wrong image found for the caption {sample.text!r} in {_ATTEMPTS} draws: split {self.name!r} has too few "
            "images, or too many with this caption"
        )

    def _false_texts(self, sample: _Sample) -> list[Tokens]:
        """draw_false_text texts that do not belong to the sample's image; drawn without regard to each other."""
        own = set(sample.split.texts(sample.where))
        texts: list[Tokens] = []
        for _ in range(_ATTEMPTS * self.recipe.draw_false_text):
            source, where = self.locate(int(sample.rng.integers(len(self))))
            text = source.text(where)
            if text not in own:
                texts.append(self.recipe.text_encoder(text))
                if len(texts) == self.recipe.draw_false_text:
                    return texts
        raise UserError(
            f"No texts of other images found for {sample.text!r}: split {self.name!r} has too few that its own image lacks"
        )

    def image(self, key: Key) -> Tensor:
        """The first image (3, H, W) uint8 of a sample, without its text."""
        return self._sample(key, [], texts=False).images[0]

    def _collate_fields(self, samples: list[_Sample]) -> dict[str, Any]:
        collated = {}
        for name in sorted(self.fields):
            cells = [sample.split.field(sample.where, name) for sample in samples]
            values = self._collate[name](cells)
            collated[name] = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
        return collated


def stack_images(*parts: list[list[Tensor]]) -> list[tuple[Tensor, Sizes | None]]:
    """Rows of uint8 images (3, h, w) -> for each part images (B, N, 3, H, W), one shape for all, and sizes (B, N).

    Smaller images are padded with black below and on the right; without any such there are no sizes.
    """
    shapes = {image.shape[1:] for part in parts for row in part for image in row}
    if len(shapes) == 1:
        return [(torch.stack([torch.stack(row) for row in part]), None) for part in parts]
    height, width = (max(sides) for sides in zip(*shapes, strict=True))
    largest = max(rows * columns for rows, columns in shapes)
    stacked = []
    for part in parts:
        pixels = torch.tensor([[image.shape[1:] for image in row] for row in part])
        images = torch.zeros(*pixels.shape[:2], 3, height, width, dtype=torch.uint8)
        for place, image in zip(images.flatten(0, 1), chain.from_iterable(part), strict=True):
            place[:, : image.shape[1], : image.shape[2]] = image
        stacked.append((images, Sizes(pixels, largest)))
    return stacked


def _collation(name: str, sources: list[ArrowSplit]) -> Callable[[list], Any]:
    """How all sources collate a field. Raises UserError where they differ."""
    kinds = {source.dataset: source.spec.fields[name].kind for source in sources}
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{dataset} has {kind.expected}" for dataset, kind in kinds.items())
        raise UserError(f"Data sets {', '.join(kinds)} cannot be joined, as they differ in {name!r}: {told}")
    return next(iter(kinds.values())).collate


def _withholds(source: ArrowSplit, needs: Needs) -> bool:
    """Whether a source has none of the supervision that is needed."""
    return bool(needs.fields) and all(source.withholds(name) for name in needs.fields)


def _hash(text: str) -> int:
    """A number of 64 bits that stands for a text, the same one in every process."""
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little", signed=True)


def _shows(source: ArrowSplit, where: Location, sample: _Sample) -> bool:
    """Whether this row is the sample's own, or has its caption."""
    same_row = source is sample.split and where[:2] == sample.where[:2]
    return same_row or sample.text in source.texts(where)


def _false_row(number: int, samples: list[_Sample]) -> int:
    """A random other row of the batch whose image does not have this sample's caption; its own number if none."""
    sample = samples[number]
    for other in sample.rng.permutation(len(samples)).tolist():
        if not _shows(samples[other].split, samples[other].where, sample):
            return other
    return number
