"""FOIL-COCO as it is distributed: captions of an image together, ids that differ, and a validation split of the images."""

import json

import numpy as np
import pytest

from tests.conftest import GOLDEN
from tests.tiny import image_bytes
from tests.write_arrow.conftest import table
from vlc.common.errors import MissingFile, UserError
from vlc.data.tokens import TextEncoder, load_tokenizer

STATEMENTS = GOLDEN / "tasks/statements"
FOLDERS = {"train": "train2014", "test": "val2014"}


def _annotations(split: str) -> dict:
    return json.loads((STATEMENTS / f"foilv1.0_{split}_2017.json").read_text(encoding="utf-8"))


@pytest.fixture
def root(tmp_path):
    """The golden annotations with images."""
    for split, folder in FOLDERS.items():
        place = tmp_path / "raw" / folder
        place.mkdir(parents=True)
        content = _annotations(split)
        (tmp_path / f"raw/foilv1.0_{split}_2017.json").write_text(json.dumps(content))
        for image in content["images"]:
            (place / image["file_name"]).write_bytes(image_bytes(image["id"]))
    return tmp_path / "raw"


def _captions(out, *splits: str) -> list[dict]:
    """The captions of tables with what belongs to each, in the order of their annotations."""
    lists = ("captions", "labels", "caption_ids", "foil_words", "target_words")
    rows = [row for split in splits for row in table(out / f"foil_{split}.arrow").to_pylist()]
    told = [
        dict(zip(lists, values, strict=True), image_id=row["image_id"])
        for row in rows
        for values in zip(*(row[name] for name in lists), strict=True)
    ]
    return sorted(told, key=lambda one: int(one["caption_ids"].rpartition("-")[2]))


@pytest.mark.parametrize(("split", "tables"), [("train", ("train", "val")), ("test", ("test",))])
def test_captions_labels_images_and_tokens_are_those_of_the_published_loader(root, write, split, tables):
    captions = _captions(write("foil", root), *tables)
    published = np.load(STATEMENTS / f"expected/foil_{split}.npz")
    entries = json.loads((STATEMENTS / f"expected/foil_{split}.json").read_text(encoding="utf-8"))["entries"]
    assert [one["captions"].lower() for one in captions] == [entry["caption"] for entry in entries]
    assert [one["labels"] for one in captions] == published["target"].tolist()
    assert [one["image_id"] for one in captions] == published["id"].tolist()
    encoder = TextEncoder(load_tokenizer(str(STATEMENTS)), 20)
    for one, tokens, mask in zip(captions, published["tokens"], published["input_mask"], strict=True):
        assert encoder(one["captions"]).ids == tokens[mask == 1].tolist()


def test_originals_and_foils_have_ids_of_their_own_and_their_words(root, write):
    captions = _captions(write("foil", root), "train", "val")
    names = [one["caption_ids"] for one in captions]
    assert len(names) == len(set(names))
    for place, (one, entry) in enumerate(zip(captions, _annotations("train")["annotations"], strict=True)):
        assert one["caption_ids"] == f"{entry['id']}-{place}"
        assert (one["foil_words"], one["target_words"]) == (entry["foil_word"], entry["target_word"])


def test_validation_has_a_part_of_the_training_images(root, write):
    def images(out, split):
        return {row["image_id"] for row in table(out / f"foil_{split}.arrow").to_pylist()}

    out = write("foil", root)
    assert (len(images(out, "train")), len(images(out, "val"))) == (2, 1)
    assert not images(out, "train") & images(out, "val")
    assert set(table(out / "foil_val.arrow")["split"].to_pylist()) == {"val"}
    more = write("foil", root, "--val-share", "0.6", out="more")
    assert (len(images(more, "train")), len(images(more, "val"))) == (1, 2)
    assert images(write("foil", root, out="again"), "val") == images(out, "val")
    assert len({frozenset(images(write("foil", root, "--seed", seed, out=seed), "val")) for seed in "123456"}) > 1


@pytest.mark.parametrize("share", ["0", "1", "-1"])
def test_shares_that_leave_nothing_are_refused(root, write, share, capsys):
    with pytest.raises(SystemExit):
        write("foil", root, "--val-share", share)
    assert "should be above 0 and below 1" in capsys.readouterr().err


def test_missing_images_are_listed(root, write):
    first = _annotations("train")["images"][0]["file_name"]
    (root / "train2014" / first).unlink()
    out = write("foil", root)
    rejected = json.loads((out / "foil_train.rejected.jsonl").read_text())
    assert rejected == {"path": f"train2014/{first}", "reason": "no such file"}
    for path in (root / "val2014").iterdir():
        path.unlink()
    with pytest.raises(MissingFile, match=r"foil_test: no image .*root should hold: foilv1.*, val2014/\*\.jpg"):
        write("foil", root, out="none")


def test_labels_that_are_no_truth_are_told(root, write):
    content = _annotations("test")
    content["annotations"][0]["foil"] = "yes"
    (root / "foilv1.0_test_2017.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"foilv1\.0_test_2017\.json: foil is 'yes', expected true or false"):
        write("foil", root)
