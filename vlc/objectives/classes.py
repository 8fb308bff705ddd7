"""Classes: a text and its images are sorted into a few named classes, as in NLVR2 (Suhr et al. 2019)."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from vlc.data.batch import Batch
from vlc.data.parts import Boxes, Field, Part, Regions
from vlc.model.passes import Pass
from vlc.model.regions import RegionPooler
from vlc.model.segments import Encoded
from vlc.objectives.base import (
    Answer,
    ModelContext,
    Objective,
    Outcome,
    Truth,
    accuracy,
    classifier,
    mean_ratio,
    most_probable,
    with_records,
)
from vlc.objectives.options import ClassesOptions

_BOX = "box"  # the part of a batch with the boxes that texts are about


class Classes(Objective[ClassesOptions]):
    """The text with each image, the pooled features of the passes together classified; logits (B, classes).

    The images carry token types 1 and 2. Where a text is about a box, as in GuessWhat's oracle (de Vries et al. 2017), the
    feature that `RegionPooler` makes of it is classified too.
    """

    metrics = ("loss", "accuracy")
    headline = "accuracy"
    task_head = True
    writes_records = True

    @classmethod
    def parts(cls, options: ClassesOptions) -> tuple[Part, ...]:
        described = (Field(name, "where_provided") for name in options.described_by)
        boxes = (Boxes(_BOX, (options.box,), given=True),) if options.box else ()
        return Field(options.labels), Field(options.ids, "always"), *boxes, *described

    @classmethod
    def num_images(cls, options: ClassesOptions) -> int:
        return options.images

    def __init__(self, options: ClassesOptions, context: ModelContext):
        super().__init__(options, context)
        names = ("image", *(f"image_{number}" for number in range(1, options.images)))
        self._passes = tuple(Pass(("text", name), pooled_only=not options.box) for name in names)
        num_features = options.images + bool(options.box)
        self.pooler = RegionPooler(context.width) if options.box else None
        self.classifier = classifier(num_features * context.width, 2 * context.width, len(options.names))

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        return self._passes if self._has_boxes(batch) else ()

    def _has_boxes(self, batch: Batch) -> bool:
        """Whether the batch has the boxes that the texts are about, if they are about boxes."""
        return self.pooler is None or _BOX in batch.parts

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        if not self._has_boxes(batch):
            return Outcome(None)
        features = [encoded[one].pooled for one in self._passes]
        if self.pooler is not None:
            features.append(self._box_features(encoded[self._passes[0]], batch.parts[_BOX]))
        logits = self.classifier(torch.cat(features, dim=-1))
        labels = batch.parts.get(self.options.labels)
        if labels is None:
            return Outcome(None, {}, logits)
        if self.options.loss == "bce":
            loss = F.binary_cross_entropy_with_logits(logits.float(), F.one_hot(labels, logits.shape[1]).float())
        else:
            loss = F.cross_entropy(logits.float(), labels)
        ratios = {"loss": mean_ratio(loss, len(labels)), "accuracy": accuracy(logits, labels)}
        return Outcome(loss, ratios, logits, chance=(len(labels) / logits.shape[1], len(labels)))

    def _box_features(self, encoded: Encoded, regions: Regions) -> Tensor:
        """The feature of the first box of each example, (B, D) float32; zeros where it is not in the image."""
        assert self.pooler is not None
        image, patch_size = encoded.segment("image"), self.context.size.patch_size
        first = self.pooler(image, regions.boxes[:, :1], regions.sizes, patch_size)[:, 0]
        return first * regions.mask[:, :1]

    def answers(self, outcome: Outcome, batch: Batch, token_name: Callable[[int], str] = str) -> list[Answer]:
        """The classes by their probability.

        Records have identifier, name of the class and probabilities by label. On labelled splits they also have whether the
        answer is right, the name of the true class (`gold`), and what describes the example.
        """
        if not self._has_boxes(batch):
            return []
        options, names = self.options, self.options.names
        probabilities = outcome.logits.float().softmax(1)
        choices = most_probable(probabilities, lambda label: names[label])
        if options.ids not in batch.parts:
            return with_records(choices, None)
        best = outcome.logits.argmax(1)
        columns = {options.ids: batch.parts[options.ids], "answer": [names[label] for label in best.tolist()]}
        columns["probabilities"] = probabilities.tolist()
        if outcome.loss is not None:
            labels = batch.parts[options.labels]
            columns |= {"right": (best == labels).tolist(), "gold": [names[label] for label in labels.tolist()]}
            columns |= {name: batch.parts[name] for name in options.described_by if name in batch.parts}
        return with_records(choices, columns)

    def truths(self, outcome: Outcome, batch: Batch) -> list[Truth]:
        """The true classes."""
        if outcome.loss is None:
            return []
        labels = batch.parts[self.options.labels]
        right = (outcome.logits.argmax(1) == labels).float().tolist()
        return [Truth(self.options.names[label], one) for label, one in zip(labels.tolist(), right, strict=True)]
