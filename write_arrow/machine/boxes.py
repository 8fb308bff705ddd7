"""Boxes of annotations: read, and cut to their pictures. What is wrong with them is counted."""

from collections.abc import Sequence
from typing import Any

from vlc.common.errors import UserError

_STICKS_OUT = 1  # pixels, from which on a box that is cut is counted


def corners(box: Any, where: str) -> list[float]:
    """A box [left, top, width, height] as [left, top, right, bottom].

    where: the place of the box, for messages.
    Raises UserError where it is not four numbers.
    """
    is_box = isinstance(box, list) and len(box) == 4
    if not is_box or any(isinstance(edge, bool) or not isinstance(edge, int | float) for edge in box):
        raise UserError(f"{where}: a box is {str(box)[:80]}, expected four numbers")
    left, top, width, height = box
    return [left, top, left + width, top + height]


class Cutter:
    """Cuts boxes to their pictures.

    num_cut: how many stuck out by more than a pixel.
    num_unusable: how many are outside of their picture, or have no size in it.
    """

    def __init__(self) -> None:
        self.num_cut = self.num_unusable = 0

    def cut(self, box: Sequence[float], width: int, height: int) -> list[float] | None:
        """The part [left, top, right, bottom] of a box that lies in the picture; None if it is unusable."""
        left, top, right, bottom = box
        inside = [max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))]
        if not (inside[0] < inside[2] and inside[1] < inside[3]):  # also where an edge is no number
            self.num_unusable += 1
            return None
        self.num_cut += max(-left, -top, right - width, bottom - height) > _STICKS_OUT
        return inside

    def note(self, what: str) -> str:
        """A line for the user. what: the boxes, with a capital letter."""
        return (
            f"{what}: {self.num_cut:,} stick out of their picture by more than a pixel and were cut, "
            f"{self.num_unusable:,} without size in it were left out"
        )
