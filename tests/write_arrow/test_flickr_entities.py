"""Flickr30k Entities: phrases and boxes as published code reads them; what cannot be used is told."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import GOLDEN
from tests.tiny import image_bytes
from tests.write_arrow.conftest import contents, table
from vlc.common.errors import MissingFile, UserError
from write_arrow.check import check
from write_arrow.machine.storage import Folder

ENTITIES = GOLDEN / "tasks/flickr_entities"
SPLITS = ("train", "val", "test")
TEXTS = ("phrases", "phrase_id", "chain_id", "phrase_types", "target_boxes")


def _expected(name: str):
    return json.loads((ENTITIES / f"expected/{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def root(tmp_path) -> Path:
    """The golden data set, to change."""
    return shutil.copytree(ENTITIES / "raw", tmp_path / "raw")


def _phrases(out: Path, split: str) -> list[dict]:
    """The phrases of a split with all that belongs to each."""
    return [
        {**row, **dict(zip(TEXTS, values, strict=True))}
        for row in table(out / f"flickr_entities_{split}.arrow").to_pylist()
        for values in zip(*(row[column] for column in TEXTS), strict=True)
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    from write_arrow.__main__ import main

    out = tmp_path_factory.mktemp("entities")
    main(["flickr_entities", "--root", str(ENTITIES / "raw"), "--out", str(out), "--workers", "1"])
    return out


@pytest.mark.parametrize("split", SPLITS)
def test_phrases_and_their_first_boxes_are_those_of_12_in_1(split, written):
    found = [
        {
            "caption": one["phrases"],
            "sent_id": one["chain_id"],
            "image_id": one["image_id"],
            "refBox": one["target_boxes"][0],
        }
        for one in _phrases(written, split)
    ]
    assert found == _expected(f"flickr_entities_{split}")["entries"]


def test_boxes_sizes_and_types_are_those_of_the_parsers(written):
    parsed = _expected("parsed")
    for split in SPLITS:
        for one in _phrases(written, split):
            annotation = parsed[str(one["image_id"])]["annotation"]
            assert (one["width"], one["height"]) == (annotation["width"], annotation["height"])
            assert one["target_boxes"] == annotation["boxes"][one["chain_id"]]
            assert {tuple(box) for box in one["boxes"]} == {
                tuple(box) for boxes in annotation["boxes"].values() for box in boxes
            }
            _, caption, number = one["phrase_id"].split("-")
            phrase = parsed[str(one["image_id"])]["sentences"][int(caption)]["phrases"][int(number)]
            assert (one["phrases"], one["chain_id"]) == (phrase["phrase"], phrase["phrase_id"])
            assert one["phrase_types"] == "/".join(phrase["phrase_type"])


def test_all_boxes_of_a_chain_are_targets(written):
    by_phrase = {
        (one["image_id"], int(one["phrase_id"].split("-")[1]), one["phrases"]): one
        for split in SPLITS
        for one in _phrases(written, split)
    }
    rows = [
        row for row in _expected("phrases")["rows"] if (row["image_id"], row["sentence"], row["phrase"]) in by_phrase
    ]
    assert len(rows) > 20
    for row in rows:
        one = by_phrase[row["image_id"], row["sentence"], row["phrase"]]
        assert (one["chain_id"], one["target_boxes"]) == (row["chain"], row["boxes"])


def test_what_was_written_passes_and_phrases_without_box_are_counted(write, written, capsys):
    out = write("flickr_entities", ENTITIES / "raw", "--workers", "2")
    told = "flickr_entities_train: 3 images; phrases: 15 with boxes, 3 not visual, 3 of the scene, 3 without box"
    assert told in capsys.readouterr().out
    assert contents(out) == contents(written)
    reports, general = check(Folder(out))
    assert [problem for report in reports for problem in report.problems] + general == []
    assert [report.readers for report in reports] == [[f"flickr_entities {split}"] for split in sorted(SPLITS)]


def _replace(path: Path, old: str, new: str, count: int = -1) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, count), encoding="utf-8")


def _rejected(out: Path) -> list[tuple[str, str]]:
    lines = (out / "flickr_entities_train.rejected.jsonl").read_text().splitlines()
    return [(line["path"], line["reason"]) for line in map(json.loads, lines)]


def test_phrases_that_cannot_be_used_are_listed(root, write, capsys):
    annotations, sentences = root / "entities/Annotations/140001.xml", root / "entities/Sentences/140001.txt"
    _replace(annotations, "<xmax>25</xmax>", "<xmax>1</xmax>")  # the only box of chain 110502
    _replace(annotations, "<xmax>80</xmax>", "<xmax>85</xmax>")  # sticks out of 80 pixels
    _replace(sentences, "[/EN#110503/clothing/other The yellow circle]", "[/EN#110503/clothing/other  ]")
    _replace(sentences, "[/EN#110501/people “naïve” shapes]", "[/EN#110501/people “naïve” shapes")
    out = write("flickr_entities", root)
    assert _rejected(out) == [
        ("flickr30k-images/140001.jpg", "the phrase 140001-0-1 has no box of positive size in the image"),
        ("flickr30k-images/140001.jpg", "the phrase 140001-1-0 has no text"),
        (
            "flickr30k-images/140001.jpg",
            "caption 2 has a mark that is not [/EN#CHAIN/TYPE WORDS]: 'A view of [/EN#110506/other the air] , "
            "[/EN#110501/people “naïve” shapes .'",
        ),
        ("flickr30k-images/140001.jpg", "the phrase 140001-4-0 has no box of positive size in the image"),
    ]
    printed = capsys.readouterr().out
    assert "Boxes: 1 stick out of their picture by more than a pixel and were cut, 1 without size" in printed
    (one,) = (one for one in _phrases(out, "train") if one["image_id"] == 140001)
    assert one["phrases"] == "Two white triangles"
    assert one["target_boxes"][2] == [0, 0, 80, 79]


def test_images_that_are_missing_or_of_another_size_are_listed(root, write):
    (root / "flickr30k-images/140014.jpg").unlink()
    (root / "flickr30k-images/140001.jpg").write_bytes(image_bytes(size=(80, 79)))
    out = write("flickr_entities", root)
    assert _rejected(out) == [
        ("flickr30k-images/140014.jpg", "no such file"),
        ("flickr30k-images/140001.jpg", "the picture has 80x79 pixels, and its annotation says 80x80"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<annotation>", "<annotation", "is no annotation of Flickr30k Entities"),
        ("<width>80</width>", "", "is no annotation of Flickr30k Entities .invalid literal"),
        ("<xmin>11</xmin>", "<xmin>left</xmin>", "is no annotation of Flickr30k Entities .could not convert"),
        ("<ymax>56</ymax>", "", "is no annotation of Flickr30k Entities"),
        (
            "<annotation>",
            '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><annotation><a>&c;</a>',
            "declares a document type",
        ),
    ],
)
def test_files_that_are_not_understood_are_told(old, new, message, root, write):
    _replace(root / "entities/Annotations/140001.xml", old, new, 1)
    with pytest.raises(UserError, match=rf"140001\.xml {message}"):
        write("flickr_entities", root)


def test_lists_and_files_that_are_wrong_are_told(root, write):
    (root / "entities/Sentences/140014.txt").write_bytes(b"[/EN#1/people caf\xe9]\n")
    with pytest.raises(UserError, match=r"140014\.txt is not UTF-8"):
        write("flickr_entities", root)
    (root / "entities/Annotations/140014.xml").unlink()
    with pytest.raises(MissingFile, match=r"140014\.xml does not exist.*root should hold: entities/Annotations"):
        write("flickr_entities", root)
    (root / "entities/train.txt").write_text("../140001\n")
    with pytest.raises(UserError, match=r"train\.txt: '\.\./140001' should be the number of an image"):
        write("flickr_entities", root)
