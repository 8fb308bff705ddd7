"""Regress: a text says which box of an image is meant, and the head gives its four edges. No detector is needed."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from vlc.data.batch import Batch
from vlc.data.parts import Boxes, Field, Part, Regions
from vlc.data.parts.regions import WHOLE_IMAGE
from vlc.model.boxes import overlap
from vlc.model.embed import init_bert_weights
from vlc.model.passes import Pass
from vlc.model.segments import Encoded, Segment
from vlc.objectives.base import Answer, ModelContext, Objective, Outcome, Truth, linear_in_float32, mean_ratio
from vlc.objectives.options import RegressOptions
from vlc.objectives.pointing import box_name, box_truths, is_right, meant_boxes

_L1, _GIOU = 5, 2  # weights of the two losses, as in DETR (Carion et al. 2020)
PASS = Pass()  # the states of all patches beside the text


class Regress(Objective[RegressOptions]):
    """One query over the encoded patches -> centre, width and height as shares of the image; logits (B, 4).

    The query, which takes the place of a [REG] token, weighs the patches. Their mean feature by these weights gives the
    size, and an offset to the mean of their places: a small model that has to find places in a pooled feature alone often
    does not learn them at all. The logits are those before a sigmoid.

    The loss is 5 times the L1 distance of these four numbers, summed, and 2 times 1 - generalised IoU (Rezatofighi et al.
    2019). The metric is that of pointing. None of the published systems for these tasks does so: state such figures apart.
    """

    metrics = ("loss", "accuracy")
    headline = "accuracy"
    reads_pooled = False
    task_head = True
    writes_records = True

    @classmethod
    def parts(cls, options: RegressOptions) -> tuple[Part, ...]:
        ids = (Field(name, "always") for name in options.ids)
        described = (Field(name, "where_provided") for name in options.described_by)
        return (
            Boxes("whole_image", (WHOLE_IMAGE,)),
            Boxes("targets", (options.target,), presence="labelled"),
            *ids,
            *described,
        )

    def __init__(self, options: RegressOptions, context: ModelContext):
        super().__init__(options, context)
        width = context.width
        self.query = nn.Linear(width, 1).apply(init_bert_weights)
        self.box = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4)).apply(init_bert_weights)
        self.patch_size = context.size.patch_size

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        return (PASS,) if "whole_image" in batch.parts else ()

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        if "whole_image" not in batch.parts:
            return Outcome(None)
        logits = self._logits(encoded[PASS].segment("image"), batch.parts["whole_image"].sizes)
        if "targets" not in batch.parts:
            return Outcome(None, {}, logits)
        meant = meant_boxes(batch.parts["targets"], self.options.merged)
        shown = meant.mask[:, 0]
        target = meant.boxes[:, 0] / meant.sizes.repeat(1, 2)
        each = box_loss(logits.sigmoid(), centred(target))
        loss = each.masked_fill(~shown, 0).mean()  # what a crop has left out is not learnt
        right = is_right(self._overlaps(logits, batch), self.options.threshold, above=self.options.above)
        return Outcome(loss, {"loss": mean_ratio(loss, len(batch)), "accuracy": (right.sum(), len(batch))}, logits)

    def _logits(self, image: Segment, sizes: Tensor) -> Tensor:
        """The image's segment and what is shown of it, width and height (B, 2) in pixels -> logits (B, 4) float32."""
        patches = image.tokens[:, 1:]
        scores = self.query(patches)[..., 0].float()
        if image.mask is not None:
            scores = scores.masked_fill(image.mask[:, 1:] == 0, -torch.inf)
        weights = scores.softmax(dim=1)[..., None]
        assert image.grid is not None
        cells = torch.arange(image.grid[0] * image.grid[1], device=scores.device).expand(len(scores), -1)
        cells = cells if image.patch_indices is None else image.patch_indices
        centres = (torch.stack([cells % image.grid[1], cells // image.grid[1]], dim=2) + 0.5) * self.patch_size
        # No products of matrices: in half precision they would move a place by pixels.
        place = (weights * centres).sum(dim=1) / sizes
        *hidden, last = self.box
        assert isinstance(last, nn.Linear)
        feature = nn.Sequential(*hidden)((weights * patches).sum(dim=1))
        offset, size = linear_in_float32(last, feature).split(2, dim=1)
        return torch.cat([torch.logit(place, eps=1e-3) + offset, size], dim=1)

    def boxes(self, logits: Tensor, whole_image: Regions) -> Tensor:
        """The predicted boxes (B, 4) float32 in pixels of the stored picture, which is not turned in evaluation."""
        corners = (cornered(logits.sigmoid()) * whole_image.sizes.repeat(1, 2)).unflatten(1, (2, 1, 2))
        turn, move = whole_image.to_stored[:, None].split([2, 1], dim=3)
        found = (turn * corners).sum(dim=3) + move[..., 0]  # in full precision, as above
        return torch.cat([found.amin(dim=1), found.amax(dim=1)], dim=1)

    def _overlaps(self, logits: Tensor, batch: Batch) -> Tensor:
        meant = meant_boxes(batch.parts["targets"], self.options.merged)
        found = self.boxes(logits, batch.parts["whole_image"])
        return overlap(found, meant.stored[:, 0], plus_one=self.options.iou_plus_one)

    def answers(self, outcome: Outcome, batch: Batch, token_name: Callable[[int], str] = str) -> list[Answer]:
        """The box of each example, without a probability of its own.

        Records have the ids, the box in pixels of the picture, what describes an example, and on labelled splits whether
        the box is right and its overlap with what is meant.
        """
        if "whole_image" not in batch.parts:
            return []
        boxes = [tuple(box) for box in self.boxes(outcome.logits, batch.parts["whole_image"]).tolist()]
        columns: dict[str, Any] = {}
        if all(name in batch.parts for name in self.options.ids):
            named = (*self.options.ids, *self.options.described_by)
            columns = {name: batch.parts[name] for name in named if name in batch.parts} | {"box": boxes}
            if outcome.loss is not None:
                overlaps = self._overlaps(outcome.logits, batch)
                right = is_right(overlaps, self.options.threshold, above=self.options.above)
                columns |= {"overlap": overlaps.tolist(), "right": right.tolist()}
        rows = [{name: values[row] for name, values in columns.items()} or None for row in range(len(batch))]
        return [
            Answer([(box_name(box), 1.0)], "box", example=row, boxes=[box], record=rows[row])
            for row, box in enumerate(boxes)
        ]

    def truths(self, outcome: Outcome, batch: Batch) -> list[Truth]:
        """The boxes that are meant."""
        if outcome.loss is None:
            return []
        meant = meant_boxes(batch.parts["targets"], self.options.merged)
        right = is_right(self._overlaps(outcome.logits, batch), self.options.threshold, above=self.options.above)
        return box_truths(meant.stored, meant.mask, right)


def box_loss(found: Tensor, target: Tensor) -> Tensor:
    """The loss of boxes (N, 4) against others, both as centre, width and height: (N,)."""
    distance = F.l1_loss(found, target, reduction="none").sum(dim=1)
    return _L1 * distance + _GIOU * generalized_box_iou_loss(cornered(found), cornered(target))


def cornered(boxes: Tensor) -> Tensor:
    """Boxes (N, 4) as centre, width and height -> left, top, right, bottom."""
    centre, size = boxes.split(2, dim=-1)
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def centred(boxes: Tensor) -> Tensor:
    """Boxes (N, 4) as left, top, right, bottom -> centre, width and height."""
    start, end = boxes.split(2, dim=-1)
    return torch.cat([(start + end) / 2, end - start], dim=-1)
