"""Members of tar files are found where they lie, also in a tar within a tar; damage is told by the file's name."""

import io
import tarfile

import pytest

from vlc.common.errors import UserError
from vlc.data.tar_files import Section, members, open_tar


def _tar(*files: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, kind in (("link", tarfile.SYMTYPE), ("folder", tarfile.DIRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a.jpg"
            tar.addfile(member)
    return buffer.getvalue()


def _members(data: bytes, start: int = 0, size: int | None = None):
    with open_tar(Section(io.BytesIO(data), start, size), "x.tar") as tar:
        return list(members(tar))


def test_offsets_are_those_of_the_contents():
    data = _tar(("./a.jpg", b"first"), ("._a.jpg", b"hidden"), ("b/.c/d.txt", b"hidden"), ("b/c.txt", b"second"))
    found = _members(data)
    assert [(member.path, member.is_regular) for member in found] == [
        ("./a.jpg", True),
        ("b/c.txt", True),
        ("link", False),
    ]
    assert [data[member.offset : member.offset + member.size] for member in found] == [b"first", b"second", b""]


def test_a_tar_within_a_tar():
    whole = _tar(("1.tar", _tar(("a", b"one"))), ("2.tar", _tar(("a", b"two"))))
    for outer, content in zip(_members(whole)[:2], (b"one", b"two"), strict=True):
        inner = _members(whole, outer.offset, outer.size)[0]
        assert whole[inner.offset : inner.offset + inner.size] == content


@pytest.mark.parametrize("size", [600, 1030, 5])
def test_a_file_that_is_cut_short_is_told(size):
    data = _tar(("a", b"x" * 1000))
    with pytest.raises(UserError, match=r"x\.tar is damaged or not an uncompressed tar file \("):
        _members(data[:size])


def test_mistakes_of_the_reader_are_not_blamed_on_the_file():
    with (
        pytest.raises(UserError, match="^mine$"),
        open_tar(Section(io.BytesIO(_tar(("a", b"x")))), "x.tar"),
    ):
        raise UserError("mine")
