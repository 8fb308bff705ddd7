"""Images below a folder, as an index reads them."""

import os

import pytest

from tests.tiny import image_bytes
from vlc.common.errors import MissingFile, UserError
from vlc.data.images import SUFFIXES
from vlc.data.rows import FolderImages


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a/c.PNG", "._b.jpg", ".ipynb_checkpoints/b.jpg", "__MACOSX/a/x.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(image_bytes())
    return tmp_path


def test_hidden_files_are_no_images(folder):
    images = FolderImages(folder)
    assert [images.place(number).source for number in range(len(images))] == [f"{folder}/a/c.PNG", f"{folder}/b.jpg"]


def test_a_picture_that_is_not_there_is_named_at_the_start(folder):
    (folder / "z.jpg").symlink_to(folder / "nowhere.jpg")
    with pytest.raises(MissingFile, match=r"z\.jpg is a link to a file that does not exist"):
        FolderImages(folder)


def test_a_picture_that_vanishes_is_named(folder):
    images = FolderImages(folder)
    (folder / "b.jpg").unlink()
    with pytest.raises(UserError, match=r"b\.jpg was there at the start and cannot be read now \(No such file"):
        images.read(1)


def test_a_name_that_is_not_utf8_is_named(folder):
    with open(os.fsencode(folder) + b"/\xff.jpg", "wb") as file:
        file.write(image_bytes())
    with pytest.raises(UserError, match=r"\\xff\.jpg has a name that is not UTF-8"):
        FolderImages(folder)


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_files_of_the_kinds_that_are_decoded_are_listed_and_no_others(folder, suffix):
    (folder / "a" / f"d{suffix}").write_bytes(image_bytes())
    for other in (".pdf", ".eps", ".mpg", ".h5", ".psd"):  # Pillow registers them
        (folder / "a" / f"e{other}").write_bytes(b"%PDF-1.7")
    images = FolderImages(folder)
    found = {os.path.basename(images.place(number).source) for number in range(len(images))}
    assert found == {"b.jpg", "c.PNG", f"d{suffix}"}
