"""Labelled images in every form, and mistakes in them."""

import io
import multiprocessing
import os
import pickle
import re
import shutil
import tarfile
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.labelled_folders import CLASSES, write_folder
from tests.tiny import image_bytes
from vlc.common.errors import MissingFile, UserError
from vlc.data.images import open_image
from vlc.data.labelled.splits import check_classes, find_shards, open_split
from write_arrow.__main__ import main as write_arrow
from write_arrow.machine.shards import FILE_FORMATS


@pytest.fixture(scope="module")
def forms(images, tmp_path_factory):
    """The same images as a folder, and as two shards for each split of every other form."""
    out = tmp_path_factory.mktemp("forms")
    words = ["imagenet", "--root", str(images), "--shard-size", "30", "--workers", "1"]
    for name in FILE_FORMATS:
        write_arrow([*words, "--format", name, "--out", str(out / name)])
    return {"folder": images, **{name: out / name for name in FILE_FORMATS}}


@pytest.mark.parametrize("form", ["folder", *FILE_FORMATS])
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


def test_keys_with_dots_and_further_parts_of_a_sample(tmp_path):
    """As the captions converter divides names: up to the last dot; `a.mask.png` has no label and belongs to `a`."""
    members = [
        ("a.jpg", b"1"),
        ("a.mask.png", b"22"),
        ("a.cls", b"0"),
        ("track 2.0.jpg", b"333"),
        ("track 2.0.cls", b"1"),
    ]
    members += [("./c.v1.jpg", b"4444"), ("c.v1.cls", b"2"), ("._c.v1.jpg", b"of macOS")]
    with tarfile.open(tmp_path / "a_train.tar", "w") as file:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    source = open_split(tmp_path, "train")
    assert source.labels.tolist() == [0, 1, 2]
    assert [source.read(number).to_pybytes() for number in range(3)] == [b"1", b"333", b"4444"]


def test_images_are_zero_copy_views_of_arrow_files(forms):
    source = open_split(forms["arrow"], "val")
    assert isinstance(source.read(3), pa.Buffer)
    assert open_image(source.read(3)).size == (32, 32)


@pytest.mark.parametrize(
    ("labels", "row", "told"),
    [
        ([0, -1, 1], 1, "-1"),
        ([0, 1, None], 2, "None"),
        (["0", "1", "2"], 0, "'0'"),
        ([0.0, 1.0, 1.5], 2, "1.5"),
        ([0, 1, 2**40], 2, str(2**40)),
        ([True, False, True], 0, "True"),
    ],
)
@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_labels_that_are_none_are_told_with_file_and_row(tmp_path, kind, labels, row, told):
    _write_labels(tmp_path, kind, pa.array(labels))
    with pytest.raises(
        UserError, match=rf"Row {row} of .*d_train_0\.{kind}: label is {re.escape(told)}, expected a whole"
    ):
        open_split(tmp_path, "train")


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
@pytest.mark.parametrize("labels_type", [pa.uint8(), pa.float32(), pa.dictionary(pa.int8(), pa.int64())])
def test_labels_of_any_type_of_whole_numbers(tmp_path, kind, labels_type):
    _write_labels(tmp_path, kind, pa.array([0, 2, 1], labels_type))
    source = open_split(tmp_path, "train")
    assert source.labels.tolist() == [0, 2, 1]
    assert source.class_names == ("a", "b", "c")


def test_shards_may_differ_in_the_type_of_their_labels(tmp_path):
    _write_labels(tmp_path, "arrow", pa.array([0, 2, 1]))
    _write_labels(tmp_path, "arrow", pa.array([0, 2, 1], pa.int16()), number=1)
    assert open_split(tmp_path, "train").labels.tolist() == [0, 2, 1] * 2


def test_class_names_that_are_no_strings_are_told(tmp_path):
    _write_labels(tmp_path, "arrow", pa.array([0, 1, 2]), names=[1, 2, 3])
    with pytest.raises(UserError, match=r"d_train_0\.arrow: column class_name is int64, expected strings"):
        open_split(tmp_path, "train")


def _write_labels(folder, kind: str, labels: pa.Array, number: int = 0, names=("a", "c", "b")) -> None:
    table = pa.table({"image": [b"x"] * 3, "label": labels, "class_name": list(names)})
    path = f"{folder}/d_train_{number}.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
        return
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def test_hidden_files_are_no_images_and_hidden_folders_no_classes(tmp_path):
    root = write_folder(tmp_path, {"train": 2})
    expected = open_split(root, "train")
    image = bytes(expected.read(0))
    for name in (".ipynb_checkpoints/a.png", "green/._0.png", "green/.ipynb_checkpoints/0.png", "__MACOSX/x.png"):
        (root / "train" / name).parent.mkdir(exist_ok=True)
        (root / "train" / name).write_bytes(image)
    found = open_split(root, "train")
    assert found.class_names == CLASSES
    assert found.labels.tolist() == expected.labels.tolist()


def test_names_that_are_not_utf8_are_read(tmp_path):
    root = write_folder(tmp_path, {"train": 1})
    os.rename(root / "train/green/0.png", os.fsencode(root) + b"/train/green/\xff.png")
    found = open_split(root, "train")
    assert len(found.labels) == 3
    assert open_image(found.read(1)).size == (32, 32)


def test_data_path_may_have_any_name(forms, tmp_path):
    for form in FILE_FORMATS:
        folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff" + form.encode())
        shutil.copytree(forms[form], folder)
        for verify in (False, True):
            source = open_split(folder, "val", verify=verify)
            assert open_image(source.read(0)).size == (32, 32)


def test_a_picture_that_is_not_there_is_named(tmp_path):
    root = write_folder(tmp_path, {"train": 1})
    source = open_split(root, "train")
    (root / "train/green/0.png").unlink()
    with pytest.raises(UserError, match=r"green/0\.png was there at the start and cannot be read now"):
        source.read(1)
    (root / "train/green/0.png").symlink_to(root / "nowhere.png")
    with pytest.raises(MissingFile, match=r"green/0\.png is a link to a file that does not exist"):
        open_split(root, "train")


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_a_shard_that_is_replaced_while_it_is_read(form, images, tmp_path):
    """By a file of the same rows in another order: never another picture's label."""
    words = ["imagenet", "--root", str(images), "--workers", "1", "--format", form]
    for seed in (1, 2):
        write_arrow([*words, "--seed", str(seed), "--out", str(tmp_path / str(seed))])
    source = open_split(tmp_path / "1", "val")
    expected, travelling = [bytes(source.read(number)) for number in range(3)], pickle.dumps(source)
    (path,) = (tmp_path / "1").glob("*_val_*")
    os.replace(tmp_path / "2" / path.name, path)
    if form == "webdataset":  # an open tar file stays what it was
        assert bytes(source.read(2)) == expected[2]
    else:
        with pytest.raises(UserError, match=r"_val_0.* was changed while this program was reading it"):
            source.read(2)
    with pytest.raises(UserError, match="was changed"):
        _in_another_process(travelling)


def _in_another_process(travelling: bytes) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(_read_first, travelling).result()


def _read_first(travelling: bytes) -> bytes:
    return bytes(pickle.loads(travelling).read(0))


def test_shards_of_two_conversions_are_not_mixed(images, tmp_path):
    words = ["imagenet", "--root", str(images), "--workers", "1", "--shard-size", "30", "--format", "parquet"]
    for seed in (1, 2):
        write_arrow([*words, "--seed", str(seed), "--out", str(tmp_path / str(seed))])
    os.replace(tmp_path / "2/imagenet_train_1.parquet", tmp_path / "1/imagenet_train_1.parquet")
    with pytest.raises(UserError, match=r"different conversions.*python -m write_arrow imagenet"):
        open_split(tmp_path / "1", "train")
    os.remove(tmp_path / "1/imagenet_train_1.parquet")
    with pytest.raises(UserError, match=r"imagenet_train_1\.parquet is missing"):
        open_split(tmp_path / "1", "train")


def test_a_null_image_is_named(tmp_path):
    table = pa.table({"image": [b"x", None], "label": [0, 1], "class_name": ["a", "b"]})
    pq.write_table(table, tmp_path / "a_train.parquet")
    with pa.ipc.new_file(str(tmp_path / "b_train.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    with pytest.raises(UserError, match=r"no image in row 1 \(it is null\): remove the row"):
        open_split(tmp_path / "a", "train").read(1)
    with pytest.raises(UserError, match=r"b_train\.arrow has 1 rows without an image, the first of them row 1.*remove"):
        open_split(tmp_path / "b", "train")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": ["x"], "label": [0]}, "column image holds string, expected encoded images"),
        ({"image": [{"path": "x"}], "label": [0]}, "column image holds"),
        ({"image": [b"x"], "label": ["dog"]}, "Row 0 of .*a_train.parquet: label is 'dog'"),
        ({"image": [b"x"], "label": [0], "class_name": [1]}, "column class_name is int64, expected strings"),
    ],
)
def test_columns_of_another_type_are_named_at_the_start(columns, message, tmp_path):
    pq.write_table(pa.table(columns), tmp_path / "a_train.parquet")
    with pytest.raises(UserError, match=message):
        open_split(tmp_path, "train")


@pytest.mark.parametrize("suffix", ["arrow", "parquet", "tar"])
def test_pointers_of_git_lfs_are_named(suffix, tmp_path):
    (tmp_path / f"a_train.{suffix}").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UserError, match=rf"a_train\.{suffix}.*pointer of Git LFS.*git lfs pull"):
        open_split(tmp_path, "train")


def test_row_groups_that_would_grow_out_of_proportion_are_refused(tmp_path, monkeypatch):
    table = pa.table({"image": [bytes(20 * 2**20)], "label": [0]})
    pq.write_table(table, tmp_path / "a_train.parquet", compression="zstd", use_dictionary=False)
    assert (tmp_path / "a_train.parquet").stat().st_size < 2**16
    monkeypatch.setenv("VLC_MAX_INFLATED_MIB", "8")
    with pytest.raises(UserError, match="would grow to 20,.*VLC_MAX_INFLATED_MIB"):
        open_split(tmp_path, "train")
    monkeypatch.setenv("VLC_MAX_INFLATED_MIB", "64")
    assert len(open_split(tmp_path, "train").read(0)) == 20 * 2**20


def test_a_tar_file_with_a_damaged_header_loses_no_images_in_silence(forms, tmp_path):
    (path,) = [path for path in forms["webdataset"].iterdir() if "val" in path.name]
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as file:
        place = file.getmembers()[6].offset
    data[place] ^= 1
    (tmp_path / path.name).write_bytes(data)
    with pytest.raises(UserError, match=r"no end of the file at byte [\d,]+: it is cut short, or a header is damaged"):
        open_split(tmp_path, "val")


def test_what_is_not_decoded_is_no_image(tmp_path):
    """Documents and films, which Pillow lists beside pictures."""
    root = write_folder(tmp_path / "folder", {"val": 1})
    (root / "val" / CLASSES[0] / "0.pdf").write_bytes(b"%PDF-1.7")
    (root / "val" / CLASSES[0] / "1.mpg").write_bytes(b"film")
    assert open_split(root, "val").labels.tolist() == [0, 1, 2]
    with tarfile.open(tmp_path / "a_val_0.tar", "w") as archive:
        for name, content in (
            ("0.pdf", b"%PDF-1.7"),
            ("0.jpg", image_bytes()),
            ("0.cls", b"1"),
            ("1.pdf", b"%PDF-1.7"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    source = open_split(tmp_path / "a", "val")
    assert [bytes(source.read(number)) for number in range(len(source.labels))] == [image_bytes()]
