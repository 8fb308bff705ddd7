"""The writer of class folders and of ImageNet's tar files."""

import io
import json
import shutil
import tarfile
from argparse import Namespace
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from tests.labelled_folders import CLASSES as COLOURS
from tests.tiny import image_bytes
from tests.write_arrow.conftest import contents, table
from vlc.common.errors import MissingFile, UserError
from vlc.data.labelled.splits import open_split
from write_arrow.__main__ import main
from write_arrow.machine import writer
from write_arrow.machine.shards import FILE_FORMATS
from write_arrow.sources import emoji_groups, imagenet

CLASSES = ("n00000002", "n00000001")  # in the order of the tar file; labels follow the sorted names
VAL = {"ILSVRC2012_val_00000001.JPEG": "n00000002", "ILSVRC2012_val_00000002.JPEG": "n00000001"}


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def tars(tmp_path) -> Path:
    """ILSVRC's two tar files: one of a tar file for each class, one of all validation images."""
    with tarfile.open(tmp_path / imagenet.TARS["train"], "w") as outer:
        for number, name in enumerate(CLASSES):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as inner:
                for image in range(3):
                    _add(inner, f"{name}_{image}.JPEG", image_bytes(10 * number + image))
            _add(outer, f"{name}.tar", buffer.getvalue())
    with tarfile.open(tmp_path / imagenet.TARS["val"], "w") as outer:
        for number, name in enumerate(reversed(VAL)):
            _add(outer, name, image_bytes(100 + number))
    return tmp_path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes whose folders sort otherwise than their files' paths, eight images of train and one of val."""
    for number, name in enumerate(("a", "a-b") * 4):
        path = tmp_path / "raw/train" / name
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{number}.jpg").write_bytes(image_bytes(number))
    (tmp_path / "raw/val/a-b/deeper").mkdir(parents=True)
    (tmp_path / "raw/val/a-b/deeper/1.PNG").write_bytes(image_bytes(9, kind="PNG"))
    (tmp_path / "raw/train/README.txt").write_text("not a class")
    (tmp_path / "raw/train/a/list.txt").write_text("not an image")
    return tmp_path / "raw"


def _rows(out: Path) -> dict[str, list[dict]]:
    return {path.stem: table(path).to_pylist() for path in sorted(out.glob("*.arrow"))}


def _rejected(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    "text",
    [
        "mv ILSVRC2012_val_00000001.JPEG n00000002/\nmv ILSVRC2012_val_00000002.JPEG n00000001/\n",
        "ImageId,PredictionString\nILSVRC2012_val_00000002,n00000001 1 2 3 4\nILSVRC2012_val_00000001,n00000002 5 6 7 8 ",
        "n00000002\nn00000001\n",
    ],
    ids=["valprep", "solution", "list"],
)
def test_tar_files_are_read_where_they_are(tars, write, text):
    (tars / "labels.txt").write_text(text)
    rows = _rows(write("imagenet", tars, "--val-labels", "labels.txt", "--shard-size", "4"))
    assert {stem: len(found) for stem, found in rows.items()} == {
        "imagenet_train_0": 4,
        "imagenet_train_1": 2,
        "imagenet_val_0": 2,
    }
    train = rows["imagenet_train_0"] + rows["imagenet_train_1"]
    assert [(row["label"], row["class_name"]) for row in train] == [(1, CLASSES[0])] * 3 + [(0, CLASSES[1])] * 3
    assert train[4]["image"] == image_bytes(11)
    val = rows["imagenet_val_0"]
    assert [(row["image"], row["label"]) for row in val] == [(image_bytes(101), 1), (image_bytes(100), 0)]


def test_labels_follow_the_names_of_the_classes(folder, write):
    rows = _rows(write("imagenet", folder, "--stem", "own"))
    assert set(rows) == {"own_train_0", "own_val_0"}
    assert {(row["label"], row["class_name"]) for row in rows["own_train_0"]} == {(0, "a"), (1, "a-b")}
    expected = {image_bytes(number): number % 2 for number in range(8)}
    assert {row["image"]: row["label"] for row in rows["own_train_0"]} == expected
    assert rows["own_val_0"] == [{"image": image_bytes(9, kind="PNG"), "label": 1, "class_name": "a-b"}]


@pytest.mark.parametrize("form", FILE_FORMATS)
def test_workers_and_interruption_change_nothing(folder, tmp_path, write, form, monkeypatch, capsys):
    words = ["--format", form, "--shard-size", "3"]
    expected = contents(write("imagenet", folder, *words))
    suffix = FILE_FORMATS[form].suffix
    assert set(expected) == {f"imagenet_{name}{suffix}" for name in ("train_0", "train_1", "train_2", "val_0")}
    assert contents(write("imagenet", folder, *words, "--workers", "2", out="two")) == expected
    prepared, write_file = [], writer._write

    def killed(table, *arguments):
        prepared.append(table.name)
        if len(prepared) == 3:
            raise KeyboardInterrupt
        return write_file(table, *arguments)

    monkeypatch.setattr(writer, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        write("imagenet", folder, *words, out="killed")
    assert f"imagenet_train_2{suffix}" not in contents(tmp_path / "killed")
    capsys.readouterr()
    assert contents(write("imagenet", folder, *words, out="killed")) == expected
    assert capsys.readouterr().out.count("kept from the interrupted run") == 2


@pytest.mark.parametrize("form", FILE_FORMATS)
def test_what_cannot_be_decoded_is_left_out_and_listed(folder, write, form):
    (folder / "train/a/2.jpg").write_bytes(b"no image")
    out = write("imagenet", folder, "--format", form)
    assert _rejected(out / "imagenet_train_0.rejected.jsonl") == [
        {"path": "train/a/2.jpg", "reason": "not an image of a known format"}
    ]
    kept = open_split(out, "train")
    assert sorted(bytes(kept.read(number)) for number in range(7)) == sorted(map(image_bytes, (0, 1, 3, 4, 5, 6, 7)))
    assert kept.class_names == ("a", "a-b")
    everything = open_split(write("imagenet", folder, "--format", form, "--no-verify", out="everything"), "train")
    assert b"no image" in [bytes(everything.read(number)) for number in range(8)]


def test_a_bad_image_of_a_tar_is_listed_by_its_name(tars, write):
    path = tars / imagenet.TARS["val"]
    content = path.read_bytes()
    path.write_bytes(content.replace(image_bytes(100), bytes(len(image_bytes(100)))))
    (tars / "labels.txt").write_text("n00000002\nn00000001\n")
    out = write("imagenet", tars, "--val-labels", str(tars / "labels.txt"))
    (entry,) = _rejected(out / "imagenet_val_0.rejected.jsonl")
    assert entry["path"] == "ILSVRC2012_img_val.tar/ILSVRC2012_val_00000002.JPEG"
    assert [row["image"] for row in _rows(out)["imagenet_val_0"]] == [image_bytes(101)]


def test_a_sample_of_all_classes(folder, write):
    """--seed shuffles, --limit keeps the first rows; labels stay those of all classes."""
    given = _rows(write("imagenet", folder))["imagenet_train_0"]
    shuffled = [_rows(write("imagenet", folder, "--seed", seed))["imagenet_train_0"] for seed in "112"]
    assert shuffled[0] == shuffled[1] != shuffled[2]
    assert given != shuffled[0]
    assert sorted(row["image"] for row in shuffled[0]) == sorted(row["image"] for row in given)
    limited = _rows(write("imagenet", folder, "--seed", "1", "--limit", "3", out="limited"))
    assert limited["imagenet_train_0"] == shuffled[0][:3]
    assert len(limited["imagenet_val_0"]) == 1


def test_shards_of_a_larger_run_are_not_mixed_in(folder, write):
    out = write("imagenet", folder, "--shard-size", "3", "--format", "webdataset")
    with pytest.raises(UserError, match=r"holds imagenet_train_1\.tar, imagenet_train_2\.tar of another run"):
        write("imagenet", folder, "--limit", "3", "--format", "webdataset")
    assert (out / "imagenet_train_2.tar").exists()


def test_remote_folders(folder, images, write):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(images), "/classes", recursive=True)
    local = write("imagenet", images, out="local")
    assert contents(write("imagenet", "memory://classes", out="remote")) == contents(local)
    assert open_split(local, "val").class_names == COLOURS
    memory.rm("/classes", recursive=True)


def test_mistakes_in_tar_files_are_told(tars, write):
    def mistake(error: type[Exception], match: str, *words: str) -> None:
        with pytest.raises(error, match=match):
            write("imagenet", tars, *words)

    labels = tars / "labels.txt"
    mistake(UserError, "does not tell classes: pass --val-labels")
    mistake(MissingFile, "--val-labels nowhere.txt does not exist", "--val-labels", "nowhere.txt")
    for text, message in {
        "ILSVRC2012_val_00000001.JPEG n00000002\n": "lacks 1 images, such as ILSVRC2012_val_00000002",
        "n00000003\nn00000001\n": "val has class n00000003, which train lacks",
        "490\n361\n": "expected 2 lines",
    }.items():
        labels.write_text(text)
        mistake(UserError, message, "--val-labels", str(labels))
    labels.write_bytes(b"\xff\xfe")
    mistake(UserError, "not a text in UTF-8", "--val-labels", str(labels))
    mistake(UserError, "--shard-size 0 must be at least 1", "--shard-size", "0")
    path = tars / imagenet.TARS["train"]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    mistake(UserError, r"ILSVRC2012_img_train\.tar.* is damaged")
    path.write_bytes(content.replace(b"ustar", b"xxxxx"))
    mistake(UserError, r"ILSVRC2012_img_train\.tar is damaged or not an uncompressed tar file")


def test_mistakes_in_folders_are_told(folder, tmp_path, write):
    with pytest.raises(MissingFile, match=r"neither a folder train nor .*--root should hold: train/CLASS/\*"):
        write("imagenet", tmp_path)
    with pytest.raises(UserError, match=r"--val-labels is for ILSVRC2012_img_val\.tar"):
        write("imagenet", folder, "--val-labels", "x")
    (folder / "train/empty").mkdir()
    with pytest.raises(UserError, match="train has no images of 1 classes: empty"):
        write("imagenet", folder)
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()
    with pytest.raises(UserError, match=r"train holds no folders of classes: expected train/CLASS/IMAGE\.jpg"):
        write("imagenet", folder)


def test_emoji_groups_have_nine_classes():
    tables = {table.stem: table for table in emoji_groups.tables(Namespace(format="arrow"))}
    assert {stem: table.num_rows for stem, table in tables.items()} == {
        "emoji_groups_train": 3054,
        "emoji_groups_val": 342,
        "emoji_groups_test": 385,
    }
    rows = list(tables["emoji_groups_val"].rows)
    names = {row["label"]: row["class_name"] for row in rows}
    assert sorted(names) == list(range(9))
    assert [names[label] for label in range(9)] == sorted(names.values())
    assert rows[0]["image"].startswith(b"\x89PNG")


def test_emoji_groups_come_in_other_forms(tmp_path):
    main(["emoji_groups", "--out", str(tmp_path), "--format", "webdataset"])
    assert len(list(tmp_path.iterdir())) == 3
    found = open_split(tmp_path / "emoji_groups", "test")
    row = next(iter(emoji_groups.tables(Namespace(format="arrow"))[2].rows))
    assert (len(found.labels), found.labels[0], found.read(0)) == (385, row["label"], row["image"])


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("JPEG", "jpg"),
        ("MPO", "jpg"),
        ("PNG", "png"),
        ("WEBP", "webp"),
        ("GIF", "gif"),
        ("BMP", "bmp"),
        ("TIFF", "tif"),
        ("AVIF", "avif"),
    ],
)
def test_images_in_a_tar_file_have_the_suffix_of_their_kind(kind, suffix, tmp_path):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow has no {kind}")
    schema = pa.schema({"image": pa.binary(), "label": pa.int64()})
    rows = [{"image": image_bytes(kind=kind), "label": 0}, {"image": b"no image", "label": 0}]
    with open(tmp_path / "a_val_0.tar", "wb") as file, FILE_FORMATS["webdataset"].open(file, schema, None) as shard:
        shard.write_batch(pa.RecordBatch.from_pylist(rows, schema))
    with tarfile.open(tmp_path / "a_val_0.tar") as archive:
        assert [name for name in archive.getnames() if name.endswith((suffix, "jpg"))] == [
            f"00000000.{suffix}",
            "00000001.jpg",
        ]
