"""12-in-1's caption files: what its loader reads of them, with validation images that are neither trained on nor tested."""

import json
import shutil

import pytest

from tests.conftest import GOLDEN
from tests.write_arrow.conftest import rows
from vlc.common.errors import UserError
from vlc.data.catalog import CATALOG

GOLDENS = GOLDEN / "tasks/retrieval"
NAMES = {"coco_retrieval": "coco", "f30k_retrieval": "flickr30k"}


def _number(name: str) -> int:
    return int(name.rpartition("_")[2].removesuffix(".jpg"))


@pytest.mark.parametrize("name", NAMES)
def test_captions_are_those_that_the_published_loader_reads(write, name):
    """The image without a file is left out and listed; the published loader works on stored features and needs none."""
    root = GOLDENS / "raw" / NAMES[name]
    out = write(name, root)
    missing = [json.loads(line)["path"] for line in (out / f"{name}_train.rejected.jsonl").read_text().splitlines()]
    assert len(missing) == 1
    for split, key in (("train", "entries"), ("val", "captions")):
        published = json.loads((GOLDENS / f"expected/retrieval_{NAMES[name]}_{split}.json").read_text())[key]
        expected = {}
        for entry in published:
            expected.setdefault(entry["image_id"], []).append(entry["caption"])
        found = rows(out / f"{name}_{'train' if split == 'train' else 'test'}.arrow")
        kept = {number: texts for number, texts in expected.items() if all(number != _number(path) for path in missing)}
        assert {_number(row["image_id"]): row["caption"] for row in found} == kept
    karpathy = json.loads((root / f"karpathy/dataset_{NAMES[name]}.json").read_text())["images"]
    validated = {
        image["filename"]: [one["raw"] for one in image["sentences"]] for image in karpathy if image["split"] == "val"
    }
    assert {row["image_id"]: row["caption"] for row in rows(out / f"{name}_val.arrow")} == validated
    assert CATALOG[name].validated() == CATALOG[name].selecting() == ("val",)


def test_validation_images_are_neither_trained_on_nor_tested(write, tmp_path):
    root = shutil.copytree(GOLDENS / "raw/coco", tmp_path / "raw")
    path = root / "karpathy/dataset_coco.json"
    annotations = json.loads(path.read_text())
    moved = [image for image in annotations["images"] if image["split"] in ("train", "test")]
    moved = [next(image for image in moved if image["split"] == split) for split in ("train", "test")]
    for image in moved:
        image["split"] = "val"
    path.write_text(json.dumps(annotations))
    out = write("coco_retrieval", root)
    names = {
        split: {row["image_id"] for row in rows(out / f"coco_retrieval_{split}.arrow")}
        for split in ("train", "val", "test")
    }
    assert {image["filename"] for image in moved} < names["val"]
    assert not names["val"] & (names["train"] | names["test"])
    for split, image in zip(("train", "test"), moved, strict=True):
        listed = (out / f"coco_retrieval_{split}.rejected.jsonl").read_text()
        assert image["filename"] in listed
        assert "an image of Karpathy's validation split" in listed


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"img_path": "a.jpg"}, "an entry lacks img_path, sentences"),
        ({"img_path": "a.jpg", "sentences": [1]}, "sentences of a.jpg are not all texts"),
    ],
    ids=str,
)
def test_other_lines_are_refused(write, tmp_path, line, message):
    root = shutil.copytree(GOLDENS / "raw/flickr30k", tmp_path / "raw")
    with (root / "retrieval/all_data_final_train_2014.jsonline").open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises((UserError, SystemExit), match=message):
        write("f30k_retrieval", root)
