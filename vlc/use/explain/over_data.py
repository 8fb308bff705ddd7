"""`python run.py explain` over whole data sets: the map of every answer in tables, and pictures of the first ones."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from vlc.common.errors import require
from vlc.common.files import write_atomically
from vlc.configuration.use_settings import UseSettings
from vlc.data.images import to_pil
from vlc.evaluation.metrics import check_finite
from vlc.use.answers import FORMATS, PLACE
from vlc.use.cluster import run_on_ray
from vlc.use.explain.explain import explain, explainable
from vlc.use.explain.explanation import Explanation
from vlc.use.explain.methods import DEFAULT, METHODS
from vlc.use.images import picture_of
from vlc.use.model import open_pretrained
from vlc.use.results import table_of, tell, write_results
from vlc.use.search.stored import weights_hash
from vlc.use.shards import Failed, Process, Shard
from vlc.use.sources import computed_by, described, origin
from vlc.use.stored import Asking, Example, located

PICTURES = "pictures"  # folder below the tables
_NUMBERS = {"row": pa.int64(), "text_number": pa.int64()}
_NAMES = (*PLACE, "text", "task", "method", "answer", "unit")
_MAP = pa.struct([("rows", pa.int32()), ("columns", pa.int32()), ("values", pa.list_(pa.float32()))])
_SCHEMA = pa.schema(
    {
        **{name: _NUMBERS.get(name, pa.string()) for name in _NAMES},
        "score": pa.float64(),
        "value": pa.float64(),
        "box": pa.list_(pa.float64()),
        "tokens": pa.list_(pa.string()),
        "words": pa.list_(pa.float32()),
        "maps": pa.list_(_MAP),
        "pictures": pa.list_(pa.string()),
    }
)


def write_explanations(
    config: Mapping[str, Any], given: Collection[str], process: Process | None = None
) -> dict[str, Any]:
    """Write why each head gives its best answers about data sets, or images below a folder.

    A row has the explanation of an answer: its place in the data, the answer with its score, how much each token and each
    patch matters, and the files of the pictures, which the first `limit` examples have. Returns the content of
    OUT/explanations.json. Processes, interruptions, images that cannot be decoded and errors are those of
    `vlc.use.answers.write_answers`; besides, UserError is raised where no head can be explained.
    """
    use = UseSettings.from_config(config)
    folder = Path(use.out or "")
    if use.ray:
        content = run_on_ray(write_explanations, config, given, use.ray, folder)
        tell(folder, "explanations", content)
        return content
    method, file_format = use.method or DEFAULT, use.file_format or "arrow"
    require(method in METHODS, "method", method, f"one of {', '.join(METHODS)}")
    require(file_format in FORMATS, "file_format", file_format, " or ".join(FORMATS))
    model = open_pretrained(config, given)
    asking = Asking.opened(model, use, explainable(model))
    weights = weights_hash(model.module)
    plan = {"command": "explain", "method": method, "limit": use.limit, "file_format": file_format, "weights": weights}
    return write_results(
        "explanations",
        use.out,
        lambda shards: _computed(asking, shards, method, folder, use.limit),
        table_of(file_format, _SCHEMA),
        count=len(asking.examples),
        batch=model.settings.data.per_gpu_batchsize,
        suffix=f".{file_format}",
        plan={**plan, "texts": asking.texts, **computed_by(model), **origin(config, asking.examples.digest())},
        made_by={"checkpoint": str(model.path.resolve()), "weights": weights, "source": described(config)},
        process=process or Process.launched(),
        beside=(PICTURES,),
    )


def _computed(
    asking: Asking, shards: Iterator[Shard], method: str, folder: Path, limit: int
) -> Iterator[tuple[Shard, list[dict[str, Any]], Failed]]:
    size = asking.model.settings.data.per_gpu_batchsize
    parts = (((shard, part), part) for shard in shards for part in shard.batches(size))
    for (shard, part), good, failed in asking.decoded(parts):
        lost = {place for place, _ in failed}
        numbers = [number for number in part if not lost or asking.examples.place(number) not in lost]
        rows: list[dict[str, Any]] = []
        for number, example in zip(numbers, good, strict=True):
            shown = folder / PICTURES / f"{number:07}" if number < limit else None
            rows += _rows(asking, method, example, number, shown)
        yield shard, rows, failed


def _rows(asking: Asking, method: str, example: Example, number: int, shown: Path | None) -> Iterator[dict[str, Any]]:
    """The rows of an example: by text, then by head.

    number: of the example.
    shown: how the names of its pictures begin; None: it gets none.
    """
    asked = [(place, name, one) for name in asking.heads for place, one in asking.requests(name, example)]
    pictures = []
    if shown is not None:
        pictures = [to_pil(picture_of(image)) for image in asking.examples[number].images]
    for place, name, request in sorted(asked, key=lambda one: one[0]):  # stable: the order of heads stays
        with located(name, example):
            found = explain(asking.model, name, request, method)
        maps = [own.values for own in found.maps]
        check_finite({f"the explanation of {name}": torch.from_numpy(found.words), "value": torch.tensor(found.value)})
        check_finite({f"the map of {name}": torch.cat([torch.from_numpy(own).flatten() for own in maps])})
        about = "_".join(filter(None, (str(place), name, request.language)))
        yield {
            **dict(zip(PLACE, example.about, strict=True)),
            **{"text": request.text, "task": name, "method": method, "answer": found.answer},
            **{"unit": found.unit, "score": found.score, "value": found.value, "box": found.box},
            **{"tokens": found.tokens, "words": found.words.tolist()},
            "maps": [dict(zip(_MAP.names, (*own.shape, own.flatten().tolist()), strict=True)) for own in maps],
            "pictures": [] if shown is None else _drawn(found, pictures, shown.with_name(f"{shown.name}_{about}")),
        }


def _drawn(found: Explanation, pictures: list[Any], path: Path) -> list[str]:
    """Write the heat map of each image; returns the names of the files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = []
    for number, picture in enumerate(pictures[: len(found.maps)]):
        name = re.sub(r"[^\w.-]", "_", path.name) + (f"_{number + 1}" if number else "") + ".png"
        with write_atomically(path.with_name(name)) as partial:
            found.overlay(picture, number=number).save(partial, "PNG")
        names.append(f"{PICTURES}/{name}")
    return names
