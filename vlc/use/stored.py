"""Examples of data sets and folders for heads to be asked about: which heads can be, and with which requests."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
from torch.utils.data import DataLoader, Dataset

from vlc.common.errors import NonFiniteMetric, UserError
from vlc.configuration.use_settings import UseSettings
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.geometry import Shown
from vlc.data.images import Picture, UndecodableImage, open_image
from vlc.data.objects import read_outlines
from vlc.data.rows import FolderImages, Location, Texts, digest_of_tables, name_of_row
from vlc.data.workers import worker_options
from vlc.objectives.base import Objective
from vlc.use.forms import Field, Prepared, Request, chooses
from vlc.use.images import several
from vlc.use.model import Model
from vlc.use.shards import Failed
from vlc.use.sources import LeftOut, open_tables

# Where the catalogue has the fields of a request, apart from images, texts and boxes.
_COLUMNS = {
    "options": "options",
    "history": "history",
    "caption": "caption",
    "answer": "given_answer",
    "word": "words",
    "language": "target_lang",
    "candidates": "candidates",
}
TAGS = ("text_tags", "given_answer_tags", "option_tags")  # of the words of a text, a given answer and options
_OF_ONE_IMAGE = ("image2", "boxes", "box_names", "options", "answer", "picture")  # keys of `UseSettings`
OBJECTS = ("box_names", "outlines")  # of the boxes
KeyT = TypeVar("KeyT")


class Example(NamedTuple):
    """An image, or a pair, and what is known for asking about it.

    about: the values of the first columns of the tables, up to text_number.
    images: encoded; or as the model prepared them.
    values: by the names of the catalogue's fields, and the text as "text", where it has one of its own.
    """

    about: tuple[Any, ...]
    images: list[Any]
    values: Mapping[str, Any]


class Examples(Protocol):
    """Examples by number, whose images are encoded."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Example: ...

    def place(self, number: int) -> Location: ...

    def digest(self) -> str: ...


class OfFolder:
    """The images below a folder."""

    def __init__(self, folder: str):
        self._images = FolderImages(folder)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> Example:
        about = (self._images.name(number), *self._images.place(number)[:3], None)
        return Example(about, [self._images.read(number)], {})

    def place(self, number: int) -> Location:
        return self._images.place(number)

    def digest(self) -> str:
        return self._images.digest()


class OfTables:
    """The texts of data sets with the images of their rows; or the rows, where the tables were opened without texts."""

    def __init__(self, tables: Sequence[ArrowSplit], fields: Collection[str]):
        self._tables, self._samples = tables, Texts(tables)
        self._fields = {
            id(one): sorted(name for name in fields if one.provides(name) and not one.withholds(name)) for one in tables
        }

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> Example:
        rows, where = self._samples.at(number)
        values = {name: rows.field(where, name) for name in self._fields[id(rows)]}
        text_number = None
        if rows.read_texts:
            values["text"], text_number = rows.text(where), where.text
        about = (name_of_row(rows, where), *self.place(number)[:3], text_number)
        return Example(about, [rows.image(where, column) for column in rows.spec.images], values)

    def place(self, number: int) -> Location:
        return self._samples.place(number)

    def digest(self) -> str:
        return digest_of_tables(self._tables)


class _Decoded(Dataset):
    """Batches of examples by pairs of anything and a list of numbers; those whose images can be decoded, and the others."""

    def __init__(self, examples: Examples, transform: Callable[[Picture, np.random.Generator], Shown]):
        self.examples, self.transform = examples, transform

    def __getitem__(self, asked: tuple[Any, range]) -> tuple[Any, list[Example], Failed]:
        key, numbers = asked
        good, failed = [], Failed()
        for number in numbers:
            example = self.examples[number]
            try:
                shown = [self.transform(open_image(image), np.random.default_rng(0)) for image in example.images]
                good.append(example._replace(images=shown))
            except UndecodableImage as error:
                failed.append((self.examples.place(number), str(error)))
        return key, good, failed


Heads: TypeAlias = Mapping[str, Mapping[str, Field]]  # fields of requests that heads read, by head


@dataclass(frozen=True)
class Asking:
    """Examples, and what the heads of a model are asked about them.

    askable: the heads by data set; None: images below a folder.
    texts: that are asked about each image in place of its own ones; empty: its own ones are.
    """

    model: Model
    examples: Examples
    askable: Mapping[str | None, Heads]
    texts: Sequence[str]

    @classmethod
    def opened(cls, model: Model, use: UseSettings, names: Iterable[str]) -> "Asking":
        """Open the data of a command for these heads. Raises UserError where none can be asked about a data set."""
        if of_one := [key for key in _OF_ONE_IMAGE if getattr(use, key)]:
            raise UserError(f"{of_one[0]} belongs to a single image=FILE, and not to whole data sets: leave it out")
        heads = {name: model.forms[name].fields(model, model.module.objectives[name]) for name in names}
        texts = list(several(use.text)) if use.text else []
        if use.image_folder:
            askable = _answering(model, use.image_folder, heads, 1, {"text"} if texts else set[str]())
            return cls(model, OfFolder(use.image_folder), {None: askable}, texts)
        opened, found, read = [], dict[str | None, Heads](), set[str]()
        for name in model.settings.data.datasets:
            spec = CATALOG[name]
            if spec.labelled:
                raise UserError(f"datasets: {name!r} serves training only: pass image_folder=FOLDER to read its images")
            own = _answering(model, f"data set {name!r}", heads, len(spec.images), {"text", *spec.fields})
            fields = {one for head in own for one in _read(model, head, own[head])} & spec.fields.keys()
            reads_texts = not texts and any("text" in one for one in own.values())
            opened.append(_with_columns(model, name, {*fields, "image_id"} & spec.fields.keys(), reads_texts))
            found[name], read = own, read | fields
        return cls(model, OfTables(opened, read), found, texts)

    @property
    def heads(self) -> list[str]:
        """The heads that are asked, of whatever data set."""
        return list(dict.fromkeys(name for heads in self.askable.values() for name in heads))

    def decoded(self, batches: Iterable[tuple[KeyT, range]]) -> Iterator[tuple[KeyT, list[Example], Failed]]:
        """Read and prepare batches of examples by their numbers, each with what stands beside it.

        Images that cannot be decoded are named. Raises UserError where they are a larger share than max_corrupt_ratio.
        """
        data = self.model.settings.data
        readable, left_out = _Decoded(self.examples, self.model.transform), LeftOut(data.max_corrupt_ratio)
        for key, good, failed in DataLoader(readable, None, sampler=batches, **worker_options(data.stated_workers)):
            left_out.add(failed, len(good) + len(failed))
            yield key, good, failed

    def requests(self, name: str, example: Example) -> Iterator[tuple[int, Request]]:
        """Requests about an example with the number of the text, in each language that the data do not choose."""
        fields = self.askable[example.about[2]].get(name)
        if fields is None or ("text" not in fields and example.about[-1]):
            return  # a head that reads no text is asked at the first one of a row
        values = {
            field: example.values[key]
            for field, own in fields.items()
            if (key := _field_of(field, own)) in example.values
        }
        if "history" in values:
            values["history"] = list(zip(values["history"][::2], values["history"][1::2], strict=False))
        head, own_text = self.model.module.objectives[name], not (self.texts and "text" in fields)
        if "named_boxes" in fields:
            values |= grounding(example.values, own_text=own_text)
        if own_text and chooses(head):
            values |= _labelling(head, example.values)
        languages = fields["language"].choices if "language" in fields and "language" not in values else ()
        for number, text in enumerate([values.get("text")] if own_text else self.texts):
            for language in languages or (values.get("language", ""),):
                yield number, Request(example.images, **{**values, "text": text, "language": language})

    def prepared(self, name: str, request: Request, example: Example) -> Prepared:
        """Decode and tokenise a request about an example. Raises UserError with the place where it is wrong."""
        with located(name, example):
            return self.model.prepare(name, request)


@contextmanager
def located(name: str, example: Example) -> Iterator[None]:
    """Name the place of an example in a UserError about a head that is asked about it."""
    try:
        yield
    except NonFiniteMetric:
        raise
    except UserError as error:
        _, source, _, row, _ = example.about
        raise UserError(f"{Location(source, row=row)}: {name} cannot be asked ({error})") from error


def grounding(values: Mapping[str, Any], *, own_text: bool = True) -> dict[str, Any]:
    """The boxes of a request, and the tags of its words, by the values of catalogue fields.

    own_text: whether the text is that of the data. The words of others have no tags.
    """
    text_tags, *given = (values[name] for name in TAGS[:2] if name in values)
    outlines = values.get("outlines")
    known = {
        "box_names": values.get("box_names", ()),
        "outlines": None if outlines is None else read_outlines(outlines),
    }
    return known | {"boxes": values["boxes"], "tags": [text_tags if own_text else [], *given, *values["option_tags"]]}


def _labelling(head: Objective, values: Mapping[str, Any]) -> dict[str, Any]:
    """What names and describes an example in the record of its answer, and the right option, where the data say it."""
    options = head.options
    named = set(options.ids) <= values.keys()
    known = {name: values[name] for name in (*options.ids, *options.described_by) if named and name in values}
    return {"known": known, "right": values.get(options.label)}


def _with_columns(model: Model, name: str, fields: Collection[str], read_texts: bool) -> ArrowSplit:
    """The tables of a data set with the columns of catalogue fields, of optional ones where the tables have them."""
    spec, data = CATALOG[name], model.settings.data
    columns = spec.columns(frozenset(fields))
    tables = open_tables(data, name, spec, columns, read_texts=read_texts)
    more = {spec.fields[one].name for one in fields if spec.fields[one].optional and tables.provides(one)}
    return open_tables(data, name, spec, columns | more, read_texts=read_texts) if more else tables


def _read(model: Model, name: str, fields: Mapping[str, Field]) -> set[str]:
    """The catalogue's fields that a head is asked with."""
    head = model.module.objectives[name]
    read = {_field_of(*one) for one in fields.items()}
    if "named_boxes" in fields:
        read |= {"boxes", *OBJECTS, *TAGS}
    return read | ({*head.options.ids, *head.options.described_by, head.options.label} if chooses(head) else set())


def _field_of(name: str, wanted: Field) -> str:
    """The catalogue's field for a field of requests."""
    if name == "boxes":
        return "target_boxes" if wanted.required else "boxes"
    return _COLUMNS.get(name, name)


def _answering(model: Model, about: str, heads: Heads, num_images: int, known: Collection[str]) -> Heads:
    """The heads that can be asked where these fields of the catalogue are known, and "text". Raises UserError for none."""
    lacking = {name: list(_missing(fields, num_images, known)) for name, fields in heads.items()}
    if all(lacking.values()):
        each = "; ".join(f"{name} wants {', '.join(missing)}" for name, missing in lacking.items())
        raise UserError(
            f"{model.named_heads}, none of which can be asked about {about}: {each or 'they do not answer'}"
        )
    return {name: fields for name, fields in heads.items() if not lacking[name]}


def _missing(fields: Mapping[str, Field], num_images: int, known: Collection[str]) -> Iterator[str]:
    """What a head lacks to be asked, in words."""
    for name, field in fields.items():
        if name == "named_boxes":
            if not {"boxes", "text_tags", "option_tags"} <= set(known):
                yield "words that name boxes"
        elif name == "images":
            if num_images != field.count and (num_images or field.required):
                yield f"{field.count} {'image' if field.count == 1 else 'images'}"
        elif field.required and not (_field_of(name, field) in known or field.choices):
            yield name
    if num_images and "images" not in fields:
        yield "no image"
