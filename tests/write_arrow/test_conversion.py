"""What holds for every converter: batches, shards, checking, workers, resuming, other file systems."""

import json
import shutil
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from tests.tiny import image_bytes
from tests.write_arrow.conftest import contents, rows, table
from vlc.common.errors import UserError
from write_arrow.__main__ import main
from write_arrow.machine import workers, writer
from write_arrow.machine.storage import Folder

COUNT = 30


@pytest.fixture
def sbu(tmp_path: Path) -> Path:
    """SBU's layout with COUNT images, two of them damaged."""
    root, pairs = tmp_path / "raw", []
    for number in range(COUNT):
        path = f"images_train/{number % 3:04}/{number:09}.jpg"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(image_bytes(number))
        pairs.append([path, f"text {number}"])
    (root / pairs[4][0]).write_bytes(b"<html>")
    (root / pairs[7][0]).write_bytes(image_bytes(7)[:400])
    (root / "annot.json").write_text(json.dumps(pairs))
    return root


def _ids(out: Path) -> list[str]:
    stems = sorted(out.glob("sbu_*.arrow"), key=lambda path: int(path.stem[4:]))
    return [image_id for path in stems for image_id in table(path)["image_id"].to_pylist()]


def test_bad_images_are_left_out_and_listed_and_raw_data_stay(sbu, write):
    before = contents(sbu)
    out = write("sbu", sbu)
    assert contents(sbu) == before
    assert len(_ids(out)) == COUNT - 2
    rejected = [json.loads(line) for line in (out / "sbu_0.rejected.jsonl").read_text().splitlines()]
    assert {entry["path"][-13:] for entry in rejected} == {"000000004.jpg", "000000007.jpg"}
    assert sorted(entry["reason"].split(":")[0] for entry in rejected) == ["OSError", "not an image of a known format"]
    assert {path.name for path in out.iterdir()} == {"sbu_0.arrow", "sbu_0.rejected.jsonl"}
    write("sbu", sbu, "--no-verify")  # the same folder: an old list of rejected images goes
    assert len(_ids(out)) == COUNT
    assert {path.name for path in out.iterdir()} == {"sbu_0.arrow"}


def test_images_are_stored_as_they_are(sbu, write):
    for row in table(write("sbu", sbu) / "sbu_0.arrow").to_pylist():
        assert row["image"] == (sbu / row["image_id"]).read_bytes()


def test_record_batches_and_shards_are_bounded(sbu, write, monkeypatch):
    size = len(image_bytes())
    monkeypatch.setattr(writer, "BATCH_BYTES", 5 * size)
    monkeypatch.setattr(writer, "SHARD_ROWS", 12)
    out = write("sbu", sbu, "--no-verify")
    assert sorted(path.name for path in out.iterdir()) == ["sbu_0.arrow", "sbu_1.arrow", "sbu_2.arrow"]
    assert [table(out / f"sbu_{number}.arrow").num_rows for number in range(3)] == [12, 12, 6]
    for path in out.iterdir():
        reader = pa.ipc.open_file(str(path))
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        assert len(batches) > 1 or len(batches[0]) < 12
        assert all(sum(map(len, batch["image"].to_pylist())) < 7 * size for batch in batches)


def test_record_batches_of_long_annotations_are_bounded_too(sbu, write, monkeypatch):
    monkeypatch.setattr(writer, "BATCH_PLANS", 1000)
    reader = pa.ipc.open_file(str(write("sbu", sbu, "--no-verify") / "sbu_0.arrow"))
    rows = [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)]
    assert sum(rows) == 30
    assert 1 < max(rows) < 12


def test_bytes_do_not_depend_on_workers(sbu, write, monkeypatch):
    monkeypatch.setattr(writer, "BATCH_BYTES", 4 * len(image_bytes()))
    assert contents(write("sbu", sbu, "--workers", "2", out="two")) == contents(write("sbu", sbu, out="one"))


def test_limit_takes_the_first_rows_of_the_same_order(sbu, write):
    everything = _ids(write("sbu", sbu, "--no-verify", out="all"))
    assert _ids(write("sbu", sbu, "--no-verify", "--limit", "5")) == everything[:5]


def test_shards_of_another_run_are_not_mixed_in(sbu, write, monkeypatch):
    monkeypatch.setattr(writer, "SHARD_ROWS", 12)
    write("sbu", sbu)
    with pytest.raises(UserError, match=r"sbu_1\.arrow, sbu_2\.arrow of another run.*remove them"):
        write("sbu", sbu, "--limit", "3")


def test_unusable_data_leave_no_file(sbu, write, tmp_path):
    for path in sbu.rglob("*.jpg"):
        path.write_bytes(b"bad")
    with pytest.raises(
        UserError, match=r"None of the 30 images of sbu_0\.arrow can be used; the first is images_train"
    ):
        write("sbu", sbu)
    assert list((tmp_path / "out").iterdir()) == []


def test_values_that_cannot_be_stored_are_told_with_their_image(tmp_path, raw, write):
    root = tmp_path / "vg"
    shutil.copytree(raw / "vg", root)
    path = root / "annotations/region_descriptions.json"
    entries = json.loads(path.read_text())
    entries[1]["regions"][0]["x"] = "left"
    path.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=r"vg: x of images/VG_100K.*2\.jpg cannot be stored as list.*int64"):
        write("vg", root)
    del entries[1]["regions"][0]["x"]
    path.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=r"region_descriptions\.json: an entry lacks phrase, width, height, x, y"):
        write("vg", root)


def test_a_text_of_half_a_letter_is_left_out_and_told(sbu, write):
    pairs = json.loads((sbu / "annot.json").read_text())
    pairs[3][1] = "\ud83d"  # half of a surrogate pair, as cut-off JSON has it
    (sbu / "annot.json").write_text(json.dumps(pairs))
    out = write("sbu", sbu)
    rejected = list(map(json.loads, (out / "sbu_0.rejected.jsonl").read_text().splitlines()))
    assert rejected[0]["path"] == "images_train/0000/000000003.jpg"
    assert "not valid Unicode" in rejected[0]["reason"]
    assert "images_train/0000/000000003.jpg" not in {row["image_id"] for row in rows(out / "sbu_0.arrow")}


ODD = [None, 3, 1.5, True, [], {}, ["x"], 10**30]


@pytest.mark.parametrize(
    ("name", "folder", "file", "place"),
    [
        ("coco", "coco", "karpathy/dataset_coco.json", ("images", 0, "filename")),
        ("coco", "coco", "karpathy/dataset_coco.json", ("images", 0, "filepath")),
        ("coco", "coco", "karpathy/dataset_coco.json", ("images", 0, "sentences", 0, "raw")),
        ("vqav2", "vqa_small", "v2_mscoco_train2014_annotations.json", ("annotations", 0, "answers", 0, "answer")),
        ("vqav2", "vqa_small", "v2_mscoco_train2014_annotations.json", ("annotations", 0, "multiple_choice_answer")),
        ("sbu", "sbu", "annot.json", (0, 0)),
        ("vg", "vg", "annotations/region_descriptions.json", (0, "regions", 0)),
    ],
)
def test_annotations_of_another_type_are_told(name, folder, file, place, raw, tmp_path, write):
    root = tmp_path / "raw"
    shutil.copytree(raw / folder, root)
    content = json.loads((root / file).read_text())
    *way, last = place
    holder = content
    for key in way:
        holder = holder[key]
    for odd in ODD:
        holder[last] = odd
        (root / file).write_text(json.dumps(content))
        with pytest.raises(UserError, match=Path(file).name.replace(".", r"\.")):
            write(name, root)


def test_files_larger_than_any_image_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_MOST_BYTES", 100)
    files = []
    for name, size in (("a", 100), ("b", 101), ("c", 99)):
        (tmp_path / name).write_bytes(bytes(size))
        files.append((Folder(tmp_path).stat(name),))
    prepared = workers.prepare(workers.Task(Folder(tmp_path), files, verify=False))
    assert prepared.rows == [0, 2]
    assert prepared.rejected == [workers.Rejected(1, "b", "101 bytes, more than the 100 of an image")]


class _Stopped(Exception):
    pass


def _stop_after(monkeypatch, num_files: int) -> None:
    """The process dies, as it were, once so many files are finished."""
    add, finished = writer._Journal.add, []

    def count(journal, written):
        add(journal, written)
        finished.append(written)
        if len(finished) == num_files:
            raise _Stopped

    monkeypatch.setattr(writer._Journal, "add", count)


def test_an_interrupted_run_goes_on_where_it_was(sbu, write, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(writer, "SHARD_ROWS", 8)
    expected = contents(write("sbu", sbu, out="whole"))
    with monkeypatch.context() as patch:
        _stop_after(patch, 2)
        with pytest.raises(_Stopped):
            write("sbu", sbu)
    out = tmp_path / "out"
    assert (out / ".sbu_0.unfinished.json").exists()
    times = {name: (out / name).stat().st_mtime_ns for name in ("sbu_0.arrow", "sbu_1.arrow")}
    capsys.readouterr()
    write("sbu", sbu)
    assert capsys.readouterr().out.count("kept from the interrupted run") == 2
    assert contents(out) == expected
    assert {name: (out / name).stat().st_mtime_ns for name in times} == times


@pytest.mark.parametrize("change", ["image", "annotation", "option", "file"])
def test_nothing_is_kept_that_may_come_from_something_else(change, sbu, write, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(writer, "SHARD_ROWS", COUNT)
    with monkeypatch.context() as patch:
        _stop_after(patch, 1)
        with pytest.raises(_Stopped):
            write("sbu", sbu)
    words = []
    if change == "image":
        (sbu / "images_train/0000/000000003.jpg").write_bytes(image_bytes(99))
    elif change == "annotation":
        (sbu / "annot.json").write_text((sbu / "annot.json").read_text().replace("text 3", "text three"))
    elif change == "option":
        words = ["--no-verify"]
    else:
        (tmp_path / "out/sbu_0.arrow").write_bytes(b"another file")
    capsys.readouterr()
    out = write("sbu", sbu, *words)
    assert "kept from" not in capsys.readouterr().out
    assert contents(out) == contents(write("sbu", sbu, *words, out="fresh"))


def test_other_file_systems_give_the_same_bytes(sbu, write):
    expected = contents(write("sbu", sbu))
    memory = fsspec.filesystem("memory")
    memory.put(str(sbu), "/raw", recursive=True)
    main(["sbu", "--root", "memory://raw", "--out", "memory://arrows", "--workers", "1"])
    assert {name: memory.cat(f"/arrows/{name}") for name in expected} == expected
    assert sorted(path.rpartition("/")[2] for path in memory.ls("/arrows", detail=False)) == sorted(expected)
    memory.rm("/raw", recursive=True)
    memory.rm("/arrows", recursive=True)
    main(["sbu", "--root", f"file://{sbu}", "--out", f"file://{sbu.parent}/url", "--workers", "1"])
    assert contents(sbu.parent / "url") == expected
