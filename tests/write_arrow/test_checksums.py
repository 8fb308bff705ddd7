"""Every flipped bit of a file that we wrote is found by `check`, and by readers where it matters."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests import tiny
from tests.tiny import image_bytes, settings
from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.checksums import DamagedData, batch_metadata, verify_file
from vlc.data.labelled.splits import open_split
from vlc.training.run import build_data
from vlc.use.search.building import open_rows
from write_arrow import check as check_module
from write_arrow.check import check
from write_arrow.machine.shards import FILE_FORMATS
from write_arrow.machine.storage import Folder
from write_arrow.machine.writer import Table, write_tables

CAPTIONS = pa.schema({"image": pa.binary(), "caption": pa.list_(pa.string()), "image_id": pa.string()})
LABELLED = pa.schema({"image": pa.binary(), "label": pa.int64(), "class_name": pa.string()})
ROWS = 4


def _write(folder: Path, stem: str, form: str = "arrow", num_rows: int = ROWS) -> Path:
    labelled = stem.startswith("t_")
    rows = [
        {"image": image_bytes(row, (6, 5), "PNG")}
        | ({"label": row, "class_name": f"c{row}"} if labelled else {"caption": [f"a {row}"], "image_id": str(row)})
        for row in range(num_rows)
    ]
    table = Table(stem, LABELLED if labelled else CAPTIONS, rows, num_rows, form=FILE_FORMATS[form])
    list(write_tables([table], Folder(folder), made_from="test"))
    return folder / table.name


def _problems(folder: Path) -> list[str]:
    reports, general = check(Folder(folder))
    return [problem for report in reports for problem in report.problems] + general


def _flips(path: Path, every: int):
    """The file with one bit flipped after the other; as it was in the end."""
    good = path.read_bytes()
    for byte in range(0, len(good), every):
        bad = bytearray(good)
        bad[byte] ^= 1 << (byte // every) % 8
        path.write_bytes(bad)
        yield byte
    path.write_bytes(good)


@pytest.mark.parametrize(
    ("stem", "form"),
    [("captions_0", "arrow"), ("empty_0", "arrow"), ("t_train_0", "parquet"), ("t_train_0", "webdataset")],
)
def test_check_finds_every_flipped_bit(stem, form, tmp_path, monkeypatch):
    monkeypatch.setattr(check_module, "problem_of", lambda image: None)  # decoding finds some too, and takes time
    path = _write(tmp_path, stem, form, 0 if stem == "empty_0" else ROWS)
    assert _problems(tmp_path) == []
    good = path.read_bytes()
    missed = [byte for byte in _flips(path, 11 if form == "webdataset" else 3) if not _problems(tmp_path)]
    assert _problems(tmp_path) == []
    if form != "webdataset":
        assert missed == []
    for byte in missed:  # padding of a tar file
        bad = bytearray(good)
        bad[byte] ^= 1 << (byte // 11) % 8
        path.write_bytes(bad)
        source = open_split(tmp_path, "train")
        assert source.labels.tolist() == list(range(ROWS))
        assert source.class_names == tuple(f"c{row}" for row in range(ROWS))
        assert [bytes(source.read(row)) for row in range(ROWS)] == [
            image_bytes(row, (6, 5), "PNG") for row in range(ROWS)
        ]
        path.write_bytes(good)


def test_check_tells_which_files_have_no_checksums(tmp_path, capsys):
    _write(tmp_path, "captions_0")
    with pa.ipc.new_file(str(tmp_path / "foreign_0.arrow"), CAPTIONS):
        pass
    reports, _ = check(Folder(tmp_path))
    assert [(report.stem, report.verified) for report in reports] == [("captions_0", True), ("foreign_0", False)]
    check_module.run(check_module.argparse.Namespace(folder=str(tmp_path), images=None, workers=1))
    assert "foreign_0: written without checksums" in capsys.readouterr().out


def _read(path: Path, verify: bool) -> list[tuple[str, bytes]]:
    split = ArrowSplit([path], CATALOG["captions"], "captions", {"image", "caption"}, verify=verify)
    wheres = [split.locate(sample) for sample in range(len(split))]
    return [(split.text(where), bytes(split.image(where, "image"))) for where in wheres]


def test_readers_that_verify_read_right_or_refuse(tmp_path):
    path = _write(tmp_path, "captions_0")
    expected, silent = _read(path, True), 0
    for byte in _flips(path, 2):
        with contextlib.suppress(UserError):
            assert _read(path, True) == expected, byte
        with contextlib.suppress(UserError):
            silent += _read(path, False) != expected
    assert silent > 50  # what verifying is for


def test_one_bad_image_does_not_keep_others_from_being_read(tmp_path):
    path = _write(tmp_path, "captions_0")
    bad = bytearray(path.read_bytes())
    bad[bad.index(image_bytes(2, (6, 5), "PNG")) + 60] ^= 1
    path.write_bytes(bad)
    split = ArrowSplit([path], CATALOG["captions"], "captions", {"image", "caption"}, verify=True)
    for row in (0, 1, 3):
        assert bytes(split.image(split.locate(row), "image")) == image_bytes(row, (6, 5), "PNG")
    with pytest.raises(UserError, match=r"captions_0\.arrow is damaged.*checksum it was written with, row 2"):
        split.image(split.locate(2), "image")


@pytest.mark.parametrize("form", FILE_FORMATS)
def test_labelled_images_that_are_verified(form, tmp_path):
    path = _write(tmp_path, "t_val_0", form)
    good = open_split(tmp_path, "val", verify=True)
    assert bytes(good.read(2)) == image_bytes(2, (6, 5), "PNG")
    bad = bytearray(path.read_bytes())
    bad[bad.index(image_bytes(2, (6, 5), "PNG")) + 60] ^= 1
    path.write_bytes(bad)
    assert bytes(open_split(tmp_path, "val", verify=False).read(2)) != image_bytes(2, (6, 5), "PNG")
    source = open_split(tmp_path, "val", verify=True)
    with pytest.raises(UserError, match=r"t_val_0\.\w+.* is damaged"):
        source.read(2)


def test_evaluation_verifies_unless_told_otherwise(small_vit, tmp_path, caplog):
    tiny.write_dataset(tmp_path, "f30k")

    def verified(**options) -> tuple[bool, bool]:
        module = build_data(settings(data_root=str(tmp_path), datasets=["f30k"], **options))
        return module.train.sources[0].verify, module.evaluation["val"].sources[0].verify

    assert verified() == (False, True)
    assert "Cannot be verified, as another writer left no checksums" in caplog.text
    assert verified(verify=True) == (True, True)
    assert verified(verify=False) == (False, False)
    data = settings(data_root=str(tmp_path), datasets=["f30k"]).data
    assert open_rows(data, read_texts=True)[0].verify


def test_checksums_do_not_depend_on_how_a_batch_lies_in_memory():
    batch = pa.record_batch(
        {"image": [b"a", b"bc", None], "caption": [["x"], [], ["y", "z"]], "n": [1, None, 3], "none": pa.nulls(3)}
    )
    longer = pa.concat_tables([pa.Table.from_batches([batch])] * 2).combine_chunks().to_batches()[0]
    assert batch_metadata(longer.slice(3, 3)) == batch_metadata(batch)
    assert batch_metadata(batch.slice(0, 2)) != batch_metadata(batch)


def test_a_file_that_was_cut_short_is_no_file_without_checksum(tmp_path):
    path = _write(tmp_path, "captions_0")
    data = path.read_bytes()
    assert verify_file(io.BytesIO(data), len(data))
    with pytest.raises(DamagedData):
        verify_file(io.BytesIO(data[8:]), len(data) - 8)
    with pytest.raises(DamagedData, match="cannot be read"):
        verify_file(io.BytesIO(data.replace(b"crc32=", b"crc33=")), len(data))


def test_published_readers_see_no_difference(tmp_path):
    path = _write(tmp_path, "captions_0")
    table = pa.ipc.open_file(str(path)).read_all()
    assert table.schema.equals(CAPTIONS, check_metadata=True)
    with pa.ipc.new_file(str(tmp_path / "copy.arrow"), table.schema) as writer:
        writer.write_table(table)
    copied = (tmp_path / "copy.arrow").read_bytes()
    assert b"vlc." not in copied
    assert np.array_equal(table["image_id"], ["0", "1", "2", "3"])
