"""Heads as graphs of tensors: what a head computes from token ids and pixels, traced by `torch.export`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from vlc.common.errors import UserError
from vlc.common.inputs import ImageSizes, Text
from vlc.common.terminal import printable
from vlc.data.batch import Batch
from vlc.data.transforms import shaped_size
from vlc.hardware.onednn import without_onednn
from vlc.model.passes import Pass
from vlc.model.segments import Encoded, Segment
from vlc.objectives.answers import Answers
from vlc.objectives.base import Objective
from vlc.objectives.choice import Choice
from vlc.objectives.classes import Classes
from vlc.objectives.image_classes import ImageClasses
from vlc.objectives.itc import IMAGES, ITC, TEXTS
from vlc.objectives.itm import ITM
from vlc.use.model import Model

_EXAMPLES = 2  # of the batch that is traced: torch.export takes 1 as a fixed size
_EXAMPLE_LENGTH = 8
_MOST_EXAMPLES = 4096


@dataclass(frozen=True)
class Output:
    """What the graph of a head returns: values (B, N) float32.

    unit: of the values.
    names: what each of the N values is about; empty for vectors.
    """

    unit: str
    names: tuple[str, ...] = ()


class Graph(nn.Module):
    """A head with the encoder, as a function of tensors.

    Called with the tensors that `inputs` names, it returns values (B, N) float32. `example` describes the tensors.

    name: of the file.
    """

    def __init__(self, model: Model, head_name: str, passes: tuple[Pass, ...], suffix: str = ""):
        super().__init__()
        self.model, self.head_name, self.name = model, head_name, head_name + suffix
        self.encoder, self.head = model.module.encoder, model.module.objectives[head_name]
        self.passes = passes
        self.task = model.task_of(self.head)
        segments = {name for one in passes for name in one.segments}
        self.reads_text, self.num_images = "text" in segments, len(segments - {"text"})
        self.has_sizes = self.num_images > 0 and self.encoder.size.learned_grid is not None
        # Images of several shapes lie in a square that holds all of them, as timm fixes what it takes for their sizes.
        side = self.encoder.image_size
        self.side = max(shaped_size(1, side * side, side)) if self.has_sizes else side
        self.inputs = tuple(self.example)

    @property
    def example(self) -> dict[str, Tensor]:
        """Inputs by name, for two examples.

        ids, mask: (B, L) int64 tokens, and 1 = real token, 0 = padding; L is at most the max_text_len of the model.
        image, image_2: (B, 3, side, side) float32, normalised.
        size, size_2: (B, 2) int64, height and width of each image without its padding, where images have several shapes.
        """
        inputs: dict[str, Tensor] = {}
        if self.reads_text:
            length = min(_EXAMPLE_LENGTH, self._max_text_len)
            ids = torch.ones(_EXAMPLES, length, dtype=torch.int64)
            inputs |= {"ids": ids, "mask": ids.tril(length - 2)}
        for end in ("", "_2")[: self.num_images]:
            inputs[f"image{end}"] = torch.rand(_EXAMPLES, 3, self.side, self.side)
            if self.has_sizes:
                inputs[f"size{end}"] = torch.tensor([[self.side, self.side]] * _EXAMPLES)
        return inputs

    @property
    def free(self) -> dict[str, dict[int, Any]]:
        """Which sizes of the inputs are free, by input and axis."""
        batch, length = Dim("batch", min=1, max=_MOST_EXAMPLES), Dim("length", min=2, max=self._max_text_len)
        return {name: {0: batch, 1: length} if name in ("ids", "mask") else {0: batch} for name in self.inputs}

    @property
    def _max_text_len(self) -> int:
        return self.model.settings.data.max_text_len

    def forward(self, *inputs: Tensor) -> Tensor:
        given = dict(zip(self.inputs, inputs, strict=True))
        encoded = {one: self._encoded(one, given) for one in self.passes}
        return self.values(encoded, Batch(index=inputs[0], split="predict"))

    def values(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Tensor:
        """What the graph returns, from the results of the encoder."""
        if isinstance(self.head, ITM | Choice):  # of a pair alone, without the candidates beside it
            logits = self.head.score(encoded[self.passes[0]].pooled)[:, None]
        else:
            logits = self.head(encoded, batch).logits
        return _KINDS[type(self.head)].values(self.head, logits).float()

    def _encoded(self, one: Pass, given: Mapping[str, Tensor]) -> Encoded:
        segments = [self._text(given) if name == "text" else self._image(name, given) for name in one.segments]
        return self.encoder.encode(segments, pooled_only=one.pooled_only, task=self.task)

    def _text(self, given: Mapping[str, Tensor]) -> Segment:
        languages = None
        if (said := self.model.languages(1)) is not None:
            languages = said.expand(given["ids"].shape[0], -1)
        return self.encoder.embed_text(Text(given["ids"], given["mask"], languages=languages))

    def _image(self, name: str, given: Mapping[str, Tensor]) -> Segment:
        number = int(name.partition("_")[2] or 0)
        end = "_2" if number else ""
        pixels, sizes = given[f"image{end}"], None
        if self.has_sizes:
            sizes = ImageSizes(given[f"size{end}"], self.side**2)
        image_type = None if self.head.images_alone else 1 + number
        return self.encoder.embed_images(pixels, sizes=sizes, image_type=image_type, name=name)


class Vectors(Graph):
    """The embedding of images alone, or of texts alone: unit vectors (B, D)."""

    def values(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Tensor:
        assert isinstance(self.head, ITC)
        of = self.head.text_vectors if self.reads_text else self.head.image_vectors
        return of(encoded[self.passes[0]].pooled)


@dataclass(frozen=True)
class _Kind:
    """How a kind of head is exported.

    values: the head and its logits, of heads that rank pairs their scores (B, 1) -> values (B, N).
    output: what these are.
    lacking: which options of a head cannot be exported; empty: this one can.
    """

    values: Callable[[Any, Tensor], Tensor]
    output: Callable[[Any], Output]
    lacking: Callable[[Any], str] = lambda head: ""


def _answer_names(head: Objective, count: int) -> tuple[str, ...]:
    return tuple(map(head.context.vocabulary.name, range(count)))


def _class_names(head: ImageClasses) -> tuple[str, ...]:
    names = head.context.vocabulary.answers
    return tuple(
        names[label] if label < len(names) and names[label] else str(label) for label in range(head.head.out_features)
    )


_KINDS: dict[type[Objective], _Kind] = {
    Answers: _Kind(
        lambda head, logits: logits.sigmoid() if head.options.loss == "bce" else logits.softmax(1),
        lambda head: Output("probability", _answer_names(head, head.options.num_answers)),
        lambda head: "" if head.reads_pooled else "its texts end with [MASK] (pool=mask)",
    ),
    Classes: _Kind(
        lambda head, logits: logits.softmax(1),
        lambda head: Output("probability", tuple(head.options.names)),
        lambda head: "its texts are about boxes" if head.options.box else "",
    ),
    ImageClasses: _Kind(lambda head, logits: logits.softmax(1), lambda head: Output("probability", _class_names(head))),
    ITM: _Kind(lambda head, logits: logits.sigmoid(), lambda head: Output("probability", ("match",))),
    Choice: _Kind(
        lambda head, logits: logits,
        lambda head: Output("score", ("ranks",)),
        lambda head: (
            "" if not (head.options.candidates or head.options.wrong_translations) else "it chooses among texts"
        ),
    ),
}


def output_of(graph: Graph) -> Output:
    """What the values of a graph are."""
    if isinstance(graph, Vectors):
        return Output("unit vector")
    return _KINDS[type(graph.head)].output(graph.head)


def graphs_of(model: Model) -> tuple[list[Graph], dict[str, str]]:
    """The graphs of all heads that can be exported, and why the others cannot be, by their names.

    The model is changed: its layers are torch's own. Raises UserError where no head can be exported.
    """
    without_onednn(model.module)
    graphs: list[Graph] = []
    left_out: dict[str, str] = {}
    empty = Batch(index=torch.arange(1), split="predict")
    for name, head in model.module.objectives.items():
        if isinstance(head, ITC):
            graphs += [Vectors(model, name, (IMAGES,), "_image"), Vectors(model, name, (TEXTS,), "_text")]
        elif reason := _lacking(head):
            left_out[name] = reason
        else:
            graphs.append(Graph(model, name, head.passes(empty)))
    if not graphs:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise UserError(f"{model.path} has no head that can be exported as a graph ({reasons}). See docs/export.md")
    return graphs, left_out


def _lacking(head: Objective) -> str:
    kind = _KINDS.get(type(head))
    return f"{type(head).__name__} has no graph of fixed steps" if kind is None else kind.lacking(head)


def traced(graph: Graph) -> ExportedProgram:
    """The graph as torch's program, for any number of examples and any length of texts up to the model's max_text_len."""
    example = graph.example
    free = tuple(graph.free.values())
    with torch.no_grad():
        # strict: the encoder asks for the number of examples with len(), which only this mode keeps free.
        return torch.export.export(graph.eval(), tuple(example.values()), dynamic_shapes=(free,), strict=True)


def tell_left_out(left_out: Mapping[str, str]) -> None:
    """Print which heads are left out, and why."""
    for name, reason in left_out.items():
        Console().print(f"left out: {printable(name)}, as {reason}", highlight=False, markup=False, soft_wrap=True)
