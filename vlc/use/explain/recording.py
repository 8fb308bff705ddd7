"""Recording of encoder passes: what every block attends to, in the graph of gradients, without a change of the encoder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch
from torch import Tensor, nn

from vlc.common.inputs import Text
from vlc.data.batch import Batch
from vlc.data.parts.regions import Regions
from vlc.model.encoder import Encoder
from vlc.model.inputs import segment_input
from vlc.model.passes import EncodedPasses, Pass, encode_passes
from vlc.model.patterns import AttentionPattern, MaskedAttention
from vlc.model.rotary import RotatedAttention
from vlc.model.segments import Segment


@dataclass(frozen=True, eq=False)
class RecordedAttention(MaskedAttention):
    """The attention of a mask, computed with its weights in memory, which are kept.

    kept: gets the weights (B, heads, L, L).
    """

    kept: list[Tensor] = field(default_factory=list)

    def attend(self, qkv: Tensor, heads: int) -> Tensor:
        queries, keys, values = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        scores = queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5
        if self.mask is not None:
            scores = scores.masked_fill(~self.mask, -torch.inf)
        weights = scores.softmax(dim=-1)
        self.kept.append(weights)
        return (weights @ values).transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class RecordedPass:
    """One encoder pass over a batch of examples, with R rows, which are the examples or their candidates.

    one: the pass, which computes all tokens.
    texts: those of its segments that are texts, by their names, before they are embedded.
    boxes: those that are tokens of the pass; None: there are none.
    segments: all of them by their names, encoded.
    columns: the places of each segment in the sequence, of the task's token and of registers, by name.
    entering: (R, S, D), the tokens that enter each block.
    attention: (R, heads, S, S), the weights of each block by query and key.
    states: (R, S, D), the tokens after the final norm, which the head reads.
    """

    one: Pass
    texts: dict[str, Text]
    boxes: Regions | None
    segments: dict[str, Segment]
    columns: dict[str, slice]
    entering: tuple[Tensor, ...]
    attention: tuple[Tensor, ...]
    states: Tensor

    @property
    def images(self) -> list[str]:
        """The names of the segments that are images."""
        return [name for name, segment in self.segments.items() if segment.grid is not None]


def record_passes(
    encoder: Encoder, batch: Batch, passes: Sequence[Pass], tokens: Sequence[Tensor] | None = None
) -> tuple[EncodedPasses, list[RecordedPass]]:
    """Run passes over a batch one by one and record them; returns what the head reads, and a record of each pass.

    The encoder is in evaluation mode. The results are those of `encode_passes`. All tokens of all blocks are computed, so
    that nothing is hidden in a fused product. The result is in full precision, and has gradients if they are enabled.

    tokens: for each pass, other tokens (R, S, D) that enter its first block; None: those of the batch.
    """
    encoded, recorded = EncodedPasses(), []
    for number, one in enumerate(passes):
        whole = replace(one, pooled_only=False)
        entering: list[Tensor] = []
        attention: list[Tensor] = []
        states: list[Tensor] = []
        hooks = _recording(encoder, entering, attention, states, tokens[number] if tokens else None)
        with hooks, torch.autocast(batch.index.device.type, enabled=False):
            encoded.update(encode_passes(encoder, batch, [one, whole]))
        inputs = {name: segment_input(batch, name, encoder.pad_token_id) for name in one.segments}
        texts = {name: given for name, given in inputs.items() if isinstance(given, Text)}
        boxes = next((given for given in inputs.values() if isinstance(given, Regions)), None)
        segments = dict(zip(one.segments, encoded[whole].segments, strict=True))
        columns = _columns(encoder.placed(list(segments.values()), batch.task))
        recorded.append(
            RecordedPass(whole, texts, boxes, segments, columns, tuple(entering), tuple(attention), states[0])
        )
    return encoded, recorded


@contextmanager
def _recording(
    encoder: Encoder, entering: list[Tensor], attention: list[Tensor], states: list[Tensor], other: Tensor | None
) -> Iterator[None]:
    """Hooks on the blocks and the final norm of an encoder, which are removed at the end."""

    def before_block(block: nn.Module, given: tuple[Tensor, AttentionPattern]) -> tuple[Tensor, AttentionPattern]:
        tokens, pattern = given
        masked = pattern.pattern if isinstance(pattern, RotatedAttention) else pattern
        assert isinstance(masked, MaskedAttention), (
            "sequences are packed in training, or where pooled features are read"
        )
        recorded = RecordedAttention(masked.mask, attention)
        if not entering and other is not None:
            tokens = other
        if torch.is_grad_enabled() and not tokens.requires_grad:  # nothing below is trained
            tokens = tokens.detach().requires_grad_()
        entering.append(tokens)
        return tokens, replace(pattern, pattern=recorded) if isinstance(pattern, RotatedAttention) else recorded

    def after_norm(norm: nn.Module, given: tuple[Tensor], result: Tensor) -> None:
        states.append(result)

    hooks = [block.register_forward_pre_hook(before_block) for block in encoder.blocks]
    hooks.append(encoder.norm.register_forward_hook(after_norm))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _columns(placed: Sequence[Segment]) -> dict[str, slice]:
    """The places of segments that stand side by side."""
    starts = accumulate((segment.tokens.shape[1] for segment in placed), initial=0)
    return {
        segment.name: slice(start, start + segment.tokens.shape[1])
        for segment, start in zip(placed, starts, strict=False)
    }
