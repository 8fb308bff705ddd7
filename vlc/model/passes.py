"""Encoder passes: objectives declare which they read; passes that are equal, or of equal shape, are computed together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from vlc.common.inputs import Text
from vlc.data.batch import Batch
from vlc.data.parts.regions import Regions
from vlc.model.encoder import Encoder
from vlc.model.inputs import SegmentInput, patch_noise, segment_input, with_languages
from vlc.model.segments import Encoded, Segment, concatenated

_BESIDE_IDS = ("segments", "languages", "positions")  # fields of `Text`, as `Encoder.embed_words` takes them
_ROWS_AT_ONCE = 128  # sequences of a pass without gradients


@dataclass(frozen=True)
class Pass:
    """Names one encoder pass over a batch. Equal passes are computed once.

    segments: the names of the inputs, in the order of the sequence (`vlc.model.inputs.segment_input`). "boxes" stands
        behind "image", from whose patches it is made.
    patch_noise: the row of the batch's patch noise by which patches are dropped; None: all patches stay.
    pooled_only: only the pooled feature is read, which costs less than the whole pass.
    """

    segments: tuple[str, ...] = ("text", "image")
    patch_noise: int | None = None
    pooled_only: bool = False


class EncodedPasses(dict[Pass, Encoded]):
    """The results of the encoder by pass."""

    def __missing__(self, key: Pass) -> Encoded:
        have = ", ".join(map(str, self)) or "none"
        raise KeyError(f"{key} was not encoded: an objective reads only what its passes() names. Encoded were: {have}")


def encode_passes(
    encoder: Encoder,
    batch: Batch,
    passes: Iterable[Pass],
    dropped_ratio: float = 0.0,
    known: Mapping[Pass, Encoded] | None = None,
) -> EncodedPasses:
    """Run the encoder over a batch, once for equal passes.

    Passes of equal shape run as one larger batch. This is faster: matrix products are larger, and each weight gets one
    gradient instead of several. Without gradients, pooled features are computed for some examples at a time.

    dropped_ratio: the share of patches that a pass with patch noise drops.
    known: passes of an earlier call, which are not run again.
    Returns at least the requested passes. A pass that is pooled only is served by the whole pass where that is run too.
    """
    encoded, passes = EncodedPasses(known or {}), dict.fromkeys(passes)
    whole = {one: replace(one, pooled_only=False) for one in passes if one.pooled_only}
    served = {one for one, same in whole.items() if same in passes or same in encoded}
    inputs: dict[str, SegmentInput] = {}
    groups: dict[Any, list[Pass]] = {}
    for one in passes:
        if one in encoded or one in served:
            continue
        for name in one.segments:
            if name not in inputs:
                inputs[name] = with_languages(segment_input(batch, name, encoder.pad_token_id), batch)
        drops = dropped_ratio > 0 and patch_noise(batch, one.patch_noise) is not None
        key = (one.pooled_only, drops, *(input_shape(inputs[name]) for name in one.segments))
        groups.setdefault(key, []).append(one)
    for (pooled_only, drops, *_), group in groups.items():
        # Sharded models gather their weights for each run, and the batches of their processes may differ in size.
        whole_batch = drops or not pooled_only or torch.is_grad_enabled() or isinstance(encoder.blocks[0], FSDPModule)
        run = _encode_group if whole_batch else _encode_in_parts
        encoded.update(zip(group, run(encoder, batch, group, inputs, dropped_ratio), strict=True))
    encoded.update({one: encoded[whole[one]] for one in served})
    return encoded


def input_shape(given: SegmentInput) -> tuple:
    """Return the shapes that must be equal for passes to be run as one."""
    if isinstance(given, Text):
        return given.ids.shape, given.causal
    if isinstance(given, Regions):
        return (given.boxes.shape,)
    return given.pixels.shape, given.sizes and given.sizes.largest


def _encode_in_parts(
    encoder: Encoder, batch: Batch, group: list[Pass], inputs: Mapping[str, SegmentInput], dropped_ratio: float
) -> list[Encoded]:
    """The pooled features of `_encode_group`, a few examples at a time, so that memory does not grow with their texts."""
    rows = {name: len(inputs[name]) // len(batch) for one in group for name in one.segments}
    step = max(1, _ROWS_AT_ONCE // (len(group) * max(rows.values())))
    parts: list[list[Encoded]] = []
    for start in range(0, len(batch), step):
        some = {name: inputs[name].at(slice(start * count, (start + step) * count)) for name, count in rows.items()}
        parts.append(_encode_group(encoder, batch, group, some, dropped_ratio))
    return [Encoded(torch.cat([part.pooled for part in column])) for column in zip(*parts, strict=True)]


def _encode_group(
    encoder: Encoder, batch: Batch, group: list[Pass], inputs: Mapping[str, SegmentInput], dropped_ratio: float
) -> list[Encoded]:
    """Run passes of equal shape as one larger batch, in which each segment is embedded once."""
    embedded: dict[tuple[str, int | None], Segment] = {}
    words = _embedded_texts(encoder, {name: inputs[name] for one in group for name in one.segments})
    rows: list[list[Segment]] = []
    for one in group:
        rows.append([])
        for name in one.segments:
            given = inputs[name]
            key = (name, None if isinstance(given, Text) else one.patch_noise)
            if key in embedded:
                pass
            elif isinstance(given, Text):
                embedded[key] = Segment(
                    name, words[name], given.mask, given.num_real, given.starts_group, given.branches
                )
            elif isinstance(given, Regions):
                assert encoder.regions is not None, "no objective says that its passes have boxes"
                embedded[key] = encoder.regions.pooled(
                    embedded["image", one.patch_noise], given, encoder.size.patch_size
                )
            else:
                embedded[key] = encoder.embed_images(
                    given.pixels,
                    sizes=given.sizes,
                    image_type=given.token_type,
                    mask_ratio=dropped_ratio,
                    noise=patch_noise(batch, one.patch_noise),
                    name=name,
                )
            rows[-1].append(embedded[key])
        if encoder.regions is not None and "boxes" in one.segments:
            tags = [given.tags if isinstance(given := inputs[name], Text) else None for name in one.segments]
            rows[-1] = encoder.regions(rows[-1], tags)
    segments = [concatenated(parts) for parts in zip(*rows, strict=True)]
    encoded = encoder.encode(segments, pooled_only=group[0].pooled_only, task=batch.task)
    return encoded.split([one.segments for one in group])


def _embedded_texts(encoder: Encoder, inputs: Mapping[str, SegmentInput]) -> dict[str, Tensor]:
    """Embed texts to (B, L, D) by name, with few look-ups, as each has a gradient for the whole vocabulary."""
    # Older versions had this order; a resumed run then draws the same dropout.
    texts = {name: given for name, given in inputs.items() if isinstance(given, Text)}
    of_shape: dict[tuple, list[str]] = {}
    for name in sorted(texts, key=lambda name: name != "text"):
        has = (getattr(texts[name], field) is None for field in _BESIDE_IDS)
        of_shape.setdefault((texts[name].ids.shape, *has), []).append(name)
    words: dict[str, Tensor] = {}
    for same in of_shape.values():
        ids = torch.cat([texts[name].ids for name in same])
        further = ([getattr(texts[name], field) for name in same] for field in _BESIDE_IDS)
        embedded = encoder.embed_words(ids, *(None if column[0] is None else torch.cat(column) for column in further))
        # A chunk would change the layout of its gradient, and so the order in which sums are rounded.
        words |= zip(same, embedded.chunk(len(same)) if len(same) > 1 else [embedded], strict=True)
    return words
