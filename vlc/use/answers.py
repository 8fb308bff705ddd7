"""`python run.py predict` over whole data sets: the answers of every head to the texts of all rows, as tables."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlc.common.errors import require
from vlc.configuration.use_settings import UseSettings
from vlc.use.cluster import run_on_ray
from vlc.use.model import open_pretrained
from vlc.use.results import table_of, tell, write_results
from vlc.use.search.stored import weights_hash
from vlc.use.shards import Failed, Process, Shard
from vlc.use.sources import computed_by, described, origin
from vlc.use.stored import Asking, Example

FORMATS = ("jsonl", "arrow", "parquet")
_ANSWER = pa.struct([("answer", pa.string()), ("value", pa.float64())])
PLACE = ["image_id", "source", "dataset", "row", "text_number"]
_NUMBERS = {"row": pa.int64(), "text_number": pa.int64()}
_SCHEMA = pa.schema(
    {
        **{name: _NUMBERS.get(name, pa.string()) for name in (*PLACE, "text", "task", "about", "unit")},
        "answers": pa.list_(_ANSWER),
        "boxes": pa.list_(pa.list_(pa.float64())),
    }
)


def write_answers(config: Mapping[str, Any], given: Collection[str], process: Process | None = None) -> dict[str, Any]:
    """Write what all heads answer about data sets, or images below a folder; returns the content of OUT/answers.json.

    A row has the answers of a head to a text: its own one, or each of those given as text=. All processes that were started
    together compute them in shards (`vlc.use.shards`), and a call after an interruption goes on. Images that cannot be
    decoded are named, listed in rejected.jsonl and left out, up to a share of max_corrupt_ratio. Raises UserError where no
    head can be asked about a data set, NonFiniteMetric where a value is NaN or infinite.

    Where a head has records for the file of a tested split, each row has its record, in Arrow and Parquet as JSON.
    """
    use = UseSettings.from_config(config)
    if use.ray:
        content = run_on_ray(write_answers, config, given, use.ray, Path(use.out or ""))
        tell(Path(use.out or ""), "answers", content)
        return content
    file_format = use.file_format or "jsonl"
    require(file_format in FORMATS, "file_format", file_format, " or ".join(FORMATS))
    model = open_pretrained(config, given)
    asking = Asking.opened(model, use, model.forms)
    records = any(model.module.objectives[name].writes_records for name in asking.heads)
    schema = pa.schema([*_SCHEMA, ("record", pa.string())]) if records else _SCHEMA
    weights = weights_hash(model.module)
    plan = {"command": "predict", "file_format": file_format, "weights": weights, "heads": list(model.forms)}
    return write_results(
        "answers",
        use.out,
        lambda shards: _computed(asking, shards, (dict if file_format == "jsonl" else json.dumps) if records else None),
        table_of(file_format, schema),
        count=len(asking.examples),
        batch=model.settings.data.per_gpu_batchsize,
        suffix=f".{file_format}",
        plan={**plan, "texts": asking.texts, **computed_by(model), **origin(config, asking.examples.digest())},
        made_by={"checkpoint": str(model.path.resolve()), "weights": weights, "source": described(config)},
        process=process or Process.launched(),
    )


def _computed(
    asking: Asking, shards: Iterator[Shard], record: Callable[[Any], Any] | None
) -> Iterator[tuple[Shard, list[dict[str, Any]], Failed]]:
    """record: makes the value of the column of records; None: there is none."""
    size = asking.model.settings.data.per_gpu_batchsize
    parts = ((shard, part) for shard in shards for part in shard.batches(size))
    for shard, good, failed in asking.decoded(parts):
        yield shard, _answers(asking, good, record), failed


def _answers(asking: Asking, examples: Sequence[Example], record: Callable[[Any], Any] | None) -> list[dict[str, Any]]:
    """The rows of a batch of examples: by example, then by text, then by head."""
    found: list[tuple[tuple[int, int], dict[str, Any]]] = []
    for name in asking.heads:
        places, prepared = [], []
        for number, example in enumerate(examples):
            for text, request in asking.requests(name, example):
                places.append((number, text))
                prepared.append(asking.prepared(name, request, example))
        for place, asked, answers in zip(places, prepared, asking.model.ask(name, prepared), strict=True):
            for one in answers:
                row = dict(zip(PLACE, examples[place[0]].about, strict=True))
                row |= {"text": asked.request.text, "task": name, "about": one.about, "unit": one.unit}
                row |= {"answers": one.choices, "boxes": one.boxes}
                if record:
                    row["record"] = None if one.record is None else record(one.record)
                found.append((place, row))
    return [row for _, row in sorted(found, key=itemgetter(0))]  # stable: the order of heads stays
