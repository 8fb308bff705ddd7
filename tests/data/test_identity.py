"""Files of one conversion know each other, and a file that changes while it is read is noticed."""

import os
import pickle
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from tests import tiny
from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit, find_tables
from vlc.data.catalog import CATALOG
from vlc.data.identity import Mark, file_state, read_mark, require_unchanged
from write_arrow.machine.shards import FILE_FORMATS
from write_arrow.machine.storage import Folder
from write_arrow.machine.writer import Table, write_tables

SCHEMA = pa.schema({"image": pa.binary(), "caption": pa.list_(pa.string())})
FILES = ("captions_0.arrow", "captions_1.arrow")


def _rows(run: str, shard: int) -> list[dict]:
    order = range(6) if run == "a" else range(5, -1, -1)
    return [{"image": bytes([shard, row]) * 50, "caption": [f"{shard} {row}"]} for row in order]


def _write(folder: Path, run: str, stems: tuple[str, ...] = ("captions_0", "captions_1")) -> Path:
    tables = [Table(stem, SCHEMA, _rows(run, shard), 6) for shard, stem in enumerate(stems)]
    list(write_tables(tables, Folder(folder), made_from=run))
    return folder


def _find(folder: Path, stem: str = "captions_*") -> list[Path]:
    return find_tables(folder, (stem,), "captions", "captions")


def _split(path: Path, **options) -> ArrowSplit:
    return ArrowSplit([path], CATALOG["captions"], "captions", {"image", "caption"}, **options)


def test_a_whole_set_is_read_and_written_the_same_again(tmp_path):
    first, second = _write(tmp_path / "first", "a"), _write(tmp_path / "second", "a")
    assert [path.name for path in _find(first)] == list(FILES)
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    mark = read_mark(first / "captions_1.arrow")
    assert (mark.name, mark.files) == ("captions_1.arrow", FILES)
    assert read_mark(_write(tmp_path / "other", "b") / FILES[0]).run != mark.run


def test_files_on_disks_have_these_names_in_their_metadata():
    assert set(Mark("a", "t.arrow", ("t.arrow",)).metadata()) == {"vlc.run", "vlc.name", "vlc.files"}


def test_files_of_two_conversions_are_not_mixed(tmp_path):
    folder = _write(tmp_path / "a", "a")
    shutil.copy(_write(tmp_path / "b", "b") / FILES[1], folder / FILES[1])
    with pytest.raises(
        UserError, match=r"captions_0\.arrow and captions_1\.arrow were written by different conversions"
    ):
        _find(folder)


def test_splits_whose_labels_depend_on_each_other_are_not_mixed(tmp_path):
    """The split that is asked for is whole; its sibling is of another run."""
    stems = ("t_train", "t_val")
    folder = _write(tmp_path / "a", "a", stems)
    shutil.copy(_write(tmp_path / "b", "b", stems) / "t_val.arrow", folder)
    with pytest.raises(
        UserError, match=r"t_train\.arrow and t_val\.arrow were written by different conversions.*again"
    ):
        _find(folder, "t_train")


def test_a_set_that_lacks_a_numbered_file_is_refused(tmp_path):
    folder = _write(tmp_path, "a")
    (folder / FILES[1]).unlink()
    with pytest.raises(
        UserError, match=r"captions_1\.arrow is missing.*together with captions_0.*write_arrow captions"
    ):
        _find(folder)


def test_files_of_others_and_renamed_ones_stand_for_themselves(tmp_path):
    folder = _write(tmp_path / "a", "a")
    other = _write(tmp_path / "b", "b")
    for number in (0, 1):
        shutil.copy(other / FILES[number], folder / f"captions_{number + 2}.arrow")
    tiny.write_table(folder / "captions_4.arrow", {"image": [b"x"], "caption": [["x"]]})
    assert len(_find(folder)) == 5
    table = pa.ipc.open_file(str(folder / FILES[1])).read_all().slice(0, 3)  # the user's own selection
    with pa.ipc.new_file(str(folder / FILES[1]), table.schema) as writer:
        writer.write_table(table)
    assert read_mark(folder / FILES[1]) is None
    assert len(_split(folder / FILES[1], verify=True)) == 3
    assert len(_find(folder)) == 5


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("num_renamed", range(7))
@pytest.mark.parametrize("before", ["nothing", "another run", "an older version"])
def test_killed_before_any_of_its_renames(num_renamed, before, tmp_path, monkeypatch):
    """Whatever was there before, readers see all of the old data, all of the new, or a refusal."""
    folder = tmp_path / "out"
    folder.mkdir()
    if before == "another run":
        _write(folder, "b")
    elif before == "an older version":
        for shard, name in enumerate(FILES):
            table = pa.Table.from_pylist(_rows("b", shard), SCHEMA)
            with pa.ipc.new_file(str(folder / name), SCHEMA) as writer:
                writer.write_table(table)
    replace, done = os.replace, []

    def counted(source, target):
        if len(done) == num_renamed:
            raise _Killed
        done.append(target)
        replace(source, target)

    monkeypatch.setattr("write_arrow.machine.storage.os.replace", counted)
    monkeypatch.setattr("write_arrow.machine.writer.Folder.remove", lambda self, name: counted_remove(self, name))

    def counted_remove(folder: Folder, name: str) -> None:
        if "unfinished" in name and len(done) == num_renamed:
            raise _Killed
        Path(folder.path, name).unlink(missing_ok=True)

    try:
        _write(folder, "a")
        killed = False
    except _Killed:
        killed = True
    try:
        found = [_split(path) for path in _find(folder)]
    except UserError:
        assert killed
        return
    texts = [split.text(split.locate(sample)) for split in found for sample in range(len(split))]
    runs = {run: [row["caption"][0] for shard in (0, 1) for row in _rows(run, shard)] for run in "ab"}
    assert texts == runs["a"] or (texts == runs["b"] and killed)
    monkeypatch.undo()
    _write(folder, "a")
    assert len(_find(folder)) == 2


def test_a_conversion_that_was_interrupted_is_named(tmp_path):
    folder = _write(tmp_path, "a")
    (folder / ".captions_0.unfinished.json").write_text('{"files": ["captions_1.arrow"], "written": {}}')
    with pytest.raises(
        UserError, match=r"captions_1\.arrow: the conversion that writes this was interrupted.*write_arrow"
    ):
        _find(folder)
    (folder / ".captions_0.unfinished.json").write_text('{"files": ["others_1.arrow"], "written": {}}')
    assert len(_find(folder)) == 2


# -- while a program runs


def _replace(path: Path, by: Path, how: str) -> None:
    content = by.read_bytes()
    if how == "renamed over":
        path.with_suffix(".new").write_bytes(content)
        os.replace(path.with_suffix(".new"), path)
    else:
        with open(path, "r+b") as file:
            file.write(content)
            file.truncate()


@pytest.mark.parametrize("how", ["renamed over", "written into"])
def test_a_worker_does_not_open_another_file(how, tmp_path):
    path = _write(tmp_path / "a", "a") / FILES[0]
    travelling = pickle.dumps(_split(path))
    _replace(path, _write(tmp_path / "b", "b") / FILES[0], how)
    with pytest.raises(UserError, match=r"captions_0\.arrow was changed while this program was reading it"):
        pickle.loads(travelling)


def test_a_worker_notices_another_file_of_equal_size_and_time(tmp_path):
    path = _write(tmp_path / "a", "a") / FILES[0]
    travelling, status = pickle.dumps(_split(path)), path.stat()
    other = _write(tmp_path / "b", "b") / FILES[0]
    assert other.stat().st_size == status.st_size
    _replace(path, other, "renamed over")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(UserError, match="was changed while"):
        pickle.loads(travelling)


def test_what_is_mapped_stays_when_the_file_is_replaced(tmp_path):
    path = _write(tmp_path / "a", "a") / FILES[0]
    split = _split(path)
    _replace(path, _write(tmp_path / "b", "b") / FILES[0], "renamed over")
    assert bytes(split.image(split.locate(1), "image")) == bytes([0, 1]) * 50
    path.unlink()
    assert bytes(split.image(split.locate(2), "image")) == bytes([0, 2]) * 50


def test_a_file_that_is_written_into_is_no_longer_read(tmp_path):
    path = _write(tmp_path / "a", "a") / FILES[0]
    split = _split(path)
    split.image(split.locate(0), "image")
    _replace(path, _write(tmp_path / "b", "b") / FILES[0], "written into")
    with pytest.raises(UserError, match=r"captions_0\.arrow was changed while this program was reading it"):
        split.image(split.locate(1), "image")


def test_a_file_that_was_only_touched_is_the_same(tmp_path):
    path = _write(tmp_path, "a") / FILES[0]
    split = _split(path)
    travelling = pickle.dumps(split)
    os.utime(path, (1, 1))
    assert bytes(split.image(split.locate(1), "image")) == bytes([0, 1]) * 50
    assert len(pickle.loads(travelling)) == 6


def test_a_file_that_is_gone_is_named(tmp_path):
    path = _write(tmp_path, "a") / FILES[0]
    state = file_state(path)
    path.unlink()
    with pytest.raises(UserError, match=r"captions_0\.arrow can no longer be read \(No such file"):
        require_unchanged(path, state)


@pytest.mark.parametrize("form", FILE_FORMATS)
def test_marks_of_every_form(form, tmp_path):
    schema = pa.schema({"image": pa.binary(), "label": pa.int64()})
    rows = [{"image": b"x", "label": 1}]
    list(write_tables([Table("t_val_0", schema, rows, 1, form=FILE_FORMATS[form])], Folder(tmp_path), made_from="a"))
    (path,) = tmp_path.iterdir()
    assert read_mark(path) == (read_mark(path).run, path.name, (path.name,))


def test_sets_behind_a_url(tmp_path):
    folder, cache = _write(tmp_path / "a", "a"), str(tmp_path / "cache")
    url = folder.as_uri()
    assert len(find_tables(url, ("captions_*",), "captions", "captions", cache)) == 2
    journal = folder / ".captions_0.unfinished.json"
    journal.write_text('{"files": ["captions_1.arrow"], "written": {}}')
    with pytest.raises(UserError, match="was interrupted"):
        find_tables(url, ("captions_*",), "captions", "captions", cache)
    journal.unlink()
    shutil.copy(_write(tmp_path / "b", "b") / FILES[1], folder / FILES[1])
    with pytest.raises(UserError, match="different conversions"):
        find_tables(url, ("captions_*",), "captions", "captions", cache)
