"""`python run.py predict` over whole data sets: the answers of every head to the texts of all rows, as tables."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from torch.utils.data import DataLoader, Dataset

from vlc.common.errors import UserError, require
from vlc.configuration.use_settings import UseSettings
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.geometry import Shown
from vlc.data.images import Picture, UndecodableImage, open_image
from vlc.data.rows import FolderImages, Location, Texts, digest_of_tables, name_of_row
from vlc.data.workers import worker_options
from vlc.use.cluster import run_on_ray
from vlc.use.forms import Field, Prepared, Request
from vlc.use.images import several
from vlc.use.model import Model, open_pretrained
from vlc.use.results import table_of, tell, write_results
from vlc.use.search.stored import weights_hash
from vlc.use.shards import Failed, Process, Shard
from vlc.use.sources import LeftOut, computed_by, described, open_tables, origin

FORMATS = ("jsonl", "arrow", "parquet")
_ANSWER = pa.struct([("answer", pa.string()), ("value", pa.float64())])
_PLACE = ["image_id", "source", "dataset", "row", "text_number"]
_NUMBERS = {"row": pa.int64(), "text_number": pa.int64()}
_SCHEMA = pa.schema(
    {
        **{name: _NUMBERS.get(name, pa.string()) for name in (*_PLACE, "text", "task", "about", "unit")},
        "answers": pa.list_(_ANSWER),
        "boxes": pa.list_(pa.list_(pa.float64())),
    }
)
# Where the catalogue has the fields of a request, apart from images, texts and boxes.
_COLUMNS = {
    "options": "options",
    "history": "history",
    "caption": "caption",
    "word": "words",
    "language": "target_lang",
    "candidates": "candidates",
}
_OF_ONE_IMAGE = ("image2", "boxes", "picture")  # keys of `UseSettings`


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
        self._tables, self._samples, self._fields = tables, Texts(tables), fields

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> Example:
        rows, where = self._samples.at(number)
        values = {name: rows.field(where, name) for name in sorted(self._fields) if rows.provides(name)}
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

    def __getitem__(self, asked: tuple[Shard, range]) -> tuple[Shard, list[Example], Failed]:
        shard, numbers = asked
        good, failed = [], Failed()
        for number in numbers:
            example = self.examples[number]
            try:
                shown = [self.transform(open_image(image), np.random.default_rng(0)) for image in example.images]
                good.append(example._replace(images=shown))
            except UndecodableImage as error:
                failed.append((self.examples.place(number), str(error)))
        return shard, good, failed


def write_answers(config: Mapping[str, Any], given: Collection[str], process: Process | None = None) -> dict[str, Any]:
    """Write what all heads answer about data sets, or images below a folder; returns the content of OUT/answers.json.

    A row has the answers of a head to a text: its own one, or each of those given as text=. All processes that were started
    together compute them in shards (`vlc.use.shards`), and a call after an interruption goes on. Images that cannot be
    decoded are named, listed in rejected.jsonl and left out, up to a share of max_corrupt_ratio. Raises UserError where no
    head can be asked about a data set, NonFiniteMetric where a value is NaN or infinite.
    """
    use = UseSettings.from_config(config)
    if use.ray:
        content = run_on_ray(write_answers, config, given, use.ray, Path(use.out or ""))
        tell(Path(use.out or ""), "answers", content)
        return content
    if of_one := [key for key in _OF_ONE_IMAGE if getattr(use, key)]:
        raise UserError(f"{of_one[0]} belongs to a single image=FILE, and not to whole data sets: leave it out")
    file_format = use.file_format or "jsonl"
    require(file_format in FORMATS, "file_format", file_format, " or ".join(FORMATS))
    model = open_pretrained(config, given)
    heads = {name: form.fields(model, model.module.objectives[name]) for name, form in model.forms.items()}
    texts = list(several(use.text)) if use.text else []
    askable, examples = _opened(model, use, heads, bool(texts))
    weights = weights_hash(model.module)
    plan = {"command": "predict", "file_format": file_format, "weights": weights, "heads": list(heads), "texts": texts}
    return write_results(
        "answers",
        use.out,
        lambda shards: _computed(model, examples, shards, askable, texts),
        table_of(file_format, _SCHEMA),
        count=len(examples),
        batch=model.settings.data.per_gpu_batchsize,
        suffix=f".{file_format}",
        plan={**plan, **computed_by(model), **origin(config, examples.digest())},
        made_by={"checkpoint": str(model.path.resolve()), "weights": weights, "source": described(config)},
        process=process or Process.launched(),
    )


_Heads: TypeAlias = Mapping[str, Mapping[str, Field]]  # fields of requests that heads read, by head
_Askable: TypeAlias = Mapping[str | None, _Heads]  # by data set; None: images below a folder


def _opened(model: Model, use: UseSettings, heads: _Heads, texts_given: bool) -> tuple[_Askable, Examples]:
    """Open the data, and find out which heads can be asked about them. Raises UserError where none can."""
    data = model.settings.data
    if use.image_folder:
        known = {"text"} if texts_given else set[str]()
        return {None: _answering(model, use.image_folder, heads, 1, known)}, OfFolder(use.image_folder)
    opened, found = [], dict[str | None, _Heads]()
    for name in data.datasets:
        spec = CATALOG[name]
        if spec.labelled:
            raise UserError(f"datasets: {name!r} serves training only: pass image_folder=FOLDER to read its images")
        found[name] = _answering(model, f"data set {name!r}", heads, len(spec.images), {"text", *spec.fields})
        read = {_field_of(*one) for own in found[name].values() for one in own.items()} & spec.fields.keys()
        reads_texts = not texts_given and any("text" in own for own in found[name].values())
        columns = spec.columns(frozenset({*read, "image_id"} & spec.fields.keys()))
        tables = open_tables(data, name, spec, columns, read_texts=reads_texts)
        if "image_id" in spec.fields and tables.provides("image_id"):
            columns = {*columns, spec.fields["image_id"].name}
            tables = open_tables(data, name, spec, columns, read_texts=reads_texts)
        opened.append((tables, read))
    return found, OfTables([tables for tables, _ in opened], {name for _, read in opened for name in read})


def _field_of(name: str, wanted: Field) -> str:
    """The catalogue's field for a field of requests."""
    if name == "boxes":
        return "target_boxes" if wanted.required else "boxes"
    return _COLUMNS.get(name, name)


def _answering(model: Model, about: str, heads: _Heads, num_images: int, known: Collection[str]) -> _Heads:
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
            yield "boxes by words, which data sets name by number"
        elif name == "images":
            if num_images != field.count and (num_images or field.required):
                yield f"{field.count} {'image' if field.count == 1 else 'images'}"
        elif field.required and not (_field_of(name, field) in known or field.choices):
            yield name
    if num_images and "images" not in fields:
        yield "no image"


def _computed(
    model: Model, examples: Examples, shards: Iterator[Shard], askable: _Askable, texts: Sequence[str]
) -> Iterator[tuple[Shard, list[dict[str, Any]], Failed]]:
    data = model.settings.data
    parts = ((shard, part) for shard in shards for part in shard.batches(data.per_gpu_batchsize))
    readable, left_out = _Decoded(examples, model.transform), LeftOut(data.max_corrupt_ratio)
    for shard, good, failed in DataLoader(readable, None, sampler=parts, **worker_options(data.stated_workers)):
        left_out.add(failed, len(good) + len(failed))
        yield shard, _answers(model, good, askable, texts), failed


def _answers(
    model: Model, examples: Sequence[Example], askable: _Askable, texts: Sequence[str]
) -> list[dict[str, Any]]:
    """The rows of a batch of examples: by example, then by text, then by head."""
    found: list[tuple[tuple[int, int], dict[str, Any]]] = []
    for name in dict.fromkeys(name for heads in askable.values() for name in heads):
        places, prepared = [], []
        for number, example in enumerate(examples):
            for text, request in _requests(example, askable[example.about[2]].get(name), texts):
                places.append((number, text))
                prepared.append(_prepared(model, name, request, example))
        for place, asked, answers in zip(places, prepared, model.ask(name, prepared), strict=True):
            for one in answers:
                said = {"text": asked.request.text, "task": name, "about": one.about, "unit": one.unit}
                about = dict(zip(_PLACE, examples[place[0]].about, strict=True))
                found.append((place, about | said | {"answers": one.choices, "boxes": one.boxes}))
    return [row for _, row in sorted(found, key=itemgetter(0))]  # stable: the order of heads stays


def _prepared(model: Model, name: str, request: Request, example: Example) -> Prepared:
    try:
        return model.prepare(name, request)
    except UserError as error:
        _, source, _, row, _ = example.about
        raise UserError(f"{Location(source, row=row)}: {name} cannot be asked ({error})") from error


def _requests(
    example: Example, fields: Mapping[str, Field] | None, texts: Sequence[str]
) -> Iterator[tuple[int, Request]]:
    """What a head is asked about an example, with the number of the text: in each language that the data do not choose."""
    if fields is None:
        return
    values = {
        name: example.values[key] for name, own in fields.items() if (key := _field_of(name, own)) in example.values
    }
    if "history" in values:
        values["history"] = list(zip(values["history"][::2], values["history"][1::2], strict=False))
    if "text" not in fields and example.about[-1]:
        return  # a head that reads no text is asked at the first one of a row
    languages = fields["language"].choices if "language" in fields and "language" not in values else ()
    for number, text in enumerate(texts if texts and "text" in fields else [values.get("text")]):
        for language in languages or (values.get("language", ""),):
            yield number, Request(example.images, **{**values, "text": text, "language": language})
