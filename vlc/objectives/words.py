"""Words: an ambiguous word of a sentence is translated as the image shows it (multimodal lexical translation).

The task is by Lala and Specia (2018), "Multimodal Lexical Translation".
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlc.data.batch import Batch
from vlc.data.parts import Field, Part
from vlc.data.vocabulary import UNKNOWN, translation_name
from vlc.model.passes import Pass
from vlc.model.segments import Encoded
from vlc.objectives.base import (
    Answer,
    ModelContext,
    Objective,
    Outcome,
    Truth,
    classifier,
    mean_ratio,
    most_probable,
    with_records,
)
from vlc.objectives.options import WordsOptions

_PASS = Pass()  # all tokens of text and image
_MARK = 1  # the tag of the marked word


def marked_state(states: Tensor, tags: Tensor | None) -> Tensor:
    """The mean of the states (B, L, D) at the marked tokens; where a text has none, the state of its first token.

    A text has none where it is empty, or was cut before the word.
    """
    if tags is None:
        return states[:, 0]
    marked = tags == _MARK
    marked[:, 0] = ~marked.any(dim=1)  # [CLS] itself is never marked
    return (states * marked[:, :, None]).sum(1) / marked.sum(1, keepdim=True)


class WordTranslation(Objective[WordsOptions]):
    """Cross entropy over the translations that training knows of the marked word; logits (B, classes), others -inf.

    The classes are all translations of all target languages in training. The word's state, the mean over its pieces, is
    classified. A word of which training knows no translation may become any class. The loss is a mean over the words with
    two translations or more, of which one is the right one, and so is the accuracy: a prediction is right if it is among
    the acceptable translations.
    """

    metrics = ("loss", "accuracy")
    headline = "accuracy"
    reads_pooled = False
    task_head = True
    writes_records = True
    answers_from_vocabulary = True

    @classmethod
    def parts(cls, options: WordsOptions) -> tuple[Part, ...]:
        given = (Field(name, "always") for name in ("words", "target_lang", "candidates", "most_frequent"))
        described = (Field(name, "where_provided") for name in options.described_by)
        return Field("translation"), Field("acceptable"), *given, *described

    def __init__(self, options: WordsOptions, context: ModelContext):
        super().__init__(options, context)
        self._labels = context.vocabulary.labels
        self._size = max(len(context.vocabulary), 1)
        self.classifier = classifier(context.width, 2 * context.width, self._size)

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        return (_PASS,) if "candidates" in batch.parts else ()

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        if "candidates" not in batch.parts:
            return Outcome(None)
        assert batch.text is not None
        logits = self.classifier(marked_state(encoded[_PASS]["text"], batch.text.tags)).float()
        candidates = self._classes(batch, "candidates")
        known = candidates.any(dim=1, keepdim=True)
        logits = logits.masked_fill(~(candidates | ~known).to(logits.device), -torch.inf)
        if "acceptable" not in batch.parts:
            return Outcome(None, {}, logits)
        labels, acceptable = self._right(batch), self._classes(batch, "acceptable")
        counted = candidates.sum(1) > 1
        learnt = counted & (labels != UNKNOWN) & candidates.gather(1, labels.clamp(min=0)[:, None])[:, 0]
        rows = learnt.nonzero()[:, 0]
        number, at = len(rows), rows.to(logits.device)
        # A sum over no words is 0, where their mean would be NaN.
        loss = F.cross_entropy(logits[at], labels[rows].to(logits.device), reduction="sum") / max(number, 1)
        right = acceptable.to(logits.device).gather(1, logits.argmax(1, keepdim=True))[:, 0]
        metrics = {"loss": mean_ratio(loss, number)}
        metrics["accuracy"] = (right & counted.to(logits.device)).sum(), int(counted.sum())
        by_chance = (acceptable & candidates).sum(1) / candidates.sum(1).clamp(min=1)
        return Outcome(loss, metrics, logits, chance=(by_chance[counted].sum(), int(counted.sum())))

    def _classes(self, batch: Batch, field: str) -> Tensor:
        """(B, classes) bool, on the host: the classes of the translations that a field lists for each example."""
        table = torch.zeros(len(batch), self._size, dtype=torch.bool)
        for row, language, names in zip(table, batch.parts["target_lang"], batch.parts[field], strict=True):
            row[[label for label in self._labels_of(language, names) if label != UNKNOWN]] = True
        return table

    def _right(self, batch: Batch) -> Tensor:
        """The class of each example's translation, (B,) int64, on the host; UNKNOWN where training lacks it."""
        pairs = zip(batch.parts["target_lang"], batch.parts["translation"], strict=True)
        return torch.tensor([label for language, name in pairs for label in self._labels_of(language, [name])])

    def _labels_of(self, language: str, names: Iterable[str]) -> list[int]:
        return [self._labels.get(translation_name(language, name), UNKNOWN) for name in names]

    def answers(self, outcome: Outcome, batch: Batch, token_name: Callable[[int], str] = str) -> list[Answer]:
        """The candidates of each word by their probability.

        Records have the word, the target language, the answer and the number of candidates. On labelled splits they also
        have the right translation (`gold`), whether the answer is acceptable (`right`), and whether the most frequent
        translation of training is (`most_frequent_right`).
        """
        if "candidates" not in batch.parts:
            return []
        parts, name = batch.parts, self.context.vocabulary.name
        probabilities = outcome.logits.softmax(1)
        counts = (probabilities > 0).sum(1).tolist()
        choices = [most_probable(row[None], name, count)[0] for row, count in zip(probabilities, counts, strict=True)]
        answers = [name(label).partition(":")[2] for label in outcome.logits.argmax(1).tolist()]
        columns: dict[str, Sequence] = {
            "word": parts["words"],
            "target_lang": parts["target_lang"],
            "answer": answers,
            "num_candidates": [len(set(names)) for names in parts["candidates"]],
        }
        if "acceptable" in parts:
            columns["gold"] = parts["translation"]
            for key, given in (("right", answers), ("most_frequent_right", parts["most_frequent"])):
                columns[key] = [one in names for one, names in zip(given, parts["acceptable"], strict=True)]
        columns |= {field: parts[field] for field in self.options.described_by if field in parts}
        return with_records(choices, columns)

    def truths(self, outcome: Outcome, batch: Batch) -> list[Truth]:
        """The right translations; words with fewer than two candidates have no score."""
        if outcome.loss is None:
            return []
        right = (
            self._classes(batch, "acceptable").gather(1, outcome.logits.argmax(1, keepdim=True).cpu())[:, 0].tolist()
        )
        counted = (self._classes(batch, "candidates").sum(1) > 1).tolist()
        rows = zip(batch.parts["translation"], right, counted, strict=True)
        return [Truth(name, float(one) if counts else None) for name, one, counts in rows]
