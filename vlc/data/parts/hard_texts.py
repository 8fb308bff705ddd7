"""Texts of images that look alike, for retrieval."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.hard_pool import HardPool, open_pool
from vlc.data.parts.wrong_texts import ATTEMPTS, WrongTexts
from vlc.data.sample import Sample, SampleSet
from vlc.data.tokens import Tokens


@dataclass(frozen=True)
class HardTexts(WrongTexts):
    """A `Text` (B * count, L): `count` texts for each example of images that look like its own, grouped by example.

    The look-alikes stand in a hard pool, from which a rank and then a text is drawn, as 12-in-1 does (Lu et al. 2020). In
    evaluation the texts are of random other images.

    folder: that holds the pools; None: the one of the data set's tables.
    pools: of each source of the samples, once they are open.
    """

    name: ClassVar[str] = "hard_texts"
    folder: str | None = None
    pools: tuple[HardPool, ...] = field(default=(), compare=False, repr=False)

    def prepared(self, samples: SampleSet) -> "HardTexts":
        if not samples.training:
            return self
        sources = (source for source in samples.sources if isinstance(source, ArrowSplit))  # others have no texts
        return replace(self, pools=tuple(open_pool(source, self.folder) for source in sources))

    def of(self, sample: Sample, samples: SampleSet) -> list[Tokens]:
        """Texts that the sample's image does not have, drawn without regard to each other."""
        if not self.pools:
            return super().of(sample, samples)
        source, own = sample.source, set(sample.source.texts(sample.where))
        pool = next(pool for pool, one in zip(self.pools, samples.sources, strict=True) if one is source)
        near, found = pool.near_of(sample.where), []
        for rank in sample.rng.integers(len(near), size=ATTEMPTS * self.count if near else 0).tolist():
            texts = [text for text in source.texts(pool.location(near[rank])) if text not in own]
            if texts:
                found.append(sample.preparation.plain_tokens(texts[int(sample.rng.integers(len(texts)))]))
            if len(found) == self.count:
                return found
        raise UserError(
            f"The images that look like the one of {sample.text!r} have no texts that it lacks: leave data set "
            f"{source.dataset!r} out, or ask for no texts of images that look alike"
        )
