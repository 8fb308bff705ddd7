"""Decoding: tokens behind encoded inputs, one at a time, with cached keys and values, and the search for the best text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from vlc.model.encoder import Encoder
from vlc.model.patterns import MaskedAttention
from vlc.model.segments import Segment, TokenSequence


@dataclass(frozen=True, eq=False)
class CachedAttention(MaskedAttention):
    """The attention of one block, which keeps the keys and values of all tokens that went through it.

    The first call mixes the tokens of B inputs with each other. Each further call appends one token to B * K texts, K in
    succession for each input. Keys and values of an input exist once for all its texts.

    mask: (B, 1, 1, P) bool, True = real, of the inputs.
    inputs: keys and values (B, heads, P, D), once the inputs were seen.
    texts: keys and values (B * K, heads, T, D), once a text has a token.
    """

    inputs: list[Tensor] = field(default_factory=list)
    texts: list[Tensor] = field(default_factory=list)

    def attend(self, qkv: Tensor, heads: int) -> Tensor:
        queries, *keys_values = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if not self.inputs:
            self.inputs[:] = keys_values
            return super().attend(qkv, heads)
        pairs = zip(self.texts, keys_values, strict=True) if self.texts else ((one,) for one in keys_values)
        self.texts[:] = [torch.cat(pair, dim=2) for pair in pairs]
        return self._mixed(queries * queries.shape[-1] ** -0.5)

    def _mixed(self, queries: Tensor) -> Tensor:
        """Mix the values of inputs and texts for scaled queries (B * K, heads, 1, D): (B * K, 1, heads * D)."""
        (input_keys, input_values), (text_keys, text_values) = self.inputs, self.texts
        size = (len(input_keys), -1)
        # All texts of an input share its keys, so that their queries are the rows of one product.
        shared = queries[:, :, 0].unflatten(0, size).transpose(1, 2)
        for_inputs = shared @ input_keys.mT
        if self.mask is not None:
            for_inputs = for_inputs.masked_fill(~self.mask, float("-inf"))
        for_texts = (queries @ text_keys.mT)[:, :, 0].unflatten(0, size).transpose(1, 2)
        weights = torch.cat([for_inputs, for_texts], dim=-1).softmax(-1).to(input_values.dtype)
        for_inputs, for_texts = weights.split([input_keys.shape[2], text_keys.shape[2]], dim=-1)
        of_texts = for_texts.transpose(1, 2).flatten(0, 1)[:, :, None] @ text_values
        of_inputs = (for_inputs @ input_values).transpose(1, 2).flatten(0, 1)[:, :, None]
        return (of_inputs + of_texts).flatten(1)[:, None]

    def at(self, inputs: Tensor | None, texts: Tensor) -> "CachedAttention":
        """Return the cache of these inputs (None: all) and of these texts."""
        kept = [own[texts] for own in self.texts]
        if inputs is None:
            return CachedAttention(self.mask, self.inputs, kept)
        mask = None if self.mask is None else self.mask[inputs]
        return CachedAttention(mask, [own[inputs] for own in self.inputs], kept)


class Continuation:
    """Causal text behind segments, which are encoded once: K texts for each of B examples, one token a step.

    A state equals that of `Encoder.encode` for the segments with the whole text behind them (`Text.causal`).

    segments: B rows each.
    first: (B,) int64, the position of the first token.
    beams: K.
    task: as in `Encoder.encode`.
    """

    def __init__(self, encoder: Encoder, segments: Sequence[Segment], first: Tensor, *, beams: int = 1, task: str = ""):
        self.encoder, self.beams = encoder, beams
        self.positions = first.repeat_interleave(beams)
        placed = encoder.placed(segments, task)
        sequence = TokenSequence.of(placed)
        mask = None if sequence.mask is None else sequence.mask[:, None, None]
        self.caches = [CachedAttention(mask) for _ in encoder.blocks]
        self._run(sequence.tokens, encoder.rotation(placed))

    def step(self, ids: Tensor, continued: Tensor) -> Tensor:
        """Append a token to each text and return its states (N, D).

        ids: (N,) int64, K in succession for each example that is still continued.
        continued: (N,) int64, the texts of the step before that are continued.
        """
        inputs = None if len(continued) == len(self.positions) else continued[:: self.beams] // self.beams
        if self.beams > 1 or inputs is not None:  # otherwise each text continues itself
            self.caches = [cache.at(inputs, continued) for cache in self.caches]
        positions = self.positions[continued]
        self.positions = positions + 1
        segments = torch.ones_like(ids)[:, None]
        tokens = self.encoder.embed_words(ids[:, None], segments, positions=positions[:, None])
        return self.encoder.norm(self._run(tokens)[:, 0])

    def _run(self, tokens: Tensor, rotation: Tensor | None = None) -> Tensor:
        for block, cache in zip(self.encoder.blocks, self.caches, strict=True):
            tokens = block.forward(
                tokens, self.encoder.turned(cache, rotation)
            )  # without torch.compile, as each step has another length
        return tokens


class Hypothesis(NamedTuple):
    """A text that the search found.

    ids: its tokens, without the first and the last one.
    score: the sum of the logarithms of its tokens' probabilities, [SEP] included, over length ** length_penalty.
    """

    ids: list[int]
    score: float


@dataclass(frozen=True)
class BeamSearch:
    """The search for the texts of the highest score, `beams` at a time; 1 is greedy search.

    A text is complete when its last token is among the best `beams` continuations, and an example when it has so many
    complete texts, as in fairseq (Ott et al. 2019). Of these the best one by score is taken. With a length_penalty of 1
    scores are means over the tokens, and with 0 short texts win; the formula is fairseq's and transformers', not that of
    Wu et al. (2016), which adds 5 to the length.

    first, last: the tokens that texts begin and end with.
    max_len: the most tokens of a text, the last one included. What is not complete then counts as it is.
    """

    first: int
    last: int
    beams: int
    length_penalty: float
    max_len: int

    def __call__(
        self, log_probs: Callable[[Tensor, Tensor], Tensor], count: int, device: torch.device
    ) -> list[Hypothesis]:
        """Return the best text for each of `count` examples.

        log_probs: tokens (N,), and the texts (N,) of the step before that they continue -> (N, V), of the next token.
        """
        beams = self.beams
        live, found = list(range(count)), [list[Hypothesis]() for _ in range(count)]  # live: examples by their rows
        ids = torch.full((count * beams,), self.first, device=device)
        continued = torch.arange(count * beams, device=device)
        written = ids[:, None][:, :0]
        totals = torch.full((count, beams), float("-inf"), device=device)
        totals[:, 0] = 0  # the beams of an example begin as one text
        for length in range(1, self.max_len + 1):
            own = log_probs(ids, continued)
            totals = (totals.flatten()[:, None] + own).unflatten(0, (-1, beams)).flatten(1)
            best, places = totals.topk(2 * beams)  # so that as many go on, whichever end
            texts = places // own.shape[1] + beams * torch.arange(len(live), device=device)[:, None]
            ids, ends = places % own.shape[1], places % own.shape[1] == self.last
            for row, place in ends[:, :beams].nonzero().tolist():
                if len(found[live[row]]) < beams:
                    score = float(best[row, place]) / length**self.length_penalty
                    found[live[row]].append(Hypothesis(written[texts[row, place]].tolist(), score))
            going_on = ends.int().argsort(dim=1, stable=True)[:, :beams]
            totals, texts, ids = (values.gather(1, going_on) for values in (best, texts, ids))
            written = torch.cat([written[texts.flatten()], ids.flatten()[:, None]], dim=1)
            rows = [row for row, example in enumerate(live) if len(found[example]) < beams]
            if not rows:
                break
            if 2 * len(rows) <= len(live):  # caches are copied a few times in all
                kept = torch.tensor(rows, device=device)
                live, totals, texts, ids = [live[row] for row in rows], totals[kept], texts[kept], ids[kept]
                written = written.unflatten(0, (-1, beams))[kept].flatten(0, 1)
            ids, continued = ids.flatten(), texts.flatten()
        for row, example in enumerate(live):
            if len(found[example]) < beams:
                scores = (totals[row] / self.max_len**self.length_penalty).tolist()
                found[example] += map(Hypothesis, written.unflatten(0, (-1, beams))[row].tolist(), scores)
        return [max(own, key=lambda one: one.score) for own in found]
