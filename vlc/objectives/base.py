"""The plug between the encoder and what is learnt: views, shared passes, outcomes and the Objective itself."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlc.data.batch import Batch
from vlc.data.parts import Part
from vlc.model.embed import init_bert_weights
from vlc.model.embedded import Embedded, TextTokens, joined, shape
from vlc.model.encoder import Encoded, Encoder
from vlc.model.sizes import EncoderSize
from vlc.objectives.matching import Pairs, pairs


@dataclass(frozen=True)
class View:
    """Names one encoder pass over a batch. Equal views in one step are computed once.

    masked_text: the text with hidden tokens. image: which of the K images. matching: the images of the batch's `Pairs`
    instead. draw: which row of patch noise.
    """

    masked_text: bool = False
    image: int = 0
    matching: bool = False
    draw: int = 0


class Passes:
    """The encoder bound to one batch: objectives that ask for the same view share its cost.

    dropped_ratio: share of patches that every pass drops, for batches that bring patch noise. views: what will be asked
    for, pooled_views: what of which only the pooled feature will be; passes of equal shape are then one, of a larger
    batch, whose products are faster and whose weights have one gradient.
    """

    def __init__(
        self,
        encoder: Encoder,
        batch: Batch,
        dropped_ratio: float = 0.0,
        views: Iterable[View] = (),
        pooled_views: Iterable[View] = (),
    ):
        self.encoder, self.batch, self.dropped_ratio = encoder, batch, dropped_ratio
        self._views = tuple(views)
        self._pooled_views = tuple(view for view in pooled_views if view not in self._views)
        self._seen: dict[Any, Any] = {}

    def __call__(self, view: View = View()) -> Encoded:
        """The whole pass."""
        if view not in self._seen:
            together, parts = self._of_equal_shape(view, self._views)
            encoded = self.encoder.fuse(*joined(parts)).split(len(together))
            self._seen |= zip(together, encoded, strict=True)
        return self._seen[view]

    def pooled(self, view: View = View()) -> Tensor:
        """The pooled feature (B, D) of a pass; where nothing else of it is read, it costs less than the whole pass."""
        if view in self._seen or view in self._views:
            return self(view).pooled
        key = ("pooled", view)
        if key not in self._seen:
            together, parts = self._of_equal_shape(view, self._pooled_views)
            pooled = self.encoder.fuse_pooled(*joined(parts)).chunk(len(together))
            self._seen |= zip((("pooled", one) for one in together), pooled, strict=True)
        return self._seen[key]

    @property
    def pairs(self) -> Pairs:
        """The batch's texts with their own and with other images."""
        return self.once("pairs", lambda: pairs(self.batch))

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """What `make` returns, made the first time that somebody asks for the key."""
        if key not in self._seen:
            self._seen[key] = make()
        return self._seen[key]

    def _of_equal_shape(self, view: View, others: Iterable[View]) -> tuple[list[View], list[Embedded]]:
        """The view and those of the others that can go with it, and what the encoder fuses of each."""
        embedded = {one: self._embedded(one) for one in dict.fromkeys([view, *others])}
        together = [one for one, part in embedded.items() if shape(part) == shape(embedded[view])]
        return together, [embedded[one] for one in together]

    def _embedded(self, view: View) -> Embedded:
        batch, text = self.batch, self._embedded_text(view)
        if batch.images is None:
            return text, None
        if view.matching:
            images, sizes = self.pairs.images, self.pairs.sizes
        else:
            images, sizes = batch.images.at(view.image)
        image = self.encoder.embed_images(
            images,
            sizes=sizes,
            image_type=None if text is None else 1 + view.image,
            mask_ratio=self.dropped_ratio,
            noise=batch.parts.get(f"patch_noise_{view.draw}"),
        )
        return text, image

    def _embedded_text(self, view: View) -> TextTokens | None:
        """A text of the batch; both are embedded together, as each look-up has a gradient for all words."""
        plain, masked = self.batch.text, self.batch.parts.get("masked_text")
        hidden = None if masked is None else masked.text
        text = hidden if view.masked_text else plain
        if text is None:
            return None
        embed = self.encoder.embed_words
        if hidden is None or hidden.ids.shape != plain.ids.shape:
            words = self.once(f"text {view.masked_text}", lambda: embed(text.ids, text.segments))
        else:
            segments = None if plain.segments is None else torch.cat([plain.segments, hidden.segments])
            both = self.once("texts", lambda: embed(torch.cat([plain.ids, hidden.ids]), segments).chunk(2))
            words = both[view.masked_text]
        return TextTokens(words, text.mask, text.num_real)


Ratio = tuple[Tensor, int]  # (sum, count): adds up over steps and processes


@dataclass(frozen=True)
class Outcome:
    """What an objective makes of a batch.

    loss: scalar, unweighted; None on unlabelled splits. metrics: name -> (sum, count). logits: for predictions.
    """

    loss: Tensor | None
    metrics: Mapping[str, Ratio] = field(default_factory=dict)
    logits: Tensor | None = None


@dataclass(frozen=True)
class Reply:
    """What a head says of one example. answers: (answer, value), the best first; unit: what the values are."""

    answers: list[tuple[str, float]]
    unit: str = "probability"
    about: str = ""


@dataclass(frozen=True)
class HeadOptions:
    """What heads are built from.

    answers: the answer vocabulary by label, "" where unknown; data_answers: that of the data, where its labels are others.
    """

    width: int
    vocab_size: int
    num_patches: int
    size: EncoderSize
    mae_weight: float = 1.0
    wpa_weight: float = 0.1
    pad_token_id: int = 0
    num_answers: int = 0
    answers: tuple[str, ...] = ()
    data_answers: tuple[str, ...] = ()


class Objective(nn.Module):
    """A head with its loss, its metrics and its predictions. Knows nothing of trainer or loader.

    images: how many images an example has.
    needs_images: whether it can do nothing with texts alone.
    metrics: the names it reports.
    headline: the metric that selects checkpoints, if any.
    reads_pooled: whether it reads the pooled feature. task_head: whether the head takes the learning-rate factor lr_mult,
    as the published classifiers do. pooled_views: of which `forward` will ask for the pooled feature.
    """

    images: ClassVar[int] = 1
    needs_images: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = ("loss",)
    headline: ClassVar[str | None] = None
    reads_pooled: ClassVar[bool] = True
    task_head: ClassVar[bool] = False
    pooled_views: ClassVar[tuple[View, ...]] = ()

    @classmethod
    def parts(cls, options: Any) -> tuple[Part, ...]:
        """What it wants in its batches beside texts and images; default: nothing.

        options: the values of the configuration that parts depend on, as attributes (`DataSettings` has them).
        """
        return ()

    def __init__(self, options: HeadOptions):
        """Create the parameters of the head."""
        super().__init__()
        self.options = options

    def forward(self, passes: Passes, batch: Batch) -> Outcome:
        raise NotImplementedError

    def views(self, batch: Batch) -> Iterable[View]:
        """The whole passes that `forward` will ask for; default: none."""
        return ()

    def compile_parts(self, **options: Any) -> None:
        """Compile, with options of torch.compile, what gains from it; default: nothing."""

    def predict(self, outcome: Outcome, batch: Batch) -> list[dict[str, Any]]:
        """A record for each example of an evaluated batch; default: nothing to write."""
        return []

    def summary(self, records: list[dict[str, Any]]) -> dict[str, float]:
        """Further metrics of a whole split, from its records."""
        return {}

    def reply(self, passes: Passes, batch: Batch, word: Callable[[int], str]) -> list[Reply]:
        """What the head says of a batch of one example without supervision; default: nothing.

        word: what a token id stands for.
        """
        return []

    def submission(self, records: list[dict[str, Any]]) -> tuple[str, str]:
        """The records as the task's evaluation server or scorer takes them: kind of file, and its content."""
        return "json", to_json(records)


def to_json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1)


def most_probable(probabilities: Tensor, name: Callable[[int], str], count: int = 5) -> list[tuple[str, float]]:
    """The names of the `count` highest of (C,) probabilities, with these."""
    values, labels = probabilities.float().topk(min(count, len(probabilities)))
    return [(name(label), value) for label, value in zip(labels.tolist(), values.tolist(), strict=True)]


def mean_ratio(mean: Tensor, count: int) -> Ratio:
    """A batch mean over `count` items as a ratio that adds up."""
    return mean.detach() * count, count


def accuracy(logits: Tensor, labels: Tensor) -> Ratio:
    """Right arg-maxes and their number; logits (N, C), labels (N,). Of equal logits the first is the answer, as told."""
    return (logits.argmax(dim=-1) == labels).sum(), labels.numel()


def ranked_accuracy(scores: Tensor, own: Tensor) -> Ratio:
    """How many queries score their own candidate above all others, and their number; scores (N, C), own (N,).

    Ties count against us, and so does NaN: the own candidates have places of their own (the first, the diagonal), by
    which an arg-max would favour them.
    """
    right = scores.gather(1, own[:, None])
    return ((~(scores < right)).sum(dim=1) == 1).sum(), own.numel()


def linear_in_float32(layer: nn.Linear, features: Tensor) -> Tensor:
    """The layer in float32, whatever autocast says: in half precision too many scores would be equal."""
    with torch.autocast(features.device.type, enabled=False):
        bias = None if layer.bias is None else layer.bias.float()
        return F.linear(features.float(), layer.weight.float(), bias)


def classifier(in_width: int, hidden_width: int, num_classes: int) -> nn.Sequential:
    """The head of the published tasks: linear, norm, GELU, linear."""
    head = nn.Sequential(
        nn.Linear(in_width, hidden_width), nn.LayerNorm(hidden_width), nn.GELU(), nn.Linear(hidden_width, num_classes)
    )
    return head.apply(init_bert_weights)
