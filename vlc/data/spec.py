"""A data set is a row of data: where its tables lie and what each column means."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from vlc.data.kinds import Kind

TRANSLATION = "translation"  # the kind of texts that translate each other
ANY = "*"
# From one language to another, or from or to any.
DIRECTION = re.compile(rf"({re.escape(ANY)}|[^-\s]+)-({re.escape(ANY)}|\S+)")


@dataclass(frozen=True)
class Column:
    """One annotation column.

    kind: the kind of its values.
    per_text: whether the cell holds one value for each text of the row.
    numbered: whether the value is followed by a dash and the number of the text in its row.
    fallback: the column that is read where a file lacks this one.
    optional: whether a file may lack it without a fallback.
    beside: the column that has as many values for each text as this one; for each row, if the values belong to the row.
    index_of: the column in whose list, of the same text or of the row, the value is a place.
    tags_of: the column of the row's boxes that the values name, counted from 1; 0 names none.
    of_second: whether it is the value of the second text of a pair (`vlc.data.selection`).
    """

    name: str
    kind: Kind
    per_text: bool = True
    numbered: bool = False
    fallback: "Column | None" = None
    optional: bool = False
    beside: str | None = None
    index_of: str | None = None
    tags_of: str | None = None
    of_second: bool = False

    def within(self, names: Collection[str]) -> "Column":
        """This column, or its fallback where a file with these columns lacks it."""
        return self.fallback if self.fallback and self.name not in names else self


@dataclass(frozen=True)
class ImageKey:
    """How the rows of a data set name their images, so that other data sets with the same images are found.

    column: the column with the number or the file name of the image.
    collection: whose number this is, such as coco, vg (Visual Genome) or flickr.
    elsewhere: split -> collection, of splits whose images are of another collection.
    numbered: images are known by the number at the end of their names; otherwise by the names, without folder and suffix.
    """

    column: str
    collection: str
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    numbered: bool = True


@dataclass(frozen=True)
class DatasetSpec:
    """Where a data set's rows live under data_root and what they hold.

    tables: split -> arrow file stems; a stem that ends in "*" stands for all its numbered shards.
    text: column of the texts, a list of strings or one string a row.
    images: image columns; two for pairs, none for texts alone.
    fields: batch field -> Column; objectives ask for fields by these names.
    unique_texts: repeated texts of a row count once.
    unlabelled: splits whose answers are withheld (server-scored test sets); they carry ids only.
    validation, test: splits that are evaluated during training, and with test_only.
    optional: splits that a folder may lack; they are evaluated where it has them.
    published: split files as the published code used them (it validated on test data).
    published_validation: the splits that the published code validated on, if not `validation`. It selected checkpoints by
        the last one.
    writer: the name `python -m write_arrow` knows it by, with the options that write its files.
    labelled: images without texts in any of the forms that `vlc.data.labelled` opens by the name of a split.
    image_key: how its rows name their images; None: they do not.
    own_images: whether no other data set is known to show its images.
    cleaned: the splits from which `clean.exclude` leaves out images that are evaluated elsewhere.
    from_training: evaluated splits that are taken from training images, so that clean lists do not hold them.
    """

    writer: str
    tables: Mapping[str, tuple[str, ...]]
    text: str = "caption"
    images: tuple[str, ...] = ("image",)
    fields: Mapping[str, Column] = field(default_factory=dict)
    unique_texts: bool = True
    unlabelled: frozenset[str] = frozenset()
    validation: tuple[str, ...] = ("val",)
    test: tuple[str, ...] = ("test",)
    optional: tuple[str, ...] = ()
    published: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    published_validation: tuple[str, ...] = ()
    labelled: bool = False
    image_key: ImageKey | None = None
    own_images: bool = False
    cleaned: tuple[str, ...] = ("train",)
    from_training: tuple[str, ...] = ()

    def splits(self, published: bool = False) -> dict[str, tuple[str, ...]]:
        """Split -> stems; with `published`, as the published code read them."""
        return {**self.tables, **(self.published if published else {})}

    def validated(self, published: bool = False) -> tuple[str, ...]:
        """The splits that are evaluated during training; with `published`, the splits that the published code evaluated."""
        return (published and self.published_validation) or self.validation

    def selecting(self, published: bool = False) -> tuple[str, ...]:
        """The splits that select the checkpoint: all that are validated.

        With `published`, where the published code validated on other splits, it is the last of these.
        """
        validated = self.validated(published)
        return validated[-1:] if published and self.published_validation else validated

    def columns(self, fields: frozenset[str]) -> set[str]:
        """Arrow columns that reading the given fields needs, texts and images included."""
        read = [self.fields[name] for name in fields if name in self.fields and not self.fields[name].optional]
        return {self.text, *self.images, *((column.fallback or column).name for column in read)}

    @property
    def evaluated(self) -> dict[str, tuple[str, ...]]:
        """The splits whose images a clean list holds: those of validation ("val"), and all others ("test")."""
        splits = [split for split in self.tables if split not in (*self.cleaned, *self.from_training)]
        return {
            "val": tuple(split for split in splits if split in self.validation),
            "test": tuple(split for split in splits if split not in self.validation),
        }
