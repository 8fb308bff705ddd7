"""Objects in images as detectors of COCO find them: their classes, and their outlines as polygons (Lin et al. 2014)."""

import json
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

Polygon: TypeAlias = Sequence[Sequence[float]]  # corners (x, y), in pixels of the picture

# The categories of COCO in their order, as VCR spells them.
CATEGORIES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "trafficlight"),
    *("firehydrant", "stopsign", "parkingmeter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sportsball", "kite", "baseballbat", "baseballglove", "skateboard", "surfboard"),
    *("tennisracket", "bottle", "wineglass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hotdog", "pizza", "donut", "cake", "chair", "couch"),
    *("pottedplant", "bed", "diningtable", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cellphone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddybear"),
    *("hairdrier", "toothbrush"),
)
NUM_CLASSES = 1 + len(CATEGORIES)  # 0: none of them
_CLASSES = {name: number for number, name in enumerate(CATEGORIES, start=1)}


def class_of(name: str) -> int:
    """The number of a category by its name, with or without blanks, as VL-BERT counts them; 0: it is none of them."""
    return _CLASSES.get(name.replace(" ", "").lower(), 0)


def outline_problem(outlines: Any) -> str:
    """What is wrong with the outlines of objects, each a list of polygons, of which there may be none; empty: nothing."""
    if not isinstance(outlines, list):
        return f"outlines are {str(outlines)[:80]}, expected a list with the polygons of each object"
    for number, polygons in enumerate(outlines):
        valid = isinstance(polygons, list) and all(isinstance(one, list) and len(one) > 2 for one in polygons)
        if not (valid and all(_is_point(point) for one in polygons for point in one)):
            return (
                f"the outline of object {number} is {str(polygons)[:80]}, expected polygons of 3 or more points [x, y]"
            )
    return ""


def _is_point(point: Any) -> bool:
    valid = isinstance(point, list) and len(point) == 2
    return valid and all(type(value) in (int, float) and math.isfinite(value) for value in point)


def read_outlines(text: str) -> list[list[Polygon]]:
    """The outlines of objects out of JSON. Raises ValueError where they are wrong."""
    try:
        outlines = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON ({error})") from error
    if problem := outline_problem(outlines):
        raise ValueError(problem)
    return outlines


def inside(points: np.ndarray, polygons: Sequence[Polygon]) -> np.ndarray:
    """Which of the points (..., 2) lie in any of the polygons, (...) bool.

    A point is inside where a ray to its right crosses an odd number of sides.
    """
    found = np.zeros(points.shape[:-1], dtype=bool)
    x, y = points[..., 0, None], points[..., 1, None]
    for polygon in polygons:
        start = np.asarray(polygon, dtype=np.float64)
        end = np.roll(start, -1, axis=0)
        crosses = (start[:, 1] > y) != (end[:, 1] > y)
        height = np.where(start[:, 1] == end[:, 1], 1.0, end[:, 1] - start[:, 1])  # level sides are never crossed
        at = start[:, 0] + (y - start[:, 1]) * (end[:, 0] - start[:, 0]) / height
        found |= (crosses & (x < at)).sum(axis=-1) % 2 == 1
    return found
