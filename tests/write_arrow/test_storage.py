"""Files appear whole or not at all, on any file system, and what goes wrong is told."""

import errno
import os
import pickle

import pytest

from vlc.common.errors import MissingFile, UserError
from write_arrow.machine.storage import Folder, StoredFile


@pytest.fixture(params=["path", "file", "memory"])
def folder(request, tmp_path):
    url = {"path": f"{tmp_path}/new", "file": f"file://{tmp_path}/new", "memory": f"memory://{tmp_path}/new"}
    return Folder(url[request.param])


def _create(folder: Folder, name: str, content: bytes) -> None:
    with folder.create(name) as file:
        file.write(content)


def test_writing_reading_and_listing(folder):
    assert folder.names() == []
    _create(folder, "a.txt", b"one")
    _create(folder, "sub/b.txt", b"second")
    _create(folder, "a.txt", b"first")
    assert sorted(folder.names()) == ["a.txt", "sub"]
    assert sorted((file.path, file.size) for file in folder.walk("")) == [("a.txt", 5), ("sub/b.txt", 6)]
    assert [file.path for file in folder.walk("sub")] == ["sub/b.txt"]
    assert folder.read_text("a.txt") == "first"
    assert folder.read_text("none.txt") is None
    contents = folder.read_many([StoredFile("sub/b.txt"), StoredFile("none"), StoredFile("a.txt", 3, None, 1)])
    assert contents[0] == b"second"
    assert isinstance(contents[1], FileNotFoundError)
    assert contents[2] == b"irs"
    assert folder.read_many([]) == []
    assert folder.stat("a.txt").size == 5
    assert folder.stat("none") == StoredFile("none", None, "absent")
    folder.remove("a.txt")
    folder.remove("a.txt")
    assert folder.names() == ["sub"]
    with pytest.raises(MissingFile, match="none"):
        folder.open("none")
    with pytest.raises(MissingFile, match="none is not a folder"):
        list(folder.walk("none"))


def test_it_can_be_sent_to_workers(folder):
    _create(folder, "a.txt", b"one")
    assert pickle.loads(pickle.dumps(folder)).read_many([StoredFile("a.txt")]) == [b"one"]


def test_an_exception_leaves_the_file_as_it_was(folder):
    _create(folder, "a.txt", b"before")
    with pytest.raises(TypeError), folder.create("a.txt") as file:
        file.write("not bytes")
    assert folder.read_text("a.txt") == "before"
    if folder.is_local:
        assert folder.names() == ["a.txt"]


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space is left for .*a\.txt.*run the same command"):
        _create(Folder(tmp_path), "a.txt", b"x")
    assert list(tmp_path.iterdir()) == []


def test_two_runs_do_not_write_one_file(tmp_path):
    folder = Folder(tmp_path)
    with folder.create("a.txt") as file:
        file.write(b"first")
        with pytest.raises(UserError, match="Another run is writing"):
            _create(folder, "a.txt", b"second")
    assert folder.read_text("a.txt") == "first"


def test_links_that_lead_back_up_are_followed_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.jpg").write_bytes(b"1")
    (tmp_path / "a/up").symlink_to(tmp_path)
    assert sorted(file.path for file in Folder(tmp_path).walk("")) == ["a/x.jpg"]


def test_urls_of_unknown_kind_are_told():
    with pytest.raises(UserError, match="nothing://x cannot be opened"):
        Folder("nothing://x")


def test_what_the_system_refuses_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        _create(Folder(tmp_path / "file/sub"), "a.txt", b"")
    with pytest.raises(UserError, match="file"):
        Folder(tmp_path / "file/sub").names()
