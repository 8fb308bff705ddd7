"""The answered examples of an evaluated split, which a test leaves in its log folder for `run.py report`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from vlc.common.errors import UserError
from vlc.data.batch import Batch
from vlc.data.images import open_image, to_pil
from vlc.data.samples import Samples
from vlc.evaluation.predictions import write_text
from vlc.hardware.distributed import gather_lists, is_first_process
from vlc.objectives.base import Answer, Objective, Outcome, Truth

FILE = "examples.jsonl"
_SHOWN, _DIGITS = 5, 5  # choices that are kept of an answer; digits of a number
# What describes examples of any head, where the records or the data have it.
_ALWAYS_DESCRIBED = ("lang", "target_lang")


class Place(NamedTuple):
    """Where an example lies in the data, and the head that answered: the same for two models.

    table, row: the stem of its file, and the row there.
    text, second: the numbers of its text, and of the second text of a pair or -1.
    """

    head: str
    table: str
    row: int
    text: int
    second: int


@dataclass(frozen=True)
class Example:
    """An example with the answer of a head.

    task: the name of the task; empty: the flat keys describe it.
    number: of the sample in its split.
    choices: the answers with their values, the best first.
    sure: whether the values are probabilities.
    truth: the right answer, for a reader.
    score: how right the best answer is, from 0 to 1; None where the head does not count it.
    about: what describes the example, as texts by field.
    boxes, meant: where answers are boxes, those of the choices and those that are meant, in pixels of the picture.
    """

    task: str
    split: str
    number: int
    place: Place
    choices: Sequence[tuple[str, float]]
    sure: bool
    truth: str
    score: float | None
    about: Mapping[str, str] = field(default_factory=dict)
    boxes: Sequence[Sequence[float]] = ()
    meant: Sequence[Sequence[float]] = ()

    @property
    def answer(self) -> str:
        """The best choice."""
        return self.choices[0][0]

    @property
    def confidence(self) -> float | None:
        """The probability of the best choice; None where the head says none."""
        return self.choices[0][1] if self.sure else None


def examples_of(
    task: str, head: str, objective: Objective, outcome: Outcome, batch: Batch, samples: Samples
) -> list[Example]:
    """Return the examples of a labelled batch of a split; none where the head judges no single answers."""
    truths = objective.truths(outcome, batch)
    answers = objective.answers(outcome, batch) if truths else []
    numbers = batch.index.tolist()
    return (
        [
            _example(task, head, objective, number, samples, answer, truth)
            for number, answer, truth in zip(numbers, answers, truths, strict=True)
        ]
        if truths
        else []
    )


def _example(
    task: str, head: str, objective: Objective, number: int, samples: Samples, answer: Answer, truth: Truth
) -> Example:
    source, where = samples.locate(number)
    table, row = source.table_and_row(where)
    record, described = answer.record or {}, getattr(objective.options, "described_by", ())
    about = {name: str(record[name]) for name in (*described, *_ALWAYS_DESCRIBED) if record.get(name) is not None}
    if "lang" in source.spec.fields and source.provides("lang"):
        about["lang"] = source.field(where, "lang")
    return Example(
        task,
        samples.called,
        number,
        Place(head, Path(table).name, row, where.text, where.second),
        [(name, _short(value)) for name, value in answer.choices[:_SHOWN]],
        answer.unit == "probability",
        truth.text,
        None if truth.score is None else _short(truth.score),
        about,
        [list(map(_short, box)) for box in answer.boxes[:_SHOWN]],
        [list(map(_short, box)) for box in truth.boxes],
    )


def pictures_of(samples: Samples, number: int) -> list[Image.Image]:
    """Return the pictures of a sample, as they are stored. Raises UndecodableImage."""
    source, where = samples.locate(number)
    return [to_pil(open_image(source.image(where, column))) for column in source.spec.images]


def text_of(samples: Samples, number: int) -> str:
    """Return the text of a sample for a reader, with what stands beside it; empty where texts are not read."""
    if samples.preparation.text_encoder is None:
        return ""
    row = samples.preparation.row(*samples.locate(number))
    texts = (" · ".join(filter(_is_text, value)) if isinstance(value, list) else value for value in row.values())
    return "\n".join(filter(_is_text, texts))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def write_examples(examples: list[Example], folder: str | Path) -> None:
    """Gather the examples of all processes, and write FOLDER/examples.jsonl on rank 0, a line for each."""
    examples = gather_lists(examples)
    if examples and is_first_process():
        lines = (json.dumps(asdict(one) | {"place": one.place}, ensure_ascii=False) for one in examples)
        write_text(Path(folder) / FILE, "".join(f"{line}\n" for line in lines))


def read_examples(path: Path) -> list[Example]:
    """Read a file of examples. Raises UserError where it is damaged, or another version wrote it."""
    try:
        return list(_parsed(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UserError(f"{path} does not hold the examples of a test ({error}): test again") from error


def _parsed(lines: Iterable[str]) -> Iterable[Example]:
    for line in lines:
        values = json.loads(line)
        choices = [(name, value) for name, value in values.pop("choices")]
        yield Example(**values | {"place": Place(*values["place"]), "choices": choices})
