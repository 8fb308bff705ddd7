"""REFER's data sets: expressions, boxes and splits as published code reads them; what cannot be used is told."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import GOLDEN
from tests.tiny import image_bytes
from tests.write_arrow.conftest import contents, rows, table
from vlc.common.errors import MissingFile, UserError
from write_arrow.check import check
from write_arrow.machine.storage import Folder
from write_arrow.sources.refer import DATA_SETS

REFERRING = GOLDEN / "tasks/referring"
BY = {"refcoco": "unc", "refcoco+": "unc", "refcocog": "umd", "refclef": "unc"}
TEXTS = ("expressions", "sent_id", "ref_id", "ann_id", "target_boxes", "answer_index")
MODES = {  # by VL-BERT's name of the candidates: the columns
    "gt": ("boxes",),
    "proposal": ("proposal_boxes",),
    "proposal+gt": ("proposal_boxes", "boxes"),
}


def _expected(name: str):
    return json.loads((REFERRING / f"expected/{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def root(tmp_path) -> Path:
    """The golden data sets, to change."""
    return shutil.copytree(REFERRING / "raw", tmp_path / "raw")


def _detections(name: str) -> list[str]:
    return ["--detections", f"detections/{name}_{BY[name]}/res101_coco_minus_refer_notime_dets.json"]


def _expressions(out: Path, name: str, split: str) -> list[dict]:
    """The expressions of a split with all that belongs to each."""
    return [
        {**row, **dict(zip(TEXTS, values, strict=True))}
        for row in table(out / f"{DATA_SETS[name].stem}_{split}.arrow").to_pylist()
        for values in zip(*(row[column] for column in TEXTS), strict=True)
    ]


def _splits(name: str) -> tuple[str, ...]:
    return DATA_SETS[name].divisions[BY[name]]


@pytest.mark.parametrize("name", BY)
def test_splits_boxes_and_indexes_are_those_of_the_refer_api(name, write):
    out, api = write(name, REFERRING / "raw"), _expected("refer_api")[f"{name}_{BY[name]}"]
    for split in _splits(name):
        found = _expressions(out, name, split)
        assert list(dict.fromkeys(one["ref_id"] for one in found)) == api["splits"][split]
        assert {str(one["sent_id"]): one["ref_id"] for one in found}.items() <= api["sent_to_ref"].items()
        for one in found:
            left, top, width, height = api["ref_box"][str(one["ref_id"])]
            assert one["target_boxes"] == [[left, top, left + width, top + height]]
            assert one["boxes"][one["answer_index"]] == one["target_boxes"][0]
            assert one["box_ids"] == api["anns_of_image"][str(one["image_id"])]
            assert one["box_ids"][one["answer_index"]] == one["ann_id"]
    read = {one["sent_id"] for split in _splits(name) for one in _expressions(out, name, split)}
    assert len(read) == api["n_sents"]


@pytest.mark.parametrize("name", ["refcoco", "refcoco+", "refcocog"])
def test_expressions_are_those_of_12_in_1(name, write):
    out = write(name, REFERRING / "raw")
    for split in _splits(name):
        found = {one["sent_id"]: one for one in _expressions(out, name, split)}
        entries = _expected(f"{name}_{split}")["entries"]
        assert len(found) == len(entries)
        for entry in entries:
            one = found[entry["sent_id"]]
            assert (one["expressions"], one["image_id"]) == (entry["caption"], entry["image_id"])
            left, top, width, height = entry["refBox"]
            assert one["target_boxes"] == [[left, top, left + width, top + height]]


@pytest.mark.parametrize("name", BY)
def test_candidates_are_all_annotated_boxes_and_then_the_detected_ones(name, write):
    out = write(name, REFERRING / "raw", *_detections(name))
    found = {one["sent_id"]: one for split in _splits(name) for one in _expressions(out, name, split)}
    for reference in _expected("referring_candidates")[name]:
        for number, text in zip(reference["sent_ids"], reference["raw"], strict=True):
            one = found[number]
            assert one["expressions"] == text
            assert one["boxes"] + one["proposal_boxes"] == reference["candidates"]
            assert len(one["proposal_boxes"]) == len(one["proposal_scores"])
            assert max(one["proposal_scores"]) <= 1


def test_boxes_are_those_of_vl_bert(write):
    out = write("refcoco+", REFERRING / "raw", *_detections("refcoco+"))
    for key, entries in _expected("vlbert_refcoco_plus_plain").items():
        candidates, split, _ = key.split("/")
        found = {one["sent_id"]: one for one in _expressions(out, "refcoco+", split)}
        for entry in entries:
            one = found[entry["sent_id"]]
            last_pixel = np.array([one["width"] - 1, one["height"] - 1] * 2)
            boxes = np.array([box for column in MODES[candidates] for box in one[column]])
            np.testing.assert_allclose(np.minimum(boxes, last_pixel), entry["boxes"][1:], rtol=1e-6)
            assert entry["boxes"][0] == [0, 0, *last_pixel[:2]]


def test_what_was_written_passes_and_does_not_depend_on_workers(write, tmp_path):
    out = write("refclef", REFERRING / "raw", *_detections("refclef"))
    write("refcoco_plus", REFERRING / "raw")
    reports, general = check(Folder(out))
    assert [problem for report in reports for problem in report.problems] + general == []
    assert {reader for report in reports for reader in report.readers} == {
        *(f"refclef {split}" for split in _splits("refclef")),
        *(f"refcoco_plus {split}" for split in _splits("refcoco+")),
    }
    again = write("refclef", REFERRING / "raw", *_detections("refclef"), "--workers", "2", out="again")
    assert contents(again).items() <= contents(out).items()
    assert contents(write("refcoco+", REFERRING / "raw", out="plus")).items() <= contents(out).items()


def _rewrite(root: Path, name: str, change) -> None:
    """Change the references of a data set; they are written as Python 2 would have written them."""
    path = root / name / f"refs({BY[name]}).p"
    references = pickle.loads(path.read_bytes())
    change(references)
    path.write_bytes(pickle.dumps(references, protocol=0))


def _change_json(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _rejected(out: Path, stem: str) -> list[tuple[str, str]]:
    lines = (out / f"{stem}.rejected.jsonl").read_text().splitlines()
    return [(line["path"], line["reason"]) for line in map(json.loads, lines)]


def test_expressions_without_text_or_box_are_listed(root, write):
    def change(references):
        references[0]["sentences"][0]["raw"] = " "
        references[1]["ann_id"] = 7

    _rewrite(root, "refcoco", change)
    out = write("refcoco", root)
    sent_ids = [one["sent_id"] for one in _expressions(out, "refcoco", "train")]
    assert sorted(set(range(5050, 5069)) - set(sent_ids)) == [5050, 5052, 5053]
    assert [reason for _, reason in _rejected(out, "refcoco_train")] == [
        "the expression 5050 has no text",
        *(
            f"the expression {number} refers to the annotation 7, which has no box of positive size in the image"
            for number in (5052, 5053)
        ),
    ]
    assert {path for path, _ in _rejected(out, "refcoco_train")} == {
        "COCO_train2014_000000110100_111003.jpg",
        "COCO_train2014_000000110100_111011.jpg",
    }


def test_boxes_are_cut_to_their_picture_and_the_others_counted(root, write, capsys):
    def change(content):
        for annotation in content["annotations"]:
            if annotation["image_id"] == 110100:  # 120 pixels wide and 48 high
                number = annotation["id"]
                annotation["bbox"] = {
                    111003: [-4, 10, 20, 20],
                    111011: [10, 10, 0, 5],  # the second reference's
                    111019: [119, 47.5, 1.5, 1],  # sticks out by less than a pixel
                }.get(number, annotation["bbox"])
        content["annotations"].append({"id": 9, "image_id": 110100, "bbox": [200, 0, 5, 5], "category_id": 1})

    _change_json(root / "refcoco/instances.json", change)
    out = write("refcoco", root)
    printed = capsys.readouterr().out
    assert "29 annotated boxes: 1 stick out of their picture by more than a pixel and were cut, 2 without" in printed
    (row,) = (row for row in rows(out / "refcoco_train.arrow") if row["image_id"] == 110100)
    assert row["box_ids"] == [111003, 111019, 111020, 111024]
    assert row["boxes"][:2] == [[0, 10, 16, 30], [119, 47.5, 120, 48]]
    assert {reason.partition(", which")[0] for _, reason in _rejected(out, "refcoco_train")} == {
        f"the expression {number} refers to the annotation 111011" for number in (5052, 5053)
    }


def test_images_that_are_missing_or_of_another_size_are_listed(root, write):
    images = root / "images/mscoco/images/train2014"
    (images / "COCO_train2014_000000110107.jpg").unlink()
    (images / "COCO_train2014_000000110100.jpg").write_bytes(image_bytes(size=(48, 120)))
    for words in ((), ("--no-verify",)):
        out = write("refcoco", root, *words)
        assert _rejected(out, "refcoco_train") == [
            ("images/mscoco/images/train2014/COCO_train2014_000000110107.jpg", "no such file"),
            (
                "images/mscoco/images/train2014/COCO_train2014_000000110100.jpg",
                "the picture has 48x120 pixels, and its annotation says 120x48",
            ),
        ]
        assert len(rows(out / "refcoco_train.arrow")) == 3


def test_images_of_saiapr_are_found_in_its_own_folders(root, write):
    images = root / "images/saiapr_tc-12"
    expected = table(write("refclef", root) / "refclef_train.arrow")
    for path in list(images.iterdir()):
        inner = images / path.stem[-1] / "images"
        inner.mkdir(parents=True)
        path.rename(inner / path.name)
    assert table(write("refclef", root, out="nested") / "refclef_train.arrow").equals(expected)


def test_the_division_of_refcocog_whose_images_overlap_has_to_be_asked_for_twice(root, write):
    umd, google = (root / f"refcocog/refs({by}).p" for by in ("umd", "google"))
    kept = [reference for reference in pickle.loads(umd.read_bytes()) if reference["split"] != "test"]
    google.write_bytes(pickle.dumps(kept))
    umd.unlink()
    with pytest.raises(UserError, match=r"refcocog --by google has training images in validation too.*--allow-overlap"):
        write("refcocog", root, "--by", "google")
    out = write("refcocog", root, "--by", "google", "--allow-overlap")
    assert {path.name for path in out.glob("*.arrow")} == {"refcocog_google_train.arrow", "refcocog_google_val.arrow"}
    with pytest.raises(MissingFile, match=r"refs\(umd\)\.p does not exist.*root should hold: refcocog/refs"):
        write("refcocog", root)


def test_a_split_without_expressions_is_told(root, write, capsys):
    def change(references):
        references[:] = [reference for reference in references if reference["split"] != "testB"]

    _rewrite(root, "refcoco", change)
    out = write("refcoco", root)
    assert "refcoco_testB is not written: refcoco/refs(unc).p has no expression of it" in capsys.readouterr().out
    assert {path.stem for path in out.glob("*.arrow")} == {"refcoco_train", "refcoco_val", "refcoco_testA"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda refs: refs[0].update(split="testC"), r"refs\(unc\)\.p: the reference 0 is of split 'testC', not of"),
        (lambda refs: refs[0].update(split="tests"), r"the reference 0 is of split 'tests', not of train, val, testA"),
        (lambda refs: refs[0].pop("ann_id"), r"refs\(unc\)\.p: an entry lacks ref_id, ann_id"),
        (lambda refs: refs[0].update(ann_id=None), r"refs\(unc\)\.p: ann_id is 'None', expected an integer"),
        (lambda refs: refs[0]["sentences"][0].update(raw=3), r"raw is '3', expected a string"),
    ],
)
def test_references_that_are_not_understood_are_told(change, message, root, write):
    _rewrite(root, "refcoco", change)
    with pytest.raises(UserError, match=message):
        write("refcoco", root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.update(bbox=[1, 2, 3]), r"annotation 111003: a box is \[1, 2, 3\], expected four numbers"),
        (lambda one: one.update(bbox=[1, 2, 3, "4"]), r"annotation 111003: a box is .*'4'\], expected four numbers"),
        (lambda one: one.update(image_id=5), r"annotation 111003 is of image 5, which the file lacks"),
        (lambda one: one.pop("bbox"), r"instances\.json: an entry lacks id, image_id, bbox"),
    ],
)
def test_annotations_that_are_not_understood_are_told(change, message, root, write):
    _change_json(root / "refcoco/instances.json", lambda content: change(content["annotations"][0]))
    with pytest.raises(UserError, match=message):
        write("refcoco", root)


def test_detections_in_other_images_are_counted(root, write, capsys):
    def change(content):
        content[0]["image_id"] = 5

    path = root / "detections/refcoco_unc/res101_coco_minus_refer_notime_dets.json"
    _change_json(path, change)
    write("refcoco", root, *_detections("refcoco"))
    assert "1 are in images that refcoco/instances.json lacks" in capsys.readouterr().out
    _change_json(path, lambda content: content[1].update(score=2))
    with pytest.raises(UserError, match="proposal_scores holds 2.0, expected numbers from 0 to 1"):
        write("refcoco", root, *_detections("refcoco"))
