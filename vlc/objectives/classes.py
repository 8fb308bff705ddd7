"""Classes: a text and its images are sorted into a few named classes, as in NLVR2 (Suhr et al. 2019)."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

from vlc.data.batch import Batch
from vlc.data.parts import Field, Part
from vlc.model.passes import Pass
from vlc.model.segments import Encoded
from vlc.objectives.base import (
    Answer,
    ModelContext,
    Objective,
    Outcome,
    accuracy,
    classifier,
    mean_ratio,
    most_probable,
    with_records,
)
from vlc.objectives.options import ClassesOptions


class Classes(Objective[ClassesOptions]):
    """The text with each image, the pooled features of the passes together classified; logits (B, classes).

    The images carry token types 1 and 2.
    """

    metrics = ("loss", "accuracy")
    headline = "accuracy"
    task_head = True
    writes_records = True

    @classmethod
    def parts(cls, options: ClassesOptions) -> tuple[Part, ...]:
        described = (Field(name, "where_provided") for name in options.described_by)
        return Field(options.labels), Field(options.ids, "always"), *described

    @classmethod
    def num_images(cls, options: ClassesOptions) -> int:
        return options.images

    def __init__(self, options: ClassesOptions, context: ModelContext):
        super().__init__(options, context)
        names = ("image", *(f"image_{number}" for number in range(1, options.images)))
        self._passes = tuple(Pass(("text", name), pooled_only=True) for name in names)
        self.classifier = classifier(options.images * context.width, 2 * context.width, len(options.names))

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        return self._passes

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        logits = self.classifier(torch.cat([encoded[one].pooled for one in self._passes], dim=-1))
        labels = batch.parts.get(self.options.labels)
        if labels is None:
            return Outcome(None, {}, logits)
        if self.options.loss == "bce":
            loss = F.binary_cross_entropy_with_logits(logits.float(), F.one_hot(labels, logits.shape[1]).float())
        else:
            loss = F.cross_entropy(logits.float(), labels)
        return Outcome(loss, {"loss": mean_ratio(loss, len(labels)), "accuracy": accuracy(logits, labels)}, logits)

    def answers(self, outcome: Outcome, batch: Batch, token_name: Callable[[int], str] = str) -> list[Answer]:
        """The classes by their probability.

        Records have identifier, name of the class and probabilities by label. On labelled splits they also have whether the
        answer is right, the name of the true class (`gold`), and what describes the example.
        """
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
