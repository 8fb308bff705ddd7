"""SNLI-VE as it is distributed, with each release's spelling of the image's id."""

import json

import pytest

from tests.tiny import image_bytes
from tests.write_arrow.conftest import table
from vlc.common.errors import UserError


def _entry(number: int, label: str, **image) -> dict:
    return {
        "gold_label": label,
        "sentence1": "premise",
        "sentence2": f"sentence {number}",
        "pairID": f"p{number}",
    } | image


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "raw"
    (folder / "flickr30k-images").mkdir(parents=True)
    for number in (1, 2):
        (folder / f"flickr30k-images/{number}.jpg").write_bytes(image_bytes(number))
    train = [
        _entry(1, "entailment", Flickr30K_ID="1"),
        _entry(2, "neutral", Flickr30kID="2"),
        _entry(3, "contradiction", Flikr30kID="1.jpg"),
        _entry(4, "-", Flickr30K_ID="1"),
        _entry(5, "neutral", captionID="1.jpg#4"),
        _entry(6, "neutral", Flickr30K_ID="3"),
    ]
    for split, entries in {"train": train, "dev": train[:1], "test": train[1:2]}.items():
        (folder / f"snli_ve_{split}.jsonl").write_text("\n".join(map(json.dumps, entries)))
    return folder


def test_sentences_of_an_image_stand_together(root, write):
    out = write("snli_ve", root)
    rows = {row["image_id"]: row for row in table(out / "snli_train.arrow").to_pylist()}
    assert rows["1"]["sentences"] == ["sentence 1", "sentence 3", "sentence 5"]
    assert rows["1"]["labels"] == [2, 0, 1]
    assert rows["1"]["pair_id"] == ["p1", "p3", "p5"]
    assert rows["1"]["premises"] == ["premise"] * 3
    assert rows["1"]["image"] == (root / "flickr30k-images/1.jpg").read_bytes()
    assert rows["2"]["labels"] == [1]
    rejected = json.loads((out / "snli_train.rejected.jsonl").read_text())
    assert rejected == {"path": "flickr30k-images/3.jpg", "reason": "no such file"}
    assert {path.stem for path in out.glob("*.arrow")} == {"snli_train", "snli_dev", "snli_test"}


def test_unknown_labels_are_told(root, write):
    (root / "snli_ve_dev.jsonl").write_text(json.dumps(_entry(9, "maybe", Flickr30K_ID="1")))
    with pytest.raises(UserError, match=r"snli_ve_dev\.jsonl: p9 has label 'maybe'"):
        write("snli_ve", root)
