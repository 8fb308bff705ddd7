"""Arrow files behind URLs."""

import multiprocessing
from pathlib import Path

import fsspec
import pytest

from tests import tiny
from vlc.common.errors import MissingFile, UserError
from vlc.data.arrow import ArrowSplit, find_tables, has_tables
from vlc.data.catalog import CATALOG
from vlc.data.remote import RemoteFolder
from vlc.training.run import build_data


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two shards of sbu."""
    return tiny.write_dataset(tmp_path / "data", "sbu")


@pytest.fixture
def url(folder):
    """The same in fsspec's memory."""
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/arrows", recursive=True)
    yield "memory://arrows"
    memory.rm("/arrows", recursive=True)


def _find(root: str, cache: Path | None) -> list[Path]:
    return find_tables(root, ("sbu_*",), "sbu", "sbu", cache and str(cache))


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_files_of_a_url_read_like_local_ones(folder, url, kind, tmp_path):
    paths = _find(url if kind == "memory" else folder.as_uri(), tmp_path / "cache")
    assert [path.stem for path in paths] == ["sbu_0", "sbu_1"]
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in _find(str(folder), None)]
    split = ArrowSplit(paths, CATALOG["sbu"], "sbu", {"image", "caption"})
    assert len(split) == 2 * tiny.ROWS * tiny.TEXTS


def test_whether_a_folder_or_url_has_tables(folder, url, tmp_path):
    for root in (str(folder), url):
        assert has_tables(root, ("sbu_*",), str(tmp_path / "cache"))
        assert has_tables(root, ("sbu_1",), str(tmp_path / "cache"))
        assert not has_tables(root, ("sbu_*", "sbu_2"), str(tmp_path / "cache"))
    assert not has_tables(tmp_path / "nowhere", ("sbu_*",))


def test_a_run_takes_its_data_from_a_url(url, small_vit, tmp_path):
    options = {"datasets": ["sbu"], "vit": small_vit, "data_root": url}
    data = build_data(tiny.settings(**options, data_cache=str(tmp_path / "cache")))
    assert len(data.train[[(0, 0), (0, 1)]]) == 2
    with pytest.raises(UserError, match=r"data_root='memory://arrows' is a URL.*data_cache=FOLDER"):
        build_data(tiny.settings(**options))


def test_a_file_is_copied_once_for_each_version(url, tmp_path, caplog):
    first = _find(url, tmp_path / "cache")
    assert _find(url, tmp_path / "cache") == first
    assert len(caplog.messages) == 2, "one for each shard"
    fsspec.filesystem("memory").pipe("/arrows/sbu_1.arrow", b"changed")
    again = _find(url, tmp_path / "cache")
    assert again[0] == first[0]
    assert again[1].read_bytes() == b"changed"


def test_an_interrupted_copy_is_made_anew(url, folder, tmp_path, monkeypatch):
    remote = RemoteFolder(url, tmp_path / "cache")

    def interrupted(source: str, target: str) -> None:
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(remote._system, "get_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            remote.fetch("sbu_0.arrow")
    assert remote.fetch("sbu_0.arrow").read_bytes() == (folder / "sbu_0.arrow").read_bytes()


def _fetch(url: str, cache: Path) -> bytes:
    return RemoteFolder(url, cache).fetch("sbu_0.arrow").read_bytes()


def test_processes_that_ask_at_once_get_the_same_file(folder, tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        copies = pool.starmap(_fetch, [(folder.as_uri(), tmp_path / "cache")] * 4)
    assert copies == [(folder / "sbu_0.arrow").read_bytes()] * 4


def test_a_missing_table_names_the_url_and_the_command(url, tmp_path):
    with pytest.raises(MissingFile, match=r"needs memory://arrows/vg\.arrow, which does not.*python -m write_arrow vg"):
        find_tables(url, ("vg",), "vg", "vg", str(tmp_path))


@pytest.mark.parametrize("root", ["memory://nowhere", "nosuchthing://x"])
def test_a_url_that_cannot_be_read(root, tmp_path):
    with pytest.raises(UserError, match=f"data_root='{root}' cannot be read: .+"):
        _find(root, tmp_path)
