"""One example before it is collated, and the interfaces through which the parts of a batch see the data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from torch import Tensor

from vlc.data.composers import COMPOSERS, Composer, Words
from vlc.data.geometry import Placement, Shown
from vlc.data.images import Picture
from vlc.data.keys import Key, Location
from vlc.data.kinds import Kind
from vlc.data.sides import exchange_sides
from vlc.data.spec import DatasetSpec
from vlc.data.tokens import TextEncoder, Tokens


@dataclass(frozen=True)
class Preparation:
    """How samples are prepared.

    transform: the image pipeline.
    num_patches: the length of a row of patch noise.
    text_encoder: None where texts are not read.
    composer: puts the text of a sample together.
    blank_texts: every text is empty, to measure what a model makes of images alone. Parts that make texts heed it.
    follows_mirror: whether left and right change places in the texts of a mirrored image.
    exchanges_sides: they change places in every text; see `of`.
    """

    transform: Callable[[Picture, np.random.Generator], Shown]
    num_patches: int
    text_encoder: TextEncoder | None
    composer: Composer = COMPOSERS["plain"]
    blank_texts: bool = False
    follows_mirror: bool = False
    exchanges_sides: bool = False

    def of(self, images: Sequence[Shown]) -> "Preparation":
        """How the texts about these images are prepared."""
        mirrored = self.follows_mirror and len(images) == 1 and images[0].mirrored
        return replace(self, exchanges_sides=True) if mirrored else self

    @property
    def encoder(self) -> TextEncoder:
        """The text encoder, for those who ask for texts."""
        assert self.text_encoder is not None
        return self.text_encoder

    def row(self, source: "Source", where: Location) -> dict[str, Any]:
        """What the composer reads of a sample's row, by name; empty values where texts are blank."""
        row = {"text": source.text(where)} | {name: source.field(where, name) for name in self.composer.columns}
        return {name: type(value)() for name, value in row.items()} if self.blank_texts else row

    def tokens(self, row: Mapping[str, Any], *more: Words, following: Iterable[str] = ()) -> Tokens:
        """The tokens of a row's text, with further sequences of words before its history.

        following: the texts of the samples that follow, for a composer that packs; no more of them are read than it takes.
        """
        if self.composer.packs:
            return self.encoder.packed(chain([row["text"]], () if self.blank_texts else following))
        sequences, history = [*self.composer.compose(row), *more], self.composer.history(row)
        if self.exchanges_sides:
            sequences = [one._replace(text=exchange_sides(one.text)) for one in sequences]
            history = list(map(exchange_sides, history))
        return self.encoder.composed(sequences, history, keeps_end=self.composer.keeps_end)

    def plain_tokens(self, text: str) -> Tokens:
        """The tokens of a text by itself, which is empty where texts are blank."""
        text = "" if self.blank_texts else text
        return self.encoder(exchange_sides(text) if self.exchanges_sides else text)


class Source(Protocol):
    """One split of one data set: `ArrowSplit` or `LabelledImages`.

    suffix: the suffix of its files, which `table_and_row` leaves out of their names.
    """

    spec: DatasetSpec
    dataset: str
    suffix: str

    def __len__(self) -> int:
        """Number of samples."""

    def locate(self, sample: int) -> Location:
        """Where a sample lies. Raises IndexError outside [0, len)."""

    def table_and_row(self, where: Location) -> tuple[str, int]:
        """The name of the file (or its stem) and the number of the row in it, for messages."""

    def image(self, where: Location, column: str) -> pa.Buffer:
        """Encoded bytes of an image. Raises UserError where they cannot be read as they were written."""

    def text(self, where: Location) -> str:
        """The text of a sample."""

    def texts(self, where: Location) -> list[str]:
        """All texts of the row."""

    def field(self, where: Location, name: str) -> Any:
        """The value of a catalogue field for a sample."""

    def provides(self, name: str) -> bool:
        """Whether every file has a catalogue field."""

    def withholds(self, name: str) -> bool:
        """Whether a catalogue field of the texts is empty throughout, as in test sets whose annotations are kept back."""


@dataclass(frozen=True)
class Sample:
    """One example of a batch, before it is collated.

    rng: the only source of its randomness; parts draw from it one after the other.
    images: K of (3, H, W) uint8.
    placements: where the stored pictures lie in the images; None where the pipeline does not know.
    preparation: how texts about its images are prepared.
    text, tokens: empty where texts are not read. The text is as the data have it. Left and right change places in the
        tokens where the preparation exchanges them.
    """

    key: Key
    source: Source
    where: Location
    rng: np.random.Generator
    images: list[Tensor]
    placements: list[Placement | None]
    preparation: Preparation
    text: str = ""
    tokens: Tokens = field(default_factory=lambda: Tokens([], []))


class SampleSet(Protocol):
    """All samples of a split, as a `Part` sees them; `vlc.data.samples.Samples` is one.

    name: the name of the split.
    training: whether samples may be drawn at random.
    kinds: the kind of each field's values; fields that the split withholds are not among them.
    """

    name: str
    training: bool
    preparation: Preparation

    @property
    def sources(self) -> Sequence[Source]:
        """The splits that are joined."""

    @property
    def kinds(self) -> Mapping[str, Kind]: ...

    def locate(self, sample: int) -> tuple[Source, Location]:
        """The source of a sample and its place there."""

    def draw(self, rng: np.random.Generator) -> tuple[Source, Location]:
        """The source of a random sample and its place there."""

    def image(self, source: Source, where: Location, column: str, rng: np.random.Generator) -> Shown:
        """An image of a row, prepared, (3, H, W) uint8, with its placement. Raises UndecodableImage."""
