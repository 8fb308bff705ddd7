"""Choice: the right pair of text and image is ranked above others, as in retrieval (Kim et al. 2021, ViLT) or dialogues."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlc.data.batch import Batch
from vlc.data.objects import NUM_CLASSES
from vlc.data.parts import Boxes, Candidates, Field, HardTexts, Part, WrongImages, WrongTexts, WrongTranslations
from vlc.model.embed import init_bert_weights
from vlc.model.passes import Pass
from vlc.model.segments import Encoded
from vlc.objectives.base import (
    POOLED,
    Answer,
    ModelContext,
    Objective,
    Outcome,
    Truth,
    linear_in_float32,
    mean_ratio,
    most_probable,
    ranked_accuracy,
    with_records,
)
from vlc.objectives.options import ChoiceOptions

NUM_TAGS = 32  # boxes that words can name
_BRANCHES = Pass(("trunk", "image", "candidates"))
_BESIDE_BOXES = Pass(("candidates", "image", "boxes"), pooled_only=True)
# The pass that scores the candidates which a part of a batch brings; of several parts they stand in this order.
_PASSES = {
    "candidates": Pass(("candidates", "image"), pooled_only=True),
    "wrong_texts": Pass(("candidate_texts", "image"), pooled_only=True),
    "wrong_translations": Pass(("candidate_texts", "image"), pooled_only=True),
    "hard_texts": Pass(("candidate_texts", "image"), pooled_only=True),
    "wrong_images": Pass(("text", "wrong_images"), pooled_only=True),
}


class Choice(Objective[ChoiceOptions]):
    """Cross entropy of the right candidate's score among the scores of all candidates; logits (B, candidates).

    The candidates are an example's own text, which comes first, wrong_texts other texts, hard_texts texts of images that
    look alike, and its own text with another image, as in 12-in-1 (Lu et al. 2020); or its text with its translation and
    with wrong_translations others; or they are the texts that the data give it to choose among. Their words may name boxes,
    as in VL-BERT (Su et al. 2020), whose loss is `bce`. The image is embedded once for all texts. The head starts as the
    match row of image-text matching, or of text-text matching where it ranks translations, where a checkpoint has it and no
    ranking head.
    `vlc.evaluation.ranking` ranks whole splits.
    """

    metrics = ("loss", "accuracy")
    headline = "accuracy"

    @classmethod
    def parts(cls, options: ChoiceOptions) -> tuple[Part, ...]:
        if not options.candidates:
            counts: dict[Part, int] = {
                WrongTexts(options.wrong_texts, within=options.within): options.wrong_texts,
                WrongTranslations(options.wrong_translations): options.wrong_translations,
                HardTexts(options.hard_texts, options.hard_pools): options.hard_texts,
                WrongImages("dataset"): options.wrong_images,
            }
            return tuple(part for part, count in counts.items() if count)
        tags, branches = options.candidate_tags, options.branches
        candidates = Candidates(options.candidates, options.label, options.drawn, tags, branches)
        names, outlines = "box_names" if options.classes else "", "outlines" if options.outlines else ""
        regions = (Boxes(names=names, outlines=outlines),) if options.regions else ()
        ids = (Field(name, "always") for name in options.ids)
        described = (Field(name, "where_provided") for name in options.described_by)
        return candidates, *regions, Field(options.label), *ids, *described

    @classmethod
    def num_images(cls, options: ChoiceOptions) -> int:
        return options.images

    @classmethod
    def num_box_tags(cls, options: ChoiceOptions) -> int | None:
        return (NUM_TAGS if options.candidate_tags else 0) if options.regions else None

    @classmethod
    def num_box_classes(cls, options: ChoiceOptions) -> int:
        return NUM_CLASSES if options.classes else 0

    def __init__(self, options: ChoiceOptions, context: ModelContext):
        super().__init__(options, context)
        self.writes_records = bool(options.candidates)
        matching = "text_matching" if options.wrong_translations else "itm"
        self.starts_from = {f"rank_output.{name}": f"{matching}.fc.{name}" for name in ("weight", "bias")}
        self.rank_output = nn.Linear(context.width, 1)
        self.apply(init_bert_weights)

    def _scores(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Tensor:
        """Return the scores (B, N) of all candidates of each example."""
        passes = self.passes(batch)
        if passes == (_BRANCHES,):
            result = encoded[_BRANCHES]
            first = result["candidates"].flatten(0, 1)[batch.parts["candidates"].starts]
            assert result.pooler is not None
            return self.score(result.pooler(first[:, None])).unflatten(0, (len(batch), -1))
        return torch.cat([self.score(encoded[one].pooled).unflatten(0, (len(batch), -1)) for one in passes], dim=1)

    def score(self, pooled: Tensor) -> Tensor:
        """Pooled features (N, D) of text-image pairs -> scores (N,) float32, higher = better match."""
        return linear_in_float32(self.rank_output, pooled)[:, 0]

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        if self.options.branches and "candidates" in batch.parts:
            return (_BRANCHES,)
        own = {part.name for part in self.parts(self.options)}  # the batch may have parts of other objectives too
        if {"candidates", "regions"} <= own & batch.parts.keys():
            return (_BESIDE_BOXES,)
        passes = dict.fromkeys(one for part, one in _PASSES.items() if part in own & batch.parts.keys())
        return tuple(map(self._seen, passes or (POOLED,)))

    def _seen(self, whole: Pass) -> Pass:
        """A pass without its image, where images are not read."""
        if self.options.images:
            return whole
        return replace(whole, segments=tuple(name for name in whole.segments if name != "image"))

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        passes, scores = self.passes(batch), self._scores(encoded, batch)
        if "candidates" in batch.parts:
            right = batch.parts["candidates"].right
        else:
            unpaired = passes == (self._seen(POOLED),)
            right = None if unpaired else torch.zeros(len(batch), dtype=torch.int64, device=scores.device)
        if right is None:
            return Outcome(None, {}, scores)
        if self.options.loss == "bce":
            loss = F.binary_cross_entropy_with_logits(scores, F.one_hot(right, scores.shape[1]).to(scores.dtype))
        else:
            loss = F.cross_entropy(scores, right)
        ratios = {"loss": mean_ratio(loss, len(batch)), "accuracy": ranked_accuracy(scores, right)}
        return Outcome(loss, ratios, scores, chance=(len(batch) / scores.shape[1], len(batch)))

    def answers(self, outcome: Outcome, batch: Batch, token_name: Callable[[int], str] = str) -> list[Answer]:
        """The candidates of each example by their probability; the score of its own text where there can be none.

        Records have the ids, what describes an example, and the rank or the probability of each candidate. Candidates of
        equal scores are ranked in their order. On labelled splits `rank` is the rank of the right one, behind all others of
        its score, and `label` is its place.
        """
        scores = outcome.logits
        if "candidates" not in batch.parts:
            values = [] if self.options.candidates else scores[:, 0].tolist()
            return [Answer([("ranks", value)], "score", example=number) for number, value in enumerate(values)]
        candidates, options = batch.parts["candidates"], self.options
        choices = [
            most_probable(own[None], words.__getitem__, len(words))[0]
            for own, words in zip(scores.softmax(1), candidates.words, strict=True)
        ]
        if any(name not in batch.parts for name in options.ids):
            return with_records(choices, None)
        columns = {name: batch.parts[name] for name in (*options.ids, *options.described_by) if name in batch.parts}
        if options.records == "probabilities":
            columns["probabilities"] = scores.softmax(1).tolist()
            if outcome.loss is not None:
                columns["label"] = candidates.right.tolist()
            return with_records(choices, columns)
        columns["ranks"] = (1 + scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)).tolist()
        if outcome.loss is not None:
            own = scores.gather(1, candidates.right[:, None])
            columns["rank"] = (~(scores < own)).sum(dim=1).tolist()
        return with_records(choices, columns)

    def truths(self, outcome: Outcome, batch: Batch) -> list[Truth]:
        """The right candidates, where the data give candidates."""
        if outcome.loss is None or "candidates" not in batch.parts:
            return []
        candidates, scores = batch.parts["candidates"], outcome.logits
        own = scores.gather(1, candidates.right[:, None])
        right = ((~(scores < own)).sum(dim=1) == 1).float().tolist()
        places = candidates.right.tolist()
        return [Truth(words[at], one) for words, at, one in zip(candidates.words, places, right, strict=True)]
