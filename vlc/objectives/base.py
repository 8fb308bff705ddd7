"""The base of all objectives: an objective declares encoder passes, receives them, and returns an outcome."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertConfig, BertPredictionHeadTransform

from vlc.data.batch import Batch
from vlc.data.parts import Part
from vlc.data.vocabulary import Vocabulary
from vlc.model.embed import init_bert_weights
from vlc.model.masking import PatchMask
from vlc.model.passes import Pass
from vlc.model.segments import Encoded
from vlc.model.sizes import EncoderConfig
from vlc.objectives.options import Options

POOLED = Pass(pooled_only=True)  # the pooled feature of text and image
OptionsT = TypeVar("OptionsT", bound=Options)
Ratio = tuple[Tensor | float, int]  # (sum, count): adds up over steps and processes


@dataclass(frozen=True)
class Outcome:
    """The result of an objective for a batch.

    loss: scalar, unweighted; None on unlabelled splits.
    metrics: name -> (sum, count).
    logits: for predictions; (0,) where the head can say nothing.
    patches: which patches the encoder did not see, where they are reconstructed.
    chance: (sum, count) of the headline that choices at random would have; None where the head does not choose.
    """

    loss: Tensor | None
    metrics: Mapping[str, Ratio] = field(default_factory=dict)
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    patches: PatchMask | None = None
    chance: Ratio | None = None


@dataclass(frozen=True)
class Answer:
    """A head's answer about an example.

    choices: (answer, value), the best first.
    unit: the unit of the values.
    about: which part of the example the answer is about; empty: all of it.
    example: the number of the example in its batch.
    head: the name of the head.
    boxes: where the choices are boxes, their edges (left, top, right, bottom) in pixels of the picture.
    record: the example's record for the file of a tested split; None: the head writes none.
    """

    choices: list[tuple[str, float]]
    unit: str = "probability"
    about: str = ""
    example: int = 0
    head: str = ""
    boxes: Sequence[tuple[float, ...]] = ()
    record: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Truth:
    """What is right of an example, beside a head's answer.

    text: for a reader; empty where the head cannot say it.
    score: how right the head's best answer is, from 0 to 1, as the headline counts it; None where it does not count it.
    boxes: where a box is meant, its edges (left, top, right, bottom) in pixels of the picture.
    """

    text: str
    score: float | None
    boxes: Sequence[tuple[float, ...]] = ()


@dataclass(frozen=True)
class ModelContext:
    """What a head needs to know about its model.

    vocabulary: the answers by label, for heads that give answers.
    """

    width: int
    vocab_size: int
    num_patches: int
    size: EncoderConfig
    pad_token_id: int = 0
    vocabulary: Vocabulary = field(default_factory=Vocabulary)


class Objective(nn.Module, Generic[OptionsT]):
    """A head with its loss, its metrics and its predictions. It knows neither trainer nor loader.

    needs_images: whether it needs more than texts.
    metrics: the names of the metrics that it reports.
    headline: the metric that selects checkpoints, if any.
    reads_pooled: whether it reads the pooled feature.
    reads_normalised: whether it reads the tokens after the encoder's final norm.
    images_alone: whether it reads no texts. A model whose heads all read none has no text half of the encoder.
    starts_anew: whether training initialises the head, and takes the encoder alone from a checkpoint.
    task_head: whether the head takes the learning-rate factor lr_mult, as the published classifiers do.
    writes_records: whether the answers of a tested split are written into a file.
    answers_from_vocabulary: whether the head has a vocabulary of answers.
    rows_of_pieces: names of its parameters that have a row for each piece of the tokenizer.
    starts_from: names of parameters, and the names of other heads' parameters from which they start where a checkpoint has
        only the latter: from the whole of one with the same shape, otherwise from its row 1.
    """

    needs_images: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = ("loss",)
    headline: ClassVar[str | None] = None
    reads_pooled: bool = True
    reads_normalised: bool = True
    images_alone: ClassVar[bool] = False
    starts_anew: ClassVar[bool] = False
    task_head: ClassVar[bool] = False
    writes_records: bool = False
    answers_from_vocabulary: ClassVar[bool] = False
    rows_of_pieces: ClassVar[tuple[str, ...]] = ()
    starts_from: Mapping[str, str] = {}

    @classmethod
    def parts(cls, options: OptionsT) -> tuple[Part, ...]:
        """Return what the objective wants in its batches beside texts and images; default: nothing."""
        return ()

    @classmethod
    def num_images(cls, options: OptionsT) -> int:
        """Return how many images of an example the objective reads."""
        return 1

    @classmethod
    def num_box_tags(cls, options: OptionsT) -> int | None:
        """Return how many tags name boxes in its texts, 0 where its passes have boxes alone; default: they have none."""
        return None

    @classmethod
    def num_box_classes(cls, options: OptionsT) -> int:
        """Return how many classes of objects the boxes of its passes have; default: 0, they are not read."""
        return 0

    @classmethod
    def num_classes(cls, options: OptionsT) -> int | None:
        """Return the number of classes of labelled images; None: the objective reads no such images."""
        return None

    @classmethod
    def options_of(cls, options: OptionsT, state: Mapping[str, Tensor]) -> OptionsT:
        """Return the options, corrected by what a head's stored parameters show; default: unchanged."""
        return options

    def __init__(self, options: OptionsT, context: ModelContext):
        """Create the parameters of the head."""
        super().__init__()
        self.options, self.context = options, context

    @property
    def hard_negatives(self) -> bool:
        """Whether training draws wrong images and texts anew, by `with_hard_negatives`."""
        return False

    def training_batch(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Return the normalised batch that training uses; default: unchanged.

        rng: the only source of randomness.
        """
        return batch

    def with_hard_negatives(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Batch:
        """Return the batch with other wrong images and texts; encoded has the objective's passes."""
        return batch

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        """Return the encoder passes that `forward` receives; default: the pooled feature of text and image.

        Of a batch without supervision, these are the passes that `answers` needs.
        """
        return (POOLED,)

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        """Return loss, metrics and logits of a batch; encoded has at least the passes that `passes` names.

        Of a batch without supervision there is no loss, and of one that the head can say nothing of there are no logits.
        """
        raise NotImplementedError

    def score(self, pooled: Tensor) -> Tensor:
        """Pooled features (N, D) of text-image pairs -> (N,) float32, the higher the better; of heads that rank pairs."""
        raise NotImplementedError

    def compile_parts(self, **options: Any) -> None:
        """Compile, with options of torch.compile, what gains from it; default: nothing."""

    def answers(self, outcome: Outcome, batch: Batch, token_name: Callable[[int], str] = str) -> list[Answer]:
        """Return the head's answers about the examples of a batch, in their order; default: none.

        outcome: the result of `forward` for the batch.
        token_name: returns the token of an id.
        """
        return []

    def truths(self, outcome: Outcome, batch: Batch) -> list[Truth]:
        """Return what is right of the examples of a labelled batch, in their order; default: none.

        Their mean score is the headline. A head whose headline is no mean over examples has none.

        outcome: the result of `forward` for the batch.
        """
        return []


def most_probable(probabilities: Tensor, name: Callable[[int], str], count: int = 5) -> list[list[tuple[str, float]]]:
    """The names of the `count` highest of each row of (N, C) probabilities, with these."""
    values, labels = probabilities.float().topk(min(count, probabilities.shape[1]))
    rows = zip(labels.tolist(), values.tolist(), strict=True)
    return [[(name(label), value) for label, value in zip(*row, strict=True)] for row in rows]


def with_records(choices: list[list[tuple[str, float]]], columns: Mapping[str, Sequence[Any]] | None) -> list[Answer]:
    """Answers with their records. columns: the values of the records by name; None: the answers have no records."""
    if columns is None:
        return [Answer(own, example=number) for number, own in enumerate(choices)]
    records = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    rows = enumerate(zip(choices, records, strict=True))
    return [Answer(own, example=number, record=record) for number, (own, record) in rows]


def mean_ratio(mean: Tensor, count: int) -> Ratio:
    """A batch mean over `count` items as a ratio that adds up."""
    return mean.detach() * count, count


def accuracy(logits: Tensor, labels: Tensor) -> Ratio:
    """How many arg-maxes are right, and their number; logits (N, C), labels (N,). Of equal logits the first one counts."""
    return (logits.argmax(dim=-1) == labels).sum(), labels.numel()


def ranked_accuracy(scores: Tensor, own: Tensor) -> Ratio:
    """How many queries score their own candidate above all others, and their number; scores (N, C), own (N,).

    Ties and NaN count as wrong. An arg-max would favour the own candidates, because they have fixed places (the first, or
    the diagonal).
    """
    right = scores.gather(1, own[:, None])
    return ((~(scores < right)).sum(dim=1) == 1).sum(), own.numel()


def linear_in_float32(layer: nn.Linear, features: Tensor) -> Tensor:
    """The layer in float32, whatever autocast says: in half precision too many scores would be equal."""
    with torch.autocast(features.device.type, enabled=False):
        bias = None if layer.bias is None else layer.bias.float()
        return F.linear(features.float(), layer.weight.float(), bias)


def mlm_transform(width: int) -> BertPredictionHeadTransform:
    """The layers before the output layer of BERT's masked language modelling: linear, GELU, norm."""
    return BertPredictionHeadTransform(BertConfig(hidden_size=width, num_attention_heads=1))


def classifier(in_width: int, hidden_width: int, num_classes: int) -> nn.Sequential:
    """The head of the published tasks: linear, norm, GELU, linear."""
    head = nn.Sequential(
        nn.Linear(in_width, hidden_width), nn.LayerNorm(hidden_width), nn.GELU(), nn.Linear(hidden_width, num_classes)
    )
    return head.apply(init_bert_weights)
