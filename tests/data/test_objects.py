"""Outlines of objects as masks of their boxes, and their classes: those of VL-BERT's published loader."""

import json

import numpy as np
import pytest

from tests.conftest import GOLDEN
from vlc.data.geometry import Placement
from vlc.data.objects import CATEGORIES, NUM_CLASSES, class_of, inside, outline_problem, read_outlines
from vlc.data.parts.regions import placed_boxes, with_objects

VCR = GOLDEN / "tasks/vcr"
SQUARE = [[10, 10], [30, 10], [30, 30], [10, 30]]


def _entries(split: str) -> list[dict]:
    return [json.loads(line) for line in (VCR / f"vcr1annots/{split}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_masks_are_those_of_vl_bert_but_at_their_edges_and_classes_are_equal(split):
    """VL-BERT counts a pixel at the end of each side, and fills polygons by another rule for samples at their edges."""
    expected, loader = np.load(VCR / "vcr_masks.npz"), json.loads((VCR / "loader_vlbert.json").read_text())
    boxes_of = {entry["annot_id"]: entry["boxes"] for entry in loader[f"Q2A/{split}"]}
    for entry in _entries(split):
        metadata = json.loads((VCR / "vcr1images" / entry["metadata_fn"]).read_text())
        boxes = [(*box[:2], box[2] + 1, box[3] + 1) for box in metadata["boxes"]]
        placed = placed_boxes("boxes", boxes, Placement.whole((metadata["width"] + 1, metadata["height"] + 1)))
        found = with_objects(placed, entry["objects"], metadata["segms"])
        masks = expected[entry["annot_id"]][1:].astype(bool)  # the first one is of the whole image
        for own, mask, outline in zip(found.outlines, masks, metadata["segms"], strict=True):
            assert (own != mask).sum() <= 16 if outline else own.all()
        assert found.classes.tolist() == [int(box[5]) for box in boxes_of[entry["annot_id"]][1:]]


def test_an_outline_follows_a_mirrored_and_cropped_image():
    left_half = [[[10, 10], [20, 10], [20, 30], [10, 30]]]
    whole = Placement.whole((40, 40))
    boxes = [[10, 10, 30, 30]]
    (upright,) = with_objects(placed_boxes("boxes", boxes, whole), None, [left_half]).outlines
    assert upright[:, :7].all()
    assert not upright[:, 7:].any()
    (mirrored,) = with_objects(placed_boxes("boxes", boxes, whole.mirror()), None, [left_half]).outlines
    assert np.array_equal(mirrored, upright[:, ::-1])
    cropped = Placement.of_crop((15, 0, 40, 40), (50, 80))  # of the box, a quarter is lost
    (rest,) = with_objects(placed_boxes("boxes", boxes, cropped), None, [left_half]).outlines
    assert rest.mean() == pytest.approx(1 / 3, abs=0.05)
    assert rest[:, 0].all()


def test_an_object_without_outline_or_with_one_elsewhere_counts_as_a_whole():
    placed = placed_boxes("boxes", [[10, 10, 30, 30]] * 2, Placement.whole((40, 40)))
    assert with_objects(placed, None, [[], [[[0, 0], [5, 0], [0, 5]]]]).outlines.all()
    with pytest.raises(ValueError, match="1 objects for 2 boxes"):
        with_objects(placed, None, [[]])


def test_points_in_polygons():
    points = np.array([[20.0, 20.0], [5, 20], [29, 11], [31, 11], [50, 50]])
    assert inside(points, [SQUARE]).tolist() == [True, False, True, False, False]
    assert inside(points, [SQUARE, [[40, 40], [60, 40], [50, 60]]]).tolist() == [True, False, True, False, True]


def test_classes():
    assert NUM_CLASSES == 81
    assert len(set(CATEGORIES)) == 80
    assert [class_of(name) for name in ("person", "traffic light", "trafficlight", "thing")] == [1, 10, 10, 0]


@pytest.mark.parametrize(
    ("outlines", "problem"),
    [
        ([[SQUARE], []], ""),
        ({"a": 1}, "outlines are {'a': 1}"),
        ([[], [[[1, 2], [3, 4]]]], "the outline of object 1 is [[[1, 2], [3, 4]]]"),
        ([[[[1, 2], [3, 4], [5]]]], "expected polygons of 3 or more points"),
        ([[[[1, 2], [3, 4], [5, float("nan")]]]], "the outline of object 0"),
        ([[[[1, 2], [3, 4], [5, True]]]], "the outline of object 0"),
    ],
)
def test_wrong_outlines_are_named(outlines, problem):
    assert outline_problem(outlines).startswith(problem) or problem in outline_problem(outlines)
    assert bool(outline_problem(outlines)) == bool(problem)
    if problem:
        with pytest.raises(ValueError, match="outline"):
            read_outlines(json.dumps(outlines))
