"""Boxes: what a text means, and what the model takes it to mean, in the picture."""

from typing import Any

from PIL import Image

from vlc.evaluation.drawing import with_boxes
from vlc.use.report.cards import card
from vlc.use.report.run import Run, head_name
from vlc.use.report.section import Section

_RIGHT, _WRONG = 3, 5  # of each head
_SIDE = 320  # pixels of a picture, about
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
    (picture, *_) = run.pictures(example)
    scale = max(1, round(_SIDE / max(picture.size)))  # lines are thin in a large picture
    larger = picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.BICUBIC)
    boxes = [tuple(scale * edge for edge in box) for box in (example.boxes[0], *example.meant)]
    return card(run, example) | {"pictures": [with_boxes(larger, boxes, [""] * len(boxes))], "choices": []}
