"""One question to a head, answered with everything in between recorded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vlc.common.errors import UserError
from vlc.common.inputs import Images, Text, mapped
from vlc.data.batch import Batch
from vlc.model.regions import patch_weights
from vlc.objectives.base import Objective
from vlc.use.explain.chosen import Chosen, chosen
from vlc.use.explain.recording import RecordedPass, record_passes
from vlc.use.opened import OpenedModel


@dataclass(frozen=True)
class Asked:
    """A head's answer to one request.

    batches: number -> a normalised batch of so many copies of the request.
    passes: the encoder passes that the head read.
    value: scalar, of the chosen answer, with the graph of its gradients.
    reads: for each pass, how much the head reads of each state, (R, S) with the sum 1 over all passes.
    rows: for each pass, the row that the answer is read from.
    """

    model: OpenedModel
    name: str
    batches: Callable[[int], Batch]
    chosen: Chosen
    value: Tensor
    passes: Sequence[RecordedPass]
    reads: Sequence[Tensor]
    rows: Sequence[int]

    @property
    def head(self) -> Objective:
        return self.model.module.objectives[self.name]

    def gradients(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The gradients of the value; zero where it does not depend on a tensor."""
        return gradients(self.value, tensors)

    def reading(self, number: int) -> Tensor:
        """How much of the answer is read from each state of its row of a pass, (S,)."""
        return self.reads[number][self.rows[number]]

    def attention(self, number: int) -> list[Tensor]:
        """The attention of its row of a pass, (heads, S, S) for each block."""
        return [weights[self.rows[number]] for weights in self.passes[number].attention]

    def shown_tokens(self, number: int, name: str) -> Tensor:
        """The places of a text's words in their sequence, without special tokens; of branches, the answer's alone."""
        one, tokens = self.passes[number], self.model.tokens
        ids = self.own_row(number, one.texts[name].ids)
        special = torch.tensor(sorted(tokens.special_ids - {tokens.mask_id}), device=ids.device)
        shown = ~torch.isin(ids, special)
        if (branches := one.texts[name].branches) is not None:
            own = self.own_row(number, branches)
            shown &= own == own[self.reading(number)[one.columns[name]].argmax()]
        return shown.nonzero()[:, 0] + one.columns[name].start

    def patches(self, number: int, name: str) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """The cells of the grid that an image's patches show, the places of these patches in the sequence, and the grid."""
        one, row = self.passes[number], self.rows[number]
        segment, first = one.segments[name], one.columns[name].start + 1  # behind the class token
        assert segment.grid is not None
        places = torch.arange(segment.tokens.shape[1] - 1, device=segment.tokens.device)
        cells = places if segment.patch_indices is None else segment.patch_indices[row]
        real = torch.ones_like(places, dtype=torch.bool) if segment.mask is None else segment.mask[row, 1:].bool()
        return cells[real], first + places[real], segment.grid

    def under_boxes(self, number: int, name: str) -> Tensor | None:
        """The share of each patch of an image in the token of each box, (boxes, P); None: boxes are no tokens of the pass.

        It is the weight by which `vlc.model.regions.RegionPooler` makes the token of the patch.
        """
        boxes = self.passes[number].boxes
        if boxes is None:
            return None
        cells, _, grid = self.patches(number, name)
        patch_size = self.model.module.encoder.size.patch_size
        extents = (boxes.sizes.flip(1) / patch_size).ceil()
        weights = patch_weights(boxes.boxes / patch_size, grid, extents, boxes.outlines)
        return weights[0][:, cells] * boxes.mask[0][:, None]

    def own_row(self, number: int, values: Tensor) -> Tensor:
        """The row of a segment's values that stands in the answer's row of a pass, which may have more rows."""
        return values[self.rows[number] // (len(self.passes[number].states) // len(values))]

    def blank_passes(self) -> list[RecordedPass]:
        """The passes of the same request with an image of its mean colour, and [MASK] in place of each word."""
        batch = self.blank(self.batches(1))
        with torch.no_grad():
            return record_passes(self.model.module.encoder, batch, self.head.passes(batch))[1]

    def blank(self, batch: Batch) -> Batch:
        """The batch with images of their mean colour, and [MASK] in place of each word."""

        def without_words(text: Text) -> Text:
            special = torch.tensor(sorted(self.model.tokens.special_ids), device=text.ids.device)
            return replace(text, ids=text.ids.where(torch.isin(text.ids, special), self.model.tokens.mask_id))

        def of_one_colour(images: Images) -> Images:
            return replace(images, pixels=images.pixels.mean(dim=(-2, -1), keepdim=True).expand_as(images.pixels))

        return mapped(mapped(batch, Text, without_words), Images, of_one_colour)

    def logits(self, batch: Batch, tokens: Sequence[Tensor] | None = None) -> Tensor:
        """The logits of the head for a batch.

        tokens: for each pass, other tokens (R, S, D) that enter its first block; None: those of the batch.
        """
        encoded, _ = record_passes(self.model.module.encoder, batch, self.head.passes(batch), tokens)
        return self.head(encoded, batch).logits.float()

    def values(self, tokens: Sequence[Tensor], count: int) -> Tensor:
        """The values (count,) of the chosen answer to copies of the request with other tokens, as in `logits`."""
        return self.chosen.values(self.logits(self.batches(count), tokens))


def gradients(value: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of a scalar; zero where it does not depend on a tensor."""
    found = torch.autograd.grad(value, list(tensors), retain_graph=True, allow_unused=True)
    return [torch.zeros_like(own) if one is None else one for one, own in zip(found, tensors, strict=True)]


def ask(model: OpenedModel, name: str, batches: Callable[[int], Batch], choice: int) -> Asked:
    """Ask a head about one request, and record the answer. Raises UserError for a head that reads no image."""
    head = model.module.objectives[name]

    def completed(count: int) -> Batch:
        batch = replace(batches(count), task=model.task_of(head))
        languages = model.languages(count)
        return batch if languages is None else batch.with_parts(languages=languages)

    batch = completed(1)
    passes = head.passes(batch)
    encoded, recorded = record_passes(model.module.encoder, batch, passes)
    if not any(one.images for one in recorded):
        raise UserError(
            f"{name} reads no image here, and explanations show where in an image it looks: ask another head"
        )
    outcome = head(encoded, batch)
    one = chosen(name, head, outcome, batch, choice, str if model.text_encoder is None else model.tokens.token_name)
    value = one.values(outcome.logits.float())[0]
    sizes = [found.norm(dim=-1) for found in gradients(value, [one.states for one in recorded])]
    total = sum(size.sum() for size in sizes)
    reads = [size / total for size in sizes]
    rows = [int(size.sum(dim=1).argmax()) for size in sizes]
    return Asked(model, name, completed, one, value, recorded, reads, rows)
