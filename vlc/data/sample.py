"""One example before it is collated, and what parts of a batch may ask of the samples that it is one of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from vlc.data.arrow import ArrowSplit, Location
from vlc.data.composers import COMPOSERS, Composer
from vlc.data.images import Picture
from vlc.data.keys import Key
from vlc.data.kinds import Kind
from vlc.data.tokens import TextEncoder, Tokens


@dataclass(frozen=True)
class Preparation:
    """How samples are prepared.

    transform: image pipeline.
    num_patches: length of a row of patch noise.
    text_encoder: None where texts are not read.
    composer: how texts are put together.
    blank_texts: every text is empty, to measure what a model makes of images alone. Parts that make texts heed it.
    """

    transform: Callable[[Picture, np.random.Generator], Tensor]
    num_patches: int
    text_encoder: TextEncoder | None
    composer: Composer = COMPOSERS["plain"]
    blank_texts: bool = False


@dataclass(frozen=True)
class Sample:
    """One example of a batch, before it is collated.

    rng: the only source of its randomness; parts draw from it one after the other.
    images: K of (3, H, W) uint8.
    """

    key: Key
    source: ArrowSplit
    where: Location
    rng: np.random.Generator
    images: list[Tensor]
    text: str | None = None
    tokens: Tokens | None = None


class SampleSet(Protocol):
    """All samples of a split, as a `Part` sees them; `vlc.data.samples.Samples` is one.

    name: of the split.
    kinds: what the values of each field are.
    """

    name: str
    preparation: Preparation

    @property
    def sources(self) -> Sequence[Any]:
        """The splits that are joined, such as `ArrowSplit`s."""

    @property
    def kinds(self) -> Mapping[str, Kind]: ...

    def draw(self, rng: np.random.Generator) -> tuple[ArrowSplit, Location]:
        """The source of a random sample and its place there."""

    def image(self, source: ArrowSplit, where: Location, column: str, rng: np.random.Generator) -> Tensor:
        """An image of a row, prepared: (3, H, W) uint8. Raises UndecodableImage."""
