"""SNLI-VE as it is distributed, with each release's spelling of the image's id."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest

from tests.conftest import GOLDEN
from tests.tiny import image_bytes
from tests.write_arrow.conftest import table
from vlc.common.errors import MissingFile, UserError
from vlc.data.tokens import TextEncoder, load_tokenizer
from write_arrow.__main__ import main

STATEMENTS = GOLDEN / "tasks/statements"


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
    rejected = [json.loads(line) for line in (out / "snli_train.rejected.jsonl").read_text().splitlines()]
    assert rejected == [
        {"path": "flickr30k-images/1.jpg", "reason": "the sentence p4 has no gold label"},
        {"path": "flickr30k-images/3.jpg", "reason": "no such file"},
    ]
    assert {path.stem for path in out.glob("*.arrow")} == {"snli_train", "snli_dev", "snli_test"}


def test_unknown_labels_are_told(root, write):
    (root / "snli_ve_dev.jsonl").write_text(json.dumps(_entry(9, "maybe", Flickr30K_ID="1")))
    with pytest.raises(UserError, match=r"snli_ve_dev\.jsonl: p9 has label 'maybe'"):
        write("snli_ve", root)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The golden files, written; each split spells the image's id in its own way, and some rows have none."""
    raw, out = (tmp_path_factory.mktemp(name) for name in ("raw", "out"))
    (raw / "flickr30k-images").mkdir()
    for path in STATEMENTS.glob("snli_ve_*.jsonl"):
        shutil.copy(path, raw)
        for line in path.read_text(encoding="utf-8").splitlines():
            name = json.loads(line)["captionID"].partition("#")[0]
            (raw / "flickr30k-images" / name).write_bytes(image_bytes(int(name.removesuffix(".jpg"))))
    main(["snli_ve", "--root", str(raw), "--out", str(out), "--workers", "1"])
    return out


def _sentences(out, split: str) -> list[tuple[str, str, str, int]]:
    rows = table(out / f"snli_{split}.arrow").to_pylist()
    columns = ("pair_id", "sentences", "labels")
    return [(row["image_id"], *told) for row in rows for told in zip(*(row[name] for name in columns), strict=True)]


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_the_sentences_are_those_that_should_be_read(written, split):
    expected = json.loads((STATEMENTS / "expected/snli_ve.json").read_text(encoding="utf-8"))[split]
    wanted = [(str(one["image"]), one["pairID"], one["hypothesis"], one["label"]) for one in expected]
    assert Counter(_sentences(written, split)) == Counter(wanted)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_tokens_and_labels_are_those_of_the_published_loader(written, split):
    """It keeps the sentences without a gold label, with a target of zeros."""
    published = np.load(STATEMENTS / f"expected/snli_ve_{split}.npz")
    ours = {pair: (sentence, label) for _, pair, sentence, label in _sentences(written, split)}
    encoder = TextEncoder(load_tokenizer(str(STATEMENTS)), 56)
    lines = (STATEMENTS / f"snli_ve_{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = zip(published["tokens"], published["input_mask"], published["target"], strict=True)
    for line, (tokens, mask, target) in zip(lines, rows, strict=True):
        if not target.any():
            assert json.loads(line)["pairID"] not in ours
            continue
        sentence, label = ours[json.loads(line)["pairID"]]
        assert encoder(sentence).ids == tokens[mask == 1].tolist()
        assert target.tolist() == np.eye(3)[label].tolist()


@pytest.mark.parametrize("has_folder", [True, False])
def test_without_images_it_is_told_which_file_has_them(root, write, has_folder):
    shutil.rmtree(root / "flickr30k-images")
    if has_folder:
        (root / "flickr30k-images").mkdir()
    with pytest.raises(MissingFile, match=r"root should hold: .*flickr30k-images\.tar of Flickr30k"):
        write("snli_ve", root)


def test_entries_that_name_no_image_are_told(root, write):
    (root / "snli_ve_dev.jsonl").write_text(json.dumps(_entry(1, "neutral", Flickr30K_ID=None)))
    with pytest.raises(UserError, match=r"snli_ve_dev\.jsonl: an entry lacks captionID"):
        write("snli_ve", root)
