"""Segments: embedded inputs that stand side by side in the sequence of an encoder pass, and what the pass makes of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vlc.model.masking import PatchMask

_BY_ROW = ("tokens", "mask", "starts_group", "patches", "patch_indices")  # fields with a row for each example


@dataclass(frozen=True)
class Segment:
    """One embedded input: a text, an image, a task token, boxes.

    name: by which `Encoded` gives its tokens back.
    tokens: (B, L, D); of an image the class token comes first, then the patches.
    mask: (B, L), nonzero = real token, zero = padding; None: all tokens are real.
    num_real: the number of real tokens; None where there is a mask and only a device knows.
    starts_group: (B, L) int, 1 = a token that the tokens before it may not see (`vlc.model.patterns.grouped`).
    patches: which patches of an image were dropped at random; None: none were.
    grid: rows and columns of the image in patches; None: not an image.
    patch_indices: (B, P) int64, the cell of the grid that each patch token shows, counted row by row; None: all cells in
        their order.
    """

    name: str
    tokens: Tensor
    mask: Tensor | None = None
    num_real: int | None = None
    starts_group: Tensor | None = None
    patches: PatchMask | None = None
    grid: tuple[int, int] | None = None
    patch_indices: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def repeated(self, times: int) -> "Segment":
        """Return a segment with every row `times` times in succession."""
        if times == 1:
            return self
        rows = torch.arange(len(self), device=self.tokens.device).repeat_interleave(times)
        values = {name: _changed(getattr(self, name), lambda tensor: tensor[rows]) for name in _BY_ROW}
        return replace(self, num_real=None if self.num_real is None else self.num_real * times, **values)

    def split(self, count: int) -> list["Segment"]:
        """Return `count` segments of equally many rows, without their num_real."""
        parts = {name: _changed(getattr(self, name), lambda tensor: tensor.chunk(count)) for name in _BY_ROW}
        return [
            replace(self, num_real=None, **{name: _part(value, number) for name, value in parts.items()})
            for number in range(count)
        ]


def _changed(value: Tensor | PatchMask | None, change: Callable[[Tensor], Any]) -> Any:
    """Apply `change` to a tensor, or to each tensor of a `PatchMask`."""
    if isinstance(value, PatchMask):
        return PatchMask(*map(change, value))
    return None if value is None else change(value)


def _part(chunks: Any, number: int) -> Any:
    return _changed(chunks, lambda parts: parts[number])


def concatenated(parts: Sequence[Segment]) -> Segment:
    """Return one segment with the rows of all parts, which have equal shapes; it has the first one's name."""
    first = parts[0]
    if len(parts) == 1:
        return first
    values: dict[str, Any] = {}
    for name in _BY_ROW:
        rows = [getattr(part, name) for part in parts]
        if isinstance(rows[0], PatchMask):
            values[name] = PatchMask(*map(torch.cat, zip(*rows, strict=True)))
        else:
            values[name] = None if rows[0] is None else torch.cat(rows)
    known = all(part.num_real is not None for part in parts)
    return replace(first, num_real=sum(part.num_real for part in parts) if known else None, **values)


def aligned(segments: Sequence[Segment]) -> list[Segment]:
    """Repeat the rows of segments that have fewer, so that all have equally many.

    An image with n texts is so paired with each of them: texts (B * n, L), grouped by image, and images (B, ...).
    Raises ValueError if the largest number of rows is not a multiple of each.
    """
    rows = max(map(len, segments))
    if any(rows % len(segment) for segment in segments):
        sizes = ", ".join(f"{segment.name}: {len(segment)}" for segment in segments)
        raise ValueError(f"segments cannot be paired, as their numbers of rows are {sizes}")
    return [segment.repeated(rows // len(segment)) for segment in segments]


@dataclass(frozen=True)
class TokenSequence:
    """The tokens of all segments side by side.

    tokens: (B, S, D).
    mask: (B, S) bool, True = real; None: all are.
    num_real: the number of real tokens; None where only a device knows.
    starts_group: (B, S) int, as in `Segment`; None: no segment has any.
    """

    tokens: Tensor
    mask: Tensor | None
    num_real: int | None
    starts_group: Tensor | None

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> "TokenSequence":
        tokens = torch.cat([segment.tokens for segment in segments], dim=1)
        mask = num_real = starts_group = None
        if any(segment.mask is not None for segment in segments):
            mask = torch.cat([_mask(segment) for segment in segments], dim=1)
            counts = [
                segment.tokens[..., 0].numel() if segment.mask is None else segment.num_real for segment in segments
            ]
            num_real = None if None in counts else sum(counts)
        if any(segment.starts_group is not None for segment in segments):
            starts_group = torch.cat([_starts_group(segment) for segment in segments], dim=1)
        return cls(tokens, mask, num_real, starts_group)


def _mask(segment: Segment) -> Tensor:
    if segment.mask is None:
        return torch.ones(segment.tokens.shape[:2], dtype=torch.bool, device=segment.tokens.device)
    return segment.mask.bool()


def _starts_group(segment: Segment) -> Tensor:
    if segment.starts_group is None:
        return torch.zeros(segment.tokens.shape[:2], dtype=torch.int64, device=segment.tokens.device)
    return segment.starts_group


@dataclass(frozen=True)
class Encoded:
    """What one encoder pass returns, after the final norm.

    pooled: (B, D), read at the first token of the sequence.
    segments: the segments of the pass in their order, with encoded tokens; none of a pass that was pooled only.
    """

    pooled: Tensor
    segments: tuple[Segment, ...] = ()

    def segment(self, name: str) -> Segment:
        """Return the segment of a name. Raises KeyError where the pass has none."""
        for segment in self.segments:
            if segment.name == name:
                return segment
        have = ", ".join(segment.name for segment in self.segments) or "none, as it was pooled_only"
        raise KeyError(f"the pass has no segment {name!r}; it has {have}")

    def __getitem__(self, name: str) -> Tensor:
        """Return the encoded tokens (B, L, D) of a segment."""
        return self.segment(name).tokens

    @property
    def patches(self) -> PatchMask | None:
        """Which patches of the first image were dropped at random."""
        return next((segment.patches for segment in self.segments if segment.grid is not None), None)

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the first image in patches; None of a pass without an image."""
        return next((segment.grid for segment in self.segments if segment.grid is not None), None)

    def split(self, names: Sequence[Sequence[str]]) -> list["Encoded"]:
        """Return the parts of several passes that were run as one, with the names of each pass's segments."""
        if len(names) == 1:
            return [self]
        columns = [segment.split(len(names)) for segment in self.segments]
        return [
            Encoded(
                pooled, tuple(replace(column[number], name=name) for column, name in zip(columns, own, strict=False))
            )
            for number, (pooled, own) in enumerate(zip(self.pooled.chunk(len(names)), names, strict=True))
        ]
