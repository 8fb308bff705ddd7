"""From sample numbers to batches: the only place where rows, pipelines and tokens meet.

The data set hands out whole batches, because some parts of a batch (padding, wrong images) concern several samples. All
randomness of a sample comes from a generator seeded by (seed, epoch, sample), so batches depend neither on the number
of workers or processes nor on what was read before, and a run can resume anywhere.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vlc.common.errors import UserError
from vlc.common.inputs import Text
from vlc.data.batch import Batch, CorruptImage
from vlc.data.geometry import Shown
from vlc.data.images import UndecodableImage, open_image
from vlc.data.keys import Key, Location
from vlc.data.kinds import Kind
from vlc.data.mixing import Turn
from vlc.data.parts import Languages, Part, by_name, columns_of
from vlc.data.sample import Preparation, Sample, Source
from vlc.data.stacking import padded_alike, stack_images

_ATTEMPTS = 100  # at replacing a corrupt image


class Samples(Dataset):
    """The samples of one or more splits (of the same name, of several data sets), by lists of keys.

    Indexing with a list of keys gives a Batch. In training, another sample replaces an image that cannot be decoded, and
    the batch lists the image; in evaluation such an image raises UserError.

    parts: what batches hold beside texts and images. On splits without labels, parts that read labels are left out.
    called: the name that batches and metrics give the split, if not its own name.
    task: the task that batches are for.
    reads_images: False leaves the images out, and batches have none.
    """

    def __init__(
        self,
        name: str,
        sources: Sequence[Source],
        parts: Collection[Part],
        preparation: Preparation,
        *,
        training: bool,
        seed: int,
        called: str | None = None,
        task: str = "",
        reads_images: bool = True,
    ):
        self.reads_images = reads_images and any(source.spec.images for source in sources)
        self.name, self.called, self.task = name, called or name, task
        self.sources, self.preparation = sources, preparation
        self.training, self.seed = training, seed
        self._starts = np.cumsum([0] + [len(source) for source in sources])
        self.parts = _served(name, sources, by_name(parts))
        self.parts = tuple(part.prepared(self) for part in self.parts)
        self.kinds = {field: _kind(field, sources) for field in self.fields}

    @property
    def fields(self) -> frozenset[str]:
        """The catalogue's fields that the parts read."""
        return columns_of(self.parts)

    def without_texts(self) -> "Samples":
        """The same samples with empty texts."""
        silent = copy(self)
        silent.preparation = replace(self.preparation, blank_texts=True)
        return silent

    def __len__(self) -> int:
        """Number of samples."""
        return int(self._starts[-1])

    @property
    def sizes(self) -> list[int]:
        """Number of samples of each source."""
        return np.diff(self._starts).tolist()

    def locate(self, sample: int) -> tuple[Source, Location]:
        """The source of a sample and its place there."""
        number = int(np.searchsorted(self._starts, sample, side="right")) - 1
        source = self.sources[number]
        return source, source.locate(sample - int(self._starts[number]))

    def draw(self, rng: np.random.Generator) -> tuple[Source, Location]:
        """The source of a random sample and its place there."""
        return self.locate(int(rng.integers(len(self))))

    def __getitem__(self, keys: list[Key]) -> Batch:
        corrupt: list[CorruptImage] = []
        samples = [self._sample(Key(*key), corrupt) for key in keys]
        encoder, tokens = self.preparation.text_encoder, [sample.tokens for sample in samples]
        batch = Batch(
            index=torch.tensor([sample.key.sample for sample in samples]),
            split=self.called,
            task=self.task,
            images=stack_images([sample.images for sample in samples]),
            text=None
            if encoder is None
            else encoder.pad([s.ids for s in tokens], [s.segments for s in tokens], [s.tags for s in tokens]),
            parts={part.name: part.make(samples, self) for part in self.parts},
            corrupt=tuple(corrupt),
            again=any(sample.key.again for sample in samples),
        )
        return padded_alike(batch)

    def _sample(self, key: Key, corrupt: list[CorruptImage], *, texts: bool = True) -> Sample:
        rng = np.random.default_rng((self.seed, key.epoch, key.sample))
        for _ in range(_ATTEMPTS):
            source, where = self.locate(key.sample)
            try:
                shown = [self.image(source, where, column, rng) for column in self._images_of(source)]
            except UndecodableImage as error:
                table, row = source.table_and_row(where)
                if not self.training:
                    raise UserError(
                        f"The image in row {row} of {table}{source.suffix} cannot be decoded ({error}): mend or remove it, "
                        "evaluation leaves nothing out"
                    ) from error
                found = CorruptImage(table, row, str(error))
                if found not in corrupt:
                    corrupt.append(found)
                key = Key(key.epoch, int(rng.integers(len(self))))
                continue
            images, placements = [image.pixels for image in shown], [image.placement for image in shown]
            sample = Sample(key, source, where, rng, images, placements, self.preparation.of(shown))
            return self._with_text(sample) if texts and self.preparation.text_encoder is not None else sample
        raise UserError(f"{_ATTEMPTS} images in a row cannot be decoded, the last one in {corrupt[-1]}")

    def _with_text(self, sample: Sample) -> Sample:
        row = sample.preparation.row(sample.source, sample.where)
        tokens = sample.preparation.tokens(row, following=self._texts_behind(sample.key.sample))
        return replace(sample, text=row["text"], tokens=tokens)

    def _texts_behind(self, sample: int) -> Iterator[str]:
        """The texts of the samples behind one, and then from the first sample on."""
        for number in chain(range(sample + 1, len(self)), range(sample)):
            source, where = self.locate(number)
            yield source.text(where)

    def _images_of(self, source: Source) -> tuple[str, ...]:
        """The columns of the images that are read."""
        return source.spec.images if self.reads_images else ()

    def image(self, source: Source, where: Location, column: str, rng: np.random.Generator) -> Shown:
        """An image of a row, prepared, (3, H, W) uint8, with its placement. Raises UndecodableImage."""
        return self.preparation.transform(open_image(source.image(where, column)), rng)

    def with_languages(self, text: Text, names: Sequence[tuple[str, str]]) -> Text:
        """Texts with their languages, where batches have these (`vlc.data.parts.Languages`).

        names: the languages of segments 0 and 1 of each text.
        """
        part = next((part for part in self.parts if isinstance(part, Languages)), None)
        if part is None:
            return text
        return replace(text, languages=torch.tensor(list(map(part.numbers, names))))

    def first_image(self, key: Key) -> Tensor:
        """The first image (3, H, W) uint8 of a sample, without its text."""
        return self._sample(key, [], texts=False).images[0]


class NamedSamples(Dataset):
    """Several data sets by name: training data by task, or evaluated splits.

    A name with a list of keys gives a Batch of this data set; a turn behind them becomes the batch's.
    """

    def __init__(self, named: Mapping[str, Samples]):
        self.named = named

    def __len__(self) -> int:
        """Number of samples."""
        return sum(map(len, self.named.values()))

    def __getitem__(self, chosen: tuple[str, list[Key]] | tuple[str, list[Key], Turn]) -> Batch:
        name, keys, *turn = chosen
        batch = self.named[name][keys]
        return replace(batch, turn=turn[0]) if turn else batch


def _served(name: str, sources: Sequence[Source], parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """The parts that batches of a split hold. Raises UserError where some sources have labels and others do not."""
    supervision = columns_of(parts, "labelled")
    labelled = [
        name not in source.spec.unlabelled and not (supervision and all(map(source.withholds, supervision)))
        for source in sources
    ]
    if any(labelled) and not all(labelled):
        without = ", ".join(source.dataset for source, has in zip(sources, labelled, strict=True) if not has)
        raise UserError(
            f"split {name!r} of {without} has no labels, and the other data sets have labels: use one at a time"
        )

    def is_served(part: Part) -> bool:
        if part.presence == "always":
            return True
        provided = part.presence == "labelled" or all(
            source.provides(field) and not source.withholds(field) for field in part.columns for source in sources
        )
        return all(labelled) and provided

    return tuple(filter(is_served, parts))


def _kind(field: str, sources: Sequence[Source]) -> Kind:
    """The kind of a field's values, in all sources. Raises UserError where they differ."""
    kinds = {source.dataset: source.spec.fields[field].kind for source in sources}
    if len(set(kinds.values())) > 1:
        found = ", ".join(f"{dataset} has {kind.expected}" for dataset, kind in kinds.items())
        raise UserError(f"Data sets {', '.join(kinds)} cannot be joined, as they differ in {field!r}: {found}")
    return next(iter(kinds.values()))
