"""Arrow files that other programs wrote."""

import io
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import image_bytes, settings
from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.images import open_image
from vlc.data.ipc import in_plain_layout, record_batches
from vlc.training.run import build_data
from write_arrow.check import check
from write_arrow.machine.storage import Folder
from write_arrow.show import read

CASES = Path(__file__).parents[1] / "cases/arrow"
TEXTS = ["a dog", "two dogs", "a cat"]
CAPTIONS = [["a dog", "two dogs"], ["a cat"]]


def _split(path: Path) -> ArrowSplit:
    return ArrowSplit([path], CATALOG["captions"], "captions", {"image", "caption"})


def _texts(split: ArrowSplit) -> list[str]:
    return [split.text(split.locate(sample)) for sample in range(len(split))]


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir()))
def test_files_of_polars_and_javascript(case, tmp_path):
    one_each = case in ("polars_categorical.arrow", "js_dictionary.arrow")
    expected = ["a dog", "a cat"] if one_each else TEXTS
    path = tmp_path / "captions_0.arrow"
    path.write_bytes((CASES / case).read_bytes())
    split = _split(path)
    assert _texts(split) == expected
    assert [split.texts(split.locate(sample)) for sample in (0, len(split) - 1)] == [
        ["a dog"] if one_each else CAPTIONS[0],
        ["a cat"],
    ]
    for sample in range(len(split)):
        assert open_image(split.image(split.locate(sample), "image")).size == (12, 10)
    (report,), general = check(Folder(tmp_path))
    assert (report.num_rows, report.num_texts, report.problems, general) == (2, len(expected), [], [])
    assert not report.verified
    total, _, rows = read(str(path), 0, 5)
    assert (total, len(rows)) == (2, 2)


def test_the_recipe_reads_polars_files(tmp_path, small_vit):
    (tmp_path / "captions_0.arrow").write_bytes((CASES / "polars_large.arrow").read_bytes())
    module = build_data(settings("task_pretrain_emoji", data_root=str(tmp_path), datasets=["captions"], num_workers=0))
    assert len(module.train) == 3


def _lists(kind: pa.DataType, values: pa.DataType = None) -> pa.Array:
    values = pa.array(TEXTS, values or pa.string())
    if pa.types.is_list_view(kind):
        return pa.ListViewArray.from_arrays(pa.array([0, 2], pa.int32()), pa.array([2, 1], pa.int32()), values)
    if pa.types.is_large_list_view(kind):
        return pa.LargeListViewArray.from_arrays(pa.array([0, 2]), pa.array([2, 1]), values)
    return pa.array(CAPTIONS, kind)


DICTIONARY = pa.dictionary(pa.int16(), pa.string())
LAYOUTS = {
    "large": pa.array(CAPTIONS, pa.large_list(pa.large_string())),
    "string views": pa.array(CAPTIONS, pa.list_(pa.string_view())),
    "list views": _lists(pa.list_view(pa.string())),
    "large list views": _lists(pa.large_list_view(pa.string())),
    "list views backwards": pa.ListViewArray.from_arrays(
        pa.array([1, 0], pa.int32()), pa.array([2, 1], pa.int32()), pa.array(["a cat", "a dog", "two dogs"])
    ),
    "dictionary": pa.ListArray.from_arrays([0, 2, 3], pa.array(TEXTS).dictionary_encode()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("stream", [False, True])
def test_texts_in_every_layout(layout, compression, stream, tmp_path):
    images = pa.array([image_bytes(0), image_bytes(1)], pa.binary_view())
    batch = pa.record_batch({"image": images, "caption": LAYOUTS[layout]})
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with make(str(tmp_path / "captions_0.arrow"), batch.schema, options=options) as writer:
        writer.write_batch(batch)
        writer.write_batch(batch)
    split = _split(tmp_path / "captions_0.arrow")
    assert _texts(split) == TEXTS * 2
    assert bytes(split.image(split.locate(5), "image")) == image_bytes(1)


@pytest.mark.parametrize(
    "images",
    [
        pa.array([b"abc", b"def"], pa.binary(3)),
        pa.array([b"abc", b"def"]).dictionary_encode(),
        pa.array([b"abc", b"def"], pa.large_binary()),
        pa.array([b"abc", b"def"], pa.binary_view()),
    ],
    ids=lambda images: str(images.type),
)
def test_images_in_every_layout(images, tmp_path):
    batch = pa.record_batch({"image": images, "caption": pa.array([["x", "y"]] * 2, pa.list_(pa.string(), 2))})
    with pa.ipc.new_file(str(tmp_path / "t.arrow"), batch.schema) as writer:
        writer.write_batch(batch)
    split = _split(tmp_path / "t.arrow")
    assert [bytes(split.image(split.locate(sample), "image")) for sample in range(4)] == [b"abc"] * 2 + [b"def"] * 2
    assert _texts(split) == ["x", "y"] * 2


@given(st.lists(st.none() | st.lists(st.none() | st.sampled_from(["a", "longer than twelve bytes"]), max_size=3)))
def test_the_plain_layout_holds_the_same_values(cells):
    plain = pa.array(cells, pa.list_(pa.string()))
    lengths = pc.fill_null(pc.list_value_length(plain), 0)
    starts = [0, *np.cumsum(lengths.to_pylist()).tolist()][: len(cells)]
    mask = pa.array([cell is None for cell in cells], pa.bool_())
    views = pa.ListViewArray.from_arrays(
        pa.array(starts, pa.int32()), lengths, plain.flatten().cast(pa.string_view()), mask=mask
    )
    for column in (plain, views, pa.array(cells, pa.large_list(pa.string_view()))):
        assert in_plain_layout(column).to_pylist() == cells
        assert in_plain_layout(column.slice(1)).to_pylist() == cells[1:]
    assert in_plain_layout(plain) is plain


def test_a_type_that_holds_no_texts_is_named(tmp_path):
    batch = pa.record_batch({"image": [b"x"], "caption": [[1.5]]})
    with pa.ipc.new_file(str(tmp_path / "t.arrow"), batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(UserError, match=r"Column caption of .*t\.arrow has type list.*double"):
        _split(tmp_path / "t.arrow")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", r"pointer of Git LFS.*git lfs pull"),
        (b"FEA1" + bytes(40), "Feather file of version 1"),
    ],
)
def test_other_kinds_are_named(content, message, tmp_path):
    (tmp_path / "captions_0.arrow").write_bytes(content)
    with pytest.raises(UserError, match=rf"captions_0\.arrow.*{message}"):
        _split(tmp_path / "captions_0.arrow")
    (report,), _ = check(Folder(tmp_path))
    assert "cannot be read" in report.problems[0]
    with pytest.raises(UserError, match=message):
        read(str(tmp_path / "captions_0.arrow"), 0, 1)


def _bomb(megabytes: int, kind: str) -> bytes:
    batch = pa.record_batch({"image": [b"x"], "caption": [["a" * megabytes * 2**20]]})
    sink = io.BytesIO()
    make = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    with make(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        for _ in range(3):
            writer.write_batch(batch)
    return sink.getvalue()


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_what_would_grow_out_of_proportion_is_refused_before_it_does(kind, tmp_path, monkeypatch):
    path = tmp_path / "captions_0.arrow"
    path.write_bytes(_bomb(3, kind))
    assert path.stat().st_size < 10_000
    monkeypatch.setenv("VLC_MAX_INFLATED_MIB", "8")
    before = pa.total_allocated_bytes()
    with pytest.raises(UserError, match=r"would grow to [\d,]+ or more.*VLC_MAX_INFLATED_MIB"):
        _split(path)
    assert pa.total_allocated_bytes() - before < 2**20
    if kind == "file":
        (report,), _ = check(Folder(tmp_path))
        assert "would grow to" in report.problems[0]
    monkeypatch.setenv("VLC_MAX_INFLATED_MIB", "10")
    assert len(record_batches(path)[1]) == 3


def test_a_size_that_is_only_declared_is_refused(tmp_path):
    """A few bytes that say that they will be 2**40."""
    data = bytearray(_bomb(1, "file"))
    place = data.rindex(struct.pack("<q", 2**20))
    data[place : place + 8] = struct.pack("<q", 2**40)
    (tmp_path / "captions_0.arrow").write_bytes(data)
    with pytest.raises(UserError, match="would grow to 1,099,5"):
        _split(tmp_path / "captions_0.arrow")


def test_damaged_polars_files_are_refused_or_read_right(tmp_path):
    """Every byte of the structure, one bit each: what the footer lists has to fill the file."""
    good = (CASES / "polars_large.arrow").read_bytes()
    path, outcomes = tmp_path / "captions_0.arrow", {"refused": 0, "right": 0}
    body = range(208 + 264, 2208)  # of the only record batch
    for byte in sorted(set(range(len(good))) - set(body)):
        bad = bytearray(good)
        bad[byte] ^= 1 << byte % 8
        path.write_bytes(bad)
        try:
            found = _texts(_split(path))
        except UserError:
            outcomes["refused"] += 1
            continue
        assert found == TEXTS, byte
        outcomes["right"] += 1
    assert min(outcomes.values()) > 200, outcomes
