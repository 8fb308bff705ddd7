"""NLVR2: is a sentence true of two images? (Suhr et al. 2019)"""

import csv
import io
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from vlc.data.batch import Batch, Needs
from vlc.objectives.base import (
    HeadOptions,
    Objective,
    Outcome,
    Passes,
    Reply,
    View,
    accuracy,
    classifier,
    mean_ratio,
    most_probable,
)


class NLVR2(Objective):
    """The sentence with the left and with the right image, both pooled features together classified; logits (B, 2).

    Class 1 = true. The images carry token types 1 and 2.
    """

    needs = Needs(
        fields=frozenset({"truth"}), ids=frozenset({"identifier"}), optional=frozenset({"statement_type"}), images=2
    )
    metrics = ("loss", "accuracy")
    headline = "accuracy"
    task_head = True
    pooled_views = (View(image=0), View(image=1))

    def __init__(self, options: HeadOptions):
        super().__init__(options)
        self.classifier = classifier(2 * options.width, 2 * options.width, 2)

    def forward(self, passes: Passes, batch: Batch) -> Outcome:
        pooled = [passes.pooled(view) for view in self.pooled_views]
        logits = self.classifier(torch.cat(pooled, dim=-1))
        labels = batch.fields.get("truth")
        if labels is None:
            return Outcome(None, {}, logits)
        loss = F.cross_entropy(logits.float(), labels)
        return Outcome(loss, {"loss": mean_ratio(loss, len(labels)), "accuracy": accuracy(logits, labels)}, logits)

    def predict(self, outcome: Outcome, batch: Batch) -> list[dict[str, Any]]:
        """identifier of the sentence, answer, and on labelled splits whether it is right, by which type if they have it."""
        said = outcome.logits.argmax(1)
        columns = {"identifier": batch.fields["identifier"], "answer": said.bool().tolist()}
        if outcome.loss is not None:
            columns["right"] = (said == batch.fields["truth"]).tolist()
            columns |= {name: batch.fields[name] for name in self.needs.optional if name in batch.fields}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def reply(self, passes: Passes, batch: Batch, word: Callable[[int], str]) -> list[Reply]:
        names = ("False", "True")
        return [Reply(most_probable(self(passes, batch).logits[0].float().softmax(0), lambda label: names[label]))]

    def summary(self, records: list[dict[str, Any]]) -> dict[str, float]:
        """Consistency: the share of sentences that are judged rightly of every pair of images they come with.

        And the accuracy of each type of statement.
        """
        judged: dict[str, list[bool]] = {}
        by_type: dict[str, list[bool]] = {}
        for record in records:
            if "right" in record:
                split, group, _, sentence = record["identifier"].rsplit("-", 3)
                judged.setdefault(f"{split}-{group}-{sentence}", []).append(record["right"])
            if record.get("statement_type") is not None:
                by_type.setdefault(f"accuracy/{record['statement_type']}", []).append(record["right"])
        values = {name: sum(hits) / len(hits) for name, hits in sorted(by_type.items())}
        return values | ({"consistency": sum(map(all, judged.values())) / len(judged)} if judged else {})

    def submission(self, records: list[dict[str, Any]]) -> tuple[str, str]:
        """The public scorer's CSV: identifier,True or False."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows((record["identifier"], record["answer"]) for record in records)
        return "csv", text.getvalue()
