"""What is data in a folder, and what is hidden."""

import os

import pytest

from vlc.data.folders import is_hidden, visible_files


@pytest.fixture
def root(tmp_path):
    for name in (
        "b/x.jpg",
        "a.jpg",
        "._a.jpg",
        ".ipynb_checkpoints/a.jpg",
        "__MACOSX/b/._x.jpg",
        "__MACOSX/y.jpg",
        "b/@eaDir/x.jpg/thumb.jpg",
        "b/.hidden/z.jpg",
    ):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).touch()
    return tmp_path / "root"


def test_hidden_files_and_folders_are_left_out(root):
    assert [entry.path for entry in visible_files(root)] == [f"{root}/a.jpg", f"{root}/b/x.jpg"]
    assert is_hidden(".partial")
    assert not is_hidden("a.b")


def test_links_are_followed_once(root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/c.jpg").touch()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "z.jpg").symlink_to(tmp_path / "elsewhere/c.jpg")
    (root / "b/up").symlink_to(root)
    (root / "gone.jpg").symlink_to(tmp_path / "nowhere")
    followed = [f"{root}/{name}" for name in ("a.jpg", "b/x.jpg", "gone.jpg", "linked/c.jpg", "z.jpg")]
    assert [entry.path for entry in visible_files(root)] == followed


def test_names_that_are_not_utf8(root):
    with open(os.fsencode(root) + b"/\xff.jpg", "wb"):
        pass
    found = [entry.path for entry in visible_files(root)]
    assert len(found) == 3
    assert all(os.path.isfile(path) for path in found)
