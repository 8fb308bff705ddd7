"""Pointing: a text says which box of an image is meant (Yu et al. 2016, RefCOCO; Zhu et al. 2016, Visual7W)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlc.data.batch import Batch
from vlc.data.parts import Boxes, Field, Part, Regions
from vlc.data.parts.regions import GRID, WHOLE_IMAGE
from vlc.model.boxes import different_boxes, enclosing, overlap
from vlc.model.passes import Pass
from vlc.model.regions import RegionPooler
from vlc.model.segments import Encoded
from vlc.objectives.base import (
    Answer,
    ModelContext,
    Objective,
    Outcome,
    Ratio,
    Truth,
    classifier,
    linear_in_float32,
    mean_ratio,
)
from vlc.objectives.options import PointingOptions

# The pass whose states are read: of all patches beside the text, or of the boxes as tokens.
PASSES = {"late": Pass(), "tokens": Pass(("text", "image", "boxes"))}
_SHOWN, _MOST_OVERLAP = 5, 0.5  # of the boxes of an answer
_NO_BOX = -1e9  # the score of padding


class Pointing(Objective[PointingOptions]):
    """A score for each candidate box; logits (B, candidates).

    It is read from what `RegionPooler` makes of the encoded patches in the box, or from the box's own state as a token.
    ViLBERT and VL-BERT read a detector's features of regions instead, so state figures beside theirs with this difference.
    With cross entropy the right candidates of an example count together, and an example without any has a loss of
    0. In evaluation it counts as wrong, and `coverage` says how many have one.
    """

    metrics = ("loss", "accuracy", "coverage")
    headline = "accuracy"
    reads_pooled = False
    task_head = True
    writes_records = True

    @classmethod
    def parts(cls, options: PointingOptions) -> tuple[Part, ...]:
        by_index = options.judged_by == "index"
        meant = Field(options.index) if by_index else Boxes("targets", (options.target,), presence="labelled")
        tested = _fields(options.tested_candidates, options) if options.tested_candidates else ()
        ids = (Field(name, "always") for name in options.ids)
        described = (Field(name, "where_provided") for name in (*options.described_by, options.box_ids) if name)
        return Boxes("regions", _fields(options.candidates, options), tested), meant, *ids, *described

    @classmethod
    def num_box_tags(cls, options: PointingOptions) -> int | None:
        return 0 if options.placement == "tokens" else None

    def __init__(self, options: PointingOptions, context: ModelContext):
        super().__init__(options, context)
        self.pooler = RegionPooler(context.width) if options.placement == "late" else None
        self.scorer = classifier(context.width, context.width, 1)
        self.patch_size = context.size.patch_size

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        return (PASSES[self.options.placement],) if "regions" in batch.parts else ()

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        regions: Regions | None = batch.parts.get("regions")
        if regions is None:
            return Outcome(None)
        scores = self._scores(encoded, regions).masked_fill(~regions.mask, _NO_BOX)
        overlaps = self.overlaps(batch)
        if overlaps is None:
            return Outcome(None, {}, scores)
        right = self._right(overlaps, batch)
        loss = self._loss(scores, right, overlaps, regions.mask)
        hits = right.gather(1, scores.argmax(dim=1, keepdim=True))[:, 0]
        ratios: dict[str, Ratio] = {
            "loss": mean_ratio(loss, len(batch)),
            "accuracy": (hits.sum(), len(batch)),
            "coverage": (right.any(dim=1).sum(), len(batch)),
        }
        chance = (right.sum(dim=1) / regions.mask.sum(dim=1).clamp(min=1)).sum()
        return Outcome(loss, ratios, scores, chance=(chance, len(batch)))

    def _scores(self, encoded: Mapping[Pass, Encoded], regions: Regions) -> Tensor:
        """The scores of all boxes, (B, R) float32, those of padding too."""
        states = encoded[PASSES[self.options.placement]]
        if self.pooler is None:
            features = states["boxes"]
        else:
            features = self.pooler(states.segment("image"), regions.boxes, regions.sizes, self.patch_size)
        *hidden, last = self.scorer
        assert isinstance(last, nn.Linear)
        return linear_in_float32(last, nn.Sequential(*hidden)(features))[..., 0]

    def overlaps(self, batch: Batch) -> Tensor | None:
        """The intersection over union of each candidate with what is meant, (B, R) float32; None on unlabelled splits.

        It is measured in pixels of the stored picture.
        """
        options, regions = self.options, batch.parts["regions"]
        if options.judged_by == "index":
            if options.index not in batch.parts:
                return None
            meant = regions.stored.gather(1, self._places(batch)[:, None, None].expand(-1, 1, 4))
            return overlap(regions.stored, meant, plus_one=options.iou_plus_one)
        if "targets" not in batch.parts:
            return None
        meant = meant_boxes(batch.parts["targets"], options.merged)
        each = overlap(regions.stored[:, :, None], meant.stored[:, None], plus_one=options.iou_plus_one)
        return each.masked_fill(~meant.mask[:, None], 0).amax(dim=2)

    def _places(self, batch: Batch) -> Tensor:
        """The place of the right candidate of each example, (B,) int64."""
        places = torch.as_tensor(batch.parts[self.options.index], device=batch.parts["regions"].mask.device)
        return places + int(self.options.whole_image)

    def _right(self, overlaps: Tensor, batch: Batch) -> Tensor:
        """Which candidates are right, (B, R) bool."""
        mask = batch.parts["regions"].mask
        if self.options.judged_by == "index":
            return F.one_hot(self._places(batch), mask.shape[1]).bool() & mask
        return is_right(overlaps, self.options.threshold, above=self.options.above) & mask

    def _loss(self, scores: Tensor, right: Tensor, overlaps: Tensor, mask: Tensor) -> Tensor:
        """The mean loss of the examples."""
        if self.options.loss == "bce":
            targets = right * overlaps if self.options.soft_targets else right.float()
            each = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
            return (each * mask).sum() / mask.sum().clamp(min=1)
        counted = right | ~right.any(dim=1, keepdim=True)  # an example without a right candidate has a loss of 0
        chosen = scores.masked_fill(~counted, -torch.inf).logsumexp(dim=1)
        return (scores.logsumexp(dim=1) - chosen).mean()

    def answers(self, outcome: Outcome, batch: Batch, token_name: Callable[[int], str] = str) -> list[Answer]:
        """The candidates by their probability, without those that cover half of a better one.

        Records have the ids, the box in pixels of the picture, its name where candidates have names, what describes an
        example, and on labelled splits whether the box is right and its overlap with what is meant.
        """
        regions: Regions | None = batch.parts.get("regions")
        if regions is None:
            return []
        scores = outcome.logits
        probabilities = scores.sigmoid() if self.options.loss == "bce" else scores.softmax(dim=1)
        best = scores.argmax(dim=1)
        columns = self._columns(outcome, batch, best)
        answers = []
        for row in range(len(batch)):
            own = regions.mask[row].nonzero()[:, 0]
            order = own[different_boxes(regions.stored[row, own], scores[row, own], _MOST_OVERLAP).to(own.device)]
            boxes = [tuple(box) for box in regions.stored[row, order[:_SHOWN]].tolist()]
            choices = list(zip(map(box_name, boxes), probabilities[row, order[:_SHOWN]].tolist(), strict=True))
            record = {name: values[row] for name, values in columns.items()} if columns else None
            answers.append(Answer(choices, example=row, boxes=boxes, record=record))
        return answers

    def _columns(self, outcome: Outcome, batch: Batch, best: Tensor) -> dict[str, Any]:
        """The values of the records by name; none for a batch that names no examples."""
        options, regions = self.options, batch.parts["regions"]
        if any(name not in batch.parts for name in options.ids):
            return {}
        rows = torch.arange(len(batch), device=best.device)
        columns: dict[str, Any] = {name: batch.parts[name] for name in options.ids}
        columns |= {name: batch.parts[name] for name in options.described_by if name in batch.parts}
        columns["box"] = regions.stored[rows, best].tolist()
        if options.box_ids in batch.parts:
            first = int(options.whole_image)
            named = zip(batch.parts[options.box_ids], best.tolist(), strict=True)
            columns["box_id"] = [ids[place - first] if 0 <= place - first < len(ids) else None for ids, place in named]
        if outcome.loss is not None:
            overlaps = self.overlaps(batch)
            assert overlaps is not None
            columns["overlap"] = overlaps[rows, best].tolist()
            right = self._right(overlaps, batch)
            columns |= {"right": right[rows, best].tolist(), "has_right_candidate": right.any(dim=1).tolist()}
        return columns

    def truths(self, outcome: Outcome, batch: Batch) -> list[Truth]:
        """The boxes that are meant."""
        if outcome.loss is None:
            return []
        overlaps, regions = self.overlaps(batch), batch.parts["regions"]
        assert overlaps is not None
        right = self._right(overlaps, batch).gather(1, outcome.logits.argmax(dim=1, keepdim=True))[:, 0]
        if self.options.judged_by == "index":
            places = self._places(batch)[:, None]
            meant = regions.stored.gather(1, places[..., None].expand(-1, 1, 4))
            return box_truths(meant, torch.ones_like(places, dtype=torch.bool), right)
        targets = meant_boxes(batch.parts["targets"], self.options.merged)
        return box_truths(targets.stored, targets.mask, right)


def box_truths(meant: Tensor, mask: Tensor, right: Tensor) -> list[Truth]:
    """Return the truths about the boxes (B, R, 4) that are meant, of which (B, R) bool are boxes.

    right: (B,) bool, whether the head's answer is right.
    """
    truths = []
    for own, shown, one in zip(meant, mask, right.tolist(), strict=True):
        boxes = [tuple(box) for box in own[shown].tolist()]
        truths.append(Truth(", ".join(map(box_name, boxes)), float(one), boxes))
    return truths


def _fields(candidates: str, options: PointingOptions) -> tuple[str, ...]:
    fields = {
        "gt": ("boxes",),
        "proposals": ("proposal_boxes",),
        "proposals+gt": ("boxes", "proposal_boxes"),
        "grid": (GRID,),
    }[candidates]
    return (WHOLE_IMAGE, *fields) if options.whole_image else fields


def meant_boxes(targets: Regions, merged: str) -> Regions:
    """What is meant by several target boxes: union, the box around all; first; or any, which leaves them as they are."""
    if merged == "any":
        return targets
    if merged == "first":
        return replace(targets, boxes=targets.boxes[:, :1], stored=targets.stored[:, :1], mask=targets.mask[:, :1])
    boxes, stored = (
        enclosing(boxes, targets.mask)[:, None].nan_to_num(0, 0, 0) for boxes in (targets.boxes, targets.stored)
    )
    return replace(targets, boxes=boxes, stored=stored, mask=targets.mask.any(dim=1, keepdim=True))


def is_right(overlaps: Tensor, threshold: float, *, above: bool) -> Tensor:
    """Which overlaps are enough: at least the threshold; above: more than it."""
    return overlaps > threshold if above else overlaps >= threshold


def box_name(box: tuple[float, ...]) -> str:
    """A box in whole pixels of the picture, for a reader: left, top, right and bottom."""
    return "[" + ", ".join(f"{edge:.0f}" for edge in box) + "]"
