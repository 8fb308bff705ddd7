"""NLVR2: is a sentence true of two images? (Suhr et al. 2019)"""

import csv
import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning.utilities import rank_zero_warn

from vlc.data.batch import Batch
from vlc.data.parts import Field, Part
from vlc.model.passes import Pass
from vlc.model.segments import Encoded
from vlc.objectives.base import (
    Answer,
    HeadOptions,
    Objective,
    Outcome,
    accuracy,
    classifier,
    mean_ratio,
    most_probable,
)

# SPLIT-SET-PAIR-SENTENCE; a sentence of a set comes with several pairs.
_IDENTIFIER = re.compile(r"(.+)-(\d+)-\d+-(\d+)", re.DOTALL)

_IMAGES = tuple(Pass(("text", image), pooled_only=True) for image in ("image", "image_1"))


class NLVR2(Objective):
    """The sentence with the left and with the right image, both pooled features together classified; logits (B, 2).

    Class 1 = true. The images carry token types 1 and 2.
    """

    images = 2
    metrics = ("loss", "accuracy")
    headline = "accuracy"
    task_head = True

    @classmethod
    def parts(cls, options: Any) -> tuple[Part, ...]:
        return Field("truth"), Field("identifier", "always"), Field("statement_type", "where_provided")

    def __init__(self, options: HeadOptions):
        super().__init__(options)
        self.classifier = classifier(2 * options.width, 2 * options.width, 2)

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        return _IMAGES

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        logits = self.classifier(torch.cat([encoded[one].pooled for one in _IMAGES], dim=-1))
        labels = batch.parts.get("truth")
        if labels is None:
            return Outcome(None, {}, logits)
        loss = F.cross_entropy(logits.float(), labels)
        return Outcome(loss, {"loss": mean_ratio(loss, len(labels)), "accuracy": accuracy(logits, labels)}, logits)

    def predict(self, outcome: Outcome, batch: Batch) -> list[dict[str, Any]]:
        """identifier of the sentence, answer, and on labelled splits whether it is right, by which type if they have it."""
        said = outcome.logits.argmax(1)
        columns = {"identifier": batch.parts["identifier"], "answer": said.bool().tolist()}
        if outcome.loss is not None:
            columns["right"] = (said == batch.parts["truth"]).tolist()
            columns |= {name: batch.parts[name] for name in ("statement_type",) if name in batch.parts}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def answers_for(
        self, encoded: Mapping[Pass, Encoded], batch: Batch, token_name: Callable[[int], str]
    ) -> list[Answer]:
        names = ("False", "True")
        return [Answer(most_probable(self(encoded, batch).logits[0].float().softmax(0), lambda label: names[label]))]

    def summary(self, records: list[dict[str, Any]]) -> dict[str, float]:
        """Consistency: the share of sentences that are judged rightly of every pair of images they come with.

        And the accuracy of each type of statement. Consistency counts the sentences whose identifiers tell which pairs
        belong together, as NLVR2's do (SPLIT-SET-PAIR-SENTENCE, such as dev-850-0-1); a warning tells of others.
        """
        unnamed: list[str] = []
        judged: dict[str, list[bool]] = {}
        by_type: dict[str, list[bool]] = {}
        for record in records:
            if "right" in record:
                named = _IDENTIFIER.fullmatch(str(record["identifier"]))
                if named is None:
                    unnamed.append(str(record["identifier"]))
                else:
                    judged.setdefault("-".join(named.groups()), []).append(record["right"])
            if record.get("statement_type") is not None:
                by_type.setdefault(f"accuracy/{record['statement_type']}", []).append(record["right"])
        if unnamed:
            rank_zero_warn(
                f"NLVR2's consistency leaves out {len(unnamed)} of {len(records)} sentences: identifiers such as "
                f"{unnamed[0]!r} do not tell set, pair and sentence as dev-850-0-1 does"
            )
        values = {name: sum(hits) / len(hits) for name, hits in sorted(by_type.items())}
        return values | ({"consistency": sum(map(all, judged.values())) / len(judged)} if judged else {})

    def submission(self, records: list[dict[str, Any]]) -> tuple[str, str]:
        """The public scorer's CSV: identifier,True or False."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows((record["identifier"], record["answer"]) for record in records)
        return "csv", text.getvalue()
