"""Answers as the service sends them."""

from collections.abc import Sequence

from pydantic import BaseModel, Field

from vlc.objectives import base


class Choice(BaseModel):
    """One of the answers that a head weighs."""

    answer: str
    value: float
    box: list[float] | None = Field(
        None, description="Left, top, right and bottom in pixels, where the answer is a box."
    )


class Answer(BaseModel):
    """What a head says."""

    about: str = Field(description="The part of the request that is answered, such as [MASK] 1; empty: all of it.")
    unit: str = Field(description="The unit of the values, such as probability.")
    choices: list[Choice] = Field(description="The best first.")


class Result(BaseModel):
    """The answers to one text, or to the images alone."""

    text: str | None
    answers: list[Answer]


class Answers(BaseModel):
    """The answers of a head, in the order of the texts."""

    task: str = Field(description="The name of the head.")
    model: str = Field(description="The name of the checkpoint.")
    elapsed_ms: float
    results: list[Result]


class Judgement(BaseModel):
    """The answer to a picture and a text."""

    task: str
    label: str = Field(description="The best answer.")
    scores: dict[str, float] = Field(description="The value of each answer.")
    text: str | None
    model: str
    elapsed_ms: float


class Embeddings(BaseModel):
    """Unit vectors of pictures and texts. Inner products are their similarities."""

    model: str
    elapsed_ms: float
    images: list[list[float]]
    texts: list[list[float]]


class Hit(BaseModel):
    """A picture or a text of an index."""

    score: float
    number: int = Field(description="In the index. GET /v1/search/images/{number} shows a picture.")
    source: str = Field(description="The name of the file.")
    dataset: str | None
    row: int | None
    text: str | None


class Hits(BaseModel):
    """What a search found, the best first."""

    model: str
    elapsed_ms: float
    kind: str = Field(description="images or texts.")
    results: list[Hit]


class PictureMap(BaseModel):
    """How much each patch of a picture matters."""

    place: list[float] = Field(description="Left, top, right and bottom of the patches, in pixels of the picture.")
    values: list[list[float]] = Field(description="A value for each patch, by rows.")
    per_word: list[list[list[float]]] | None = Field(description="The values of the patches, for each token.")


class Explained(BaseModel):
    """How much each word and each patch of a picture matters for an answer."""

    model: str
    elapsed_ms: float
    head: str
    method: str
    answer: str
    value: float
    tokens: list[str]
    words: list[float] = Field(description="A value for each token.")
    grid: list[int] = Field(description="Rows and columns of the patches of the first picture.")
    image: list[list[float]] = Field(description="A value for each patch of the first picture, by rows.")
    per_word: list[list[list[float]]] | None = Field(description="The values of these patches, for each token.")
    maps: list[PictureMap] = Field(description="The patches of each picture.")


class FieldDescribed(BaseModel):
    """A field of a request."""

    required: bool
    about: str
    choices: list[str]
    count: int | None = Field(description="How many are wanted, of pictures or boxes.")


class HeadDescribed(BaseModel):
    """What a head takes."""

    path: str
    task: str
    model: str
    fields: dict[str, FieldDescribed]


class Heads(BaseModel):
    """All heads, and what else is served."""

    heads: list[HeadDescribed]
    embed: bool
    search: list[str] = Field(description="What the index holds: images, texts.")
    explain: list[str] = Field(description="Its methods; the first one is used where none is named.")


class Health(BaseModel):
    """Whether the service lives, or takes requests."""

    status: str


def result(text: str | None, answers: Sequence[base.Answer]) -> Result:
    """The answers of a head to one text."""
    return Result(text=text, answers=[_answer(one) for one in answers])


def _answer(one: base.Answer) -> Answer:
    boxes: list[list[float] | None] = [list(map(float, box)) for box in one.boxes]
    boxes = boxes or [None] * len(one.choices)
    choices = [Choice(answer=name, value=value, box=box) for (name, value), box in zip(one.choices, boxes, strict=True)]
    return Answer(about=one.about, unit=one.unit, choices=choices)
