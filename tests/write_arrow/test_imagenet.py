"""The writer of class folders and of ImageNet's tar files."""

import io
import tarfile
from argparse import ArgumentParser
from pathlib import Path

import pytest

from tests.tiny import image_bytes
from vlc.errors import MissingFile, UserError
from write_arrow import emoji_groups, imagenet

CLASSES = ("n00000002", "n00000001")  # in the order of the tar file; labels follow the sorted names
VAL = {"ILSVRC2012_val_00000001.JPEG": "n00000002", "ILSVRC2012_val_00000002.JPEG": "n00000001"}


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def tars(tmp_path) -> Path:
    """ILSVRC's two tar files: one of a tar file for each class, one of all validation images."""
    with tarfile.open(tmp_path / imagenet.TRAIN_TAR, "w") as outer:
        for number, name in enumerate(CLASSES):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as inner:
                for image in range(3):
                    _add(inner, f"{name}_{image}.JPEG", image_bytes(10 * number + image))
            _add(outer, f"{name}.tar", buffer.getvalue())
    with tarfile.open(tmp_path / imagenet.VAL_TAR, "w") as outer:
        for number, name in enumerate(reversed(VAL)):
            _add(outer, name, image_bytes(100 + number))
    return tmp_path


def _tables(root: Path, *words: str) -> dict[str, list[dict]]:
    parser = ArgumentParser()
    imagenet.add_arguments(parser)
    made = imagenet.tables(parser.parse_args(["--root", str(root), *words]))
    return {table.stem: list(table.rows) for table in made}


@pytest.mark.parametrize(
    "text",
    [
        "mv ILSVRC2012_val_00000001.JPEG n00000002/\nmv ILSVRC2012_val_00000002.JPEG n00000001/\n",
        "ImageId,PredictionString\nILSVRC2012_val_00000002,n00000001 1 2 3 4\nILSVRC2012_val_00000001,n00000002 5 6 7 8 ",
        "n00000002\nn00000001\n",
    ],
    ids=["valprep", "solution", "list"],
)
def test_tar_files_are_read_where_they_are(tars, text):
    (tars / "labels.txt").write_text(text)
    tables = _tables(tars, "--val-labels", str(tars / "labels.txt"), "--shard-size", "4")
    assert [len(rows) for rows in tables.values()] == [4, 2, 2]
    train = tables["imagenet_train_0"] + tables["imagenet_train_1"]
    assert [(row["label"], row["class_name"]) for row in train] == [(1, CLASSES[0])] * 3 + [(0, CLASSES[1])] * 3
    assert train[4]["image"] == image_bytes(11)
    val = tables["imagenet_val_0"]
    assert [(row["image"], row["label"]) for row in val] == [(image_bytes(101), 1), (image_bytes(100), 0)]


def test_mistakes_are_told(tars, tmp_path):
    with pytest.raises(UserError, match="pass --val-labels"):
        _tables(tars)
    (tars / "labels.txt").write_text("ILSVRC2012_val_00000001.JPEG n00000002\n")
    with pytest.raises(UserError, match=r"lacks 1 images, such as ILSVRC2012_val_00000002"):
        _tables(tars, "--val-labels", str(tars / "labels.txt"))
    (tars / "labels.txt").write_text("n00000003\nn00000001\n")
    with pytest.raises(UserError, match="val has classes that train lacks: n00000003"):
        _tables(tars, "--val-labels", str(tars / "labels.txt"))
    (tars / "labels.txt").write_text("490\n361\n")
    with pytest.raises(UserError, match="expected 2 lines"):
        _tables(tars, "--val-labels", str(tars / "labels.txt"))
    with pytest.raises(MissingFile, match="neither a folder train nor"):
        _tables(tmp_path / "nowhere")
    (tmp_path / "folder/train/cat").mkdir(parents=True)
    with pytest.raises(UserError, match=r"Class folder .*cat has no images"):
        _tables(tmp_path / "folder")


def test_emoji_groups_have_nine_classes():
    tables = {table.stem: table for table in emoji_groups.tables(None)}
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
