"""Labelled images in every form, and mistakes in them."""

import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.classification.folders import CLASSES, write_folder
from vlc.classification.sources import check_classes, find_shards, open_split
from vlc.data.images import open_image
from vlc.errors import MissingFile, UserError
from write_arrow.__main__ import main as write_arrow
from write_arrow.shards import FORMS


@pytest.fixture(scope="module")
def forms(images, tmp_path_factory):
    """The same images as a folder, and as two shards for each split of every other form."""
    out = tmp_path_factory.mktemp("forms")
    words = ["imagenet", "--root", str(images), "--shard-size", "30", "--workers", "1"]
    for name in FORMS:
        write_arrow([*words, "--format", name, "--out", str(out / name)])
    return {"folder": images, **{name: out / name for name in FORMS}}


@pytest.mark.parametrize("form", ["folder", *FORMS])
def test_every_form_gives_the_same_images(forms, form):
    expected, found = open_split(forms["folder"], "train"), open_split(forms[form], "train")
    assert found.class_names == CLASSES
    assert found.labels.tolist() == expected.labels.tolist() == [0] * 16 + [1] * 16 + [2] * 16
    for number in np.random.default_rng(0).permutation(48).tolist():
        assert bytes(found.read(number)) == bytes(expected.read(number))
    assert found.place(40).table
    if form != "folder":
        assert len(find_shards(forms[form], "train")) == 2
        assert found.place(40).row == 10


def test_the_hubs_parquet_files_are_read(images, tmp_path):
    source = open_split(images, "val")
    cells = [{"bytes": bytes(source.read(number)), "path": None} for number in range(15)]
    table = pa.table({"image": cells, "label": source.labels})
    pq.write_table(table, tmp_path / "validation-00000-of-00001.parquet", row_group_size=4)
    found = open_split(tmp_path, "val")
    assert found.class_names is None
    assert bytes(found.read(14)) == bytes(source.read(14))


def test_shards_are_in_numerical_order(tmp_path):
    for number in (10, 2, 0):
        (tmp_path / f"imagenet_train_{number}.arrow").touch()
    (tmp_path / "imagenet_training.arrow").touch()
    assert [path.stem for path in find_shards(tmp_path, "train")] == [f"imagenet_train_{n}" for n in (0, 2, 10)]


def test_one_of_several_data_sets_is_chosen(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}_train.tar").touch()
    with pytest.raises(UserError, match=r"several data sets.*/a\. There are a, b"):
        find_shards(tmp_path, "train")
    assert find_shards(tmp_path / "b", "train") == [tmp_path / "b_train.tar"]


def test_missing_data_say_what_is_expected(tmp_path):
    with pytest.raises(MissingFile, match="python -m write_arrow imagenet"):
        open_split(tmp_path, "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(MissingFile, match="holds no folder for any class"):
        open_split(tmp_path, "train")


def test_a_number_of_classes_that_does_not_fit(images):
    sources = {split: open_split(images, split) for split in ("train", "val")}
    check_classes(sources, 3)
    with pytest.raises(UserError, match=r"'train' has 3 classes \(blue, green, red, ...\), but --nb_classes is 1000"):
        check_classes(sources, 1000)
    with pytest.raises(UserError, match="pass --nb_classes 3"):
        check_classes(sources, 2)


def test_an_empty_class_is_named(tmp_path):
    root = write_folder(tmp_path, {"train": 2})
    for path in (root / "train" / "green").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="has no images of 1 classes: green"):
        check_classes({"train": open_split(root, "train")}, 3)


def test_splits_with_other_classes_are_refused(tmp_path):
    write_folder(tmp_path, {"train": 1})
    write_folder(tmp_path, {"val": 1}, ("blue", "grey", "red"))
    sources = {split: open_split(tmp_path, split) for split in ("train", "val")}
    with pytest.raises(UserError, match="Class 1 is 'green' in split 'train' and 'grey' in split 'val'"):
        check_classes(sources, 3)


@pytest.mark.parametrize(
    ("name", "content"), [("a_train.tar", b"x" * 600), ("a_train.parquet", b"x"), ("a_train.arrow", b"x")]
)
def test_damaged_shards_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is damaged"):
        open_split(tmp_path, "train")


def test_a_sample_without_label_is_named(tmp_path):
    with tarfile.open(tmp_path / "a_train.tar", "w") as file:
        member = tarfile.TarInfo("000.png")
        member.size = 3
        file.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(UserError, match="000 has no label"):
        open_split(tmp_path, "train")


def test_images_are_zero_copy_views_of_arrow_files(forms):
    source = open_split(forms["arrow"], "val")
    assert isinstance(source.read(3), pa.Buffer)
    assert open_image(source.read(3)).size == (32, 32)
