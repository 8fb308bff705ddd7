"""The base of all parts of a batch that objectives can ask for."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from vlc.common.errors import UserError
from vlc.data.sample import Sample, SampleSet

PRESENCES = ("always", "labelled", "where_provided")


class Part:
    """Something in a batch. Subclasses are frozen dataclasses, so that equal parts are one.

    name: its key in `Batch.parts`. The parts of a batch are made in the order of their names, and draw from the samples'
        generators in this order, whichever objectives asked for them.
    presence: "always"; "labelled": it is absent on splits whose labels are withheld; "where_provided": it is also absent
        where the files lack its columns.
    columns: the fields of the catalogue's row that it reads. The start of a run checks that the data sets have them.
    needs_placements: whether it reads where the stored pictures lie in the images. Then left and right change places in the
        texts of mirrored images, whichever pipeline mirrors them.
    """

    if TYPE_CHECKING:  # in the class itself, dataclasses would take the property for the default of their field

        @property
        def name(self) -> str: ...

    presence: str = "always"
    needs_placements: bool = False

    @property
    def columns(self) -> frozenset[str]:
        return frozenset()

    def prepared(self, samples: SampleSet) -> "Part":
        """The part as it serves these samples, once for all batches; parts that read files of their own open them here."""
        return self

    def of(self, sample: Sample, samples: SampleSet) -> Any:
        """The contribution of one sample. `sample.rng` is the only source of randomness."""
        raise NotImplementedError

    def collate(self, cells: list[Any], samples: SampleSet) -> Any:
        """The contributions of a batch as one tensor, one `Tensors`, or a list."""
        raise NotImplementedError

    def make(self, batch: Sequence[Sample], samples: SampleSet) -> Any:
        """The part of a batch. Parts that look at several samples at once override this."""
        return self.collate([self.of(sample, samples) for sample in batch], samples)


def by_name(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Each part once, in the order of the names. Raises UserError where two parts of one name differ."""
    named: dict[str, Part] = {}
    for part in sorted(set(parts), key=lambda part: part.name):
        if (other := named.setdefault(part.name, part)) != part:
            raise UserError(
                f"The objectives want {part.name} in two ways, {other} and {part}, and a batch has one: give their options "
                "the same values"
            )
    return tuple(named.values())


def columns_of(parts: Iterable[Part], *presences: str) -> frozenset[str]:
    """The catalogue's fields that the parts read; with presences, only parts of these."""
    return frozenset().union(*(part.columns for part in parts if part.presence in (presences or PRESENCES)))
