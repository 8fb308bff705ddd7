"""Segments: embedded inputs side by side in the sequence of an encoder pass, and the encoded segments it returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vlc.common.inputs import mapped, sum_if_known
from vlc.model.masking import PatchMask

# Fields with a row for each example.
_BY_ROW = ("tokens", "mask", "starts_group", "branches", "patches", "patch_indices")


@dataclass(frozen=True)
class Segment:
    """One embedded input: a text, an image, a task token, boxes.

    name: `Encoded` returns the encoded tokens under it.
    tokens: (B, L, D); an image has its class token first, then its patches.
    mask: (B, L), nonzero = real token, zero = padding; None: all tokens are real.
    num_real: the number of real tokens; None where there is a mask and only a device knows.
    starts_group: (B, L) int, 1 = a token that the tokens before it may not see (`vlc.model.patterns.grouped`).
    branches: (B, L) int, the branch of each token, 0 = none (`vlc.model.patterns.branched`).
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
    branches: Tensor | None = None
    patches: PatchMask | None = None
    grid: tuple[int, int] | None = None
    patch_indices: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def repeated(self, times: int) -> "Segment":
        """Return a segment with every row `times` times in succession."""
        if times == 1:
            return self
        repeated = self.at(torch.arange(len(self), device=self.tokens.device).repeat_interleave(times))
        return replace(repeated, num_real=None if self.num_real is None else self.num_real * times)

    def at(self, rows: Tensor | slice) -> "Segment":
        """Return a segment of these rows, without its num_real."""
        return replace(self, num_real=None, **mapped(self._by_row(), Tensor, lambda tensor: tensor[rows]))

    def split(self, count: int) -> list["Segment"]:
        """Return `count` segments of equally many rows, without their num_real."""

        def part(number: int) -> Segment:
            rows = mapped(self._by_row(), Tensor, lambda tensor: tensor.chunk(count)[number])
            return replace(self, num_real=None, **rows)

        return list(map(part, range(count)))

    def _by_row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _BY_ROW}


def concatenated(parts: Sequence[Segment]) -> Segment:
    """Return one segment with the rows of all parts, which have equal shapes; it has the name of the first."""
    if len(parts) == 1:
        return parts[0]
    values: dict[str, Any] = {}
    for name in _BY_ROW:
        rows = [getattr(part, name) for part in parts]
        if isinstance(rows[0], PatchMask):
            values[name] = PatchMask(*map(torch.cat, zip(*rows, strict=True)))
        else:
            values[name] = None if rows[0] is None else torch.cat(rows)
    return replace(parts[0], num_real=sum_if_known(part.num_real for part in parts), **values)


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
    mask: (B, S) bool, True = real; None: all tokens are real.
    num_real: the number of real tokens; None where there is no mask, or only a device knows.
    starts_group, branches: (B, S) int, as in `Segment`; None: no segment has any.
    """

    tokens: Tensor
    mask: Tensor | None
    num_real: int | None
    starts_group: Tensor | None
    branches: Tensor | None

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> "TokenSequence":
        tokens = torch.cat([segment.tokens for segment in segments], dim=1)
        mask = _by_token(segments, "mask", 1)
        starts_group, branches = (_by_token(segments, name, 0) for name in ("starts_group", "branches"))
        num_real = None
        if mask is not None:
            counts = ((one.tokens[..., 0].numel() if one.mask is None else one.num_real) for one in segments)
            num_real, mask = sum_if_known(counts), mask.bool()
        return cls(tokens, mask, num_real, starts_group, branches)


def _by_token(segments: Sequence[Segment], name: str, default: int) -> Tensor | None:
    """Return a field (B, L) of all segments side by side, with the default where a segment has none; None: none has."""
    values = [getattr(segment, name) for segment in segments]
    if all(value is None for value in values):
        return None
    for number, segment in enumerate(segments):
        if values[number] is None:
            values[number] = segment.tokens.new_full(segment.tokens.shape[:2], default, dtype=torch.int64)
    return torch.cat(values, dim=1)


@dataclass(frozen=True)
class Encoded:
    """The result of one encoder pass, after the final norm.

    pooled: (B, D), read at the first token of the sequence.
    segments: the segments of the pass in their order, with encoded tokens; empty if the pass was pooled only.
    pooler: makes the pooled feature (N, D) of sequences (N, L, D), to read it at the first tokens of branches too.
    """

    pooled: Tensor
    segments: tuple[Segment, ...] = ()
    pooler: Callable[[Tensor], Tensor] | None = None

    def segment(self, name: str) -> Segment:
        """Return the segment of this name. Raises KeyError where the pass has none."""
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
        """Rows and columns of the first image in patches; None if the pass has no image."""
        return next((segment.grid for segment in self.segments if segment.grid is not None), None)

    def split(self, names: Sequence[Sequence[str]]) -> list["Encoded"]:
        """Separate passes that were run as one; names: of the segments of each pass."""
        if len(names) == 1:
            return [self]
        columns = [segment.split(len(names)) for segment in self.segments]
        encoded = []
        for number, (pooled, own) in enumerate(zip(self.pooled.chunk(len(names)), names, strict=True)):
            segments = (replace(column[number], name=name) for column, name in zip(columns, own, strict=False))
            encoded.append(Encoded(pooled, tuple(segments), self.pooler))
        return encoded
