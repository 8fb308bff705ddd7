"""Boxes: what a text means, and what the model takes it to mean, in the picture."""

from typing import Any

from vlc.use.drawing import with_boxes
from vlc.use.report.cards import card
from vlc.use.report.run import Run, head_name
from vlc.use.report.section import Section

_RIGHT, _WRONG = 3, 5  # of each head
_NOTE = (
    "Red: the box that the model gives. Green: the box that is meant. The first examples of each kind, not a selection."
)


def section(run: Run) -> Section | None:
    heads = []
    seen = set()
    for (task, head, split), examples in run.by_head().items():
        own = [one for one in examples if one.boxes and one.meant]
        if not own or (task, head) in seen:
            continue
        seen.add((task, head))
        chosen = [one for one in own if one.score][:_RIGHT] + [one for one in own if not one.score][:_WRONG]
        heads.append({"title": f"{head_name(task, head)}, {split}", "cards": [_card(run, one) for one in chosen]})
    return Section("Grounding", "grounding", {"heads": heads}, _NOTE) if heads else None


def _card(run: Run, example: Any) -> dict[str, Any]:
    boxes = [tuple(example.boxes[0]), *map(tuple, example.meant)]
    labels = ["", *[""] * len(example.meant)]
    pictures = [with_boxes(run.pictures(example)[0], boxes, labels)]
    return card(run, example, mapped=False) | {"pictures": pictures, "choices": []}
