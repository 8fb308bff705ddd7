"""Images that are evaluated elsewhere: how they are known, and that no sample of theirs is left."""

import json
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from vlc.common.errors import MissingFile, UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.clean import FORMAT, CleanList, open_clean_list, removal
from vlc.data.hard_pool import open_pool, tables_of, write_pool
from vlc.data.image_keys import image_keys, keys_of_rows
from vlc.data.keys import Location

COCO = CATALOG["coco"]


@pytest.mark.parametrize(
    ("collection", "names", "keys"),
    [
        ("coco", [391895, 0], ["coco:391895", "coco:0"]),
        (
            "coco",
            ["COCO_val2014_000000391895.jpg", "train2014/COCO_train2014_000000000009.jpg"],
            ["coco:391895", "coco:9"],
        ),
        ("coco", ["391895", "000000391895.jpg"], ["coco:391895", "coco:391895"]),
        (
            "vg",
            ["2410000", "n271000", "images/n271000.jpg", "VG_100K_2/1.jpg"],
            ["vg:2410000", "vg:n271000", "vg:n271000", "vg:1"],
        ),
        ("flickr", ["1000092795.jpg", "1000092795"], ["flickr:1000092795"] * 2),
        ("coco", ["photo.jpg", None, "", "12a.jpg", "-5", "n"], [None] * 6),
        ("vcr", ["train-0", "movies/val-12.jpg"], ["vcr:train-0", "vcr:val-12"]),
        ("mine", ["a/b c.d.PNG", "7"], ["mine:b c.d", "mine:7"]),
    ],
)
def test_names_of_one_image_have_one_key(collection, names, keys):
    numbered = collection not in ("vcr", "mine")
    assert image_keys(pa.array(names), collection, numbered=numbered).to_pylist() == keys
    if not isinstance(names[0], int):
        for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
            others = pa.array(names, pa.string()).cast(kind)
            assert image_keys(others, collection, numbered=numbered).to_pylist() == keys


def test_published_files_name_their_images(golden):
    found = {}
    for dataset, spec in CATALOG.items():
        for split, stems in spec.tables.items() if spec.image_key else ():
            for path in golden.joinpath("arrow").rglob("*.arrow"):
                if path.stem in stems or f"{path.stem[:-1]}*" in stems:
                    keys = [key for part in keys_of_rows(path, dataset, spec, split) for key in part.to_pylist()]
                    found.setdefault(dataset, []).extend(keys)
    published = {"coco", "f30k", "vg", "vqa", "vgqa", "pretrainVQA", "pretrainGQA", "pretrainFlickr30k", "pretrainVGQA"}
    assert set(found) == published
    assert all(key.rpartition(":")[2].isdecimal() for keys in found.values() for key in keys)


def _list(path: Path, *keys: str) -> CleanList:
    return CleanList(path, "test", pa.array(sorted(keys), pa.string()), {})


def _open(paths: list[Path], clean: CleanList | None, **options) -> ArrowSplit:
    leaves_out = clean and partial(clean.rows, dataset="coco", spec=COCO, split="train")
    return ArrowSplit(paths, COCO, "coco", {"image", "caption"}, leaves_out=leaves_out, **options)


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.lists(st.sampled_from(["a", "b", None]), max_size=3)), min_size=1, max_size=8
    ),
    st.sets(st.integers(0, 5)),
    st.integers(1, 4),
    st.booleans(),
)
def test_the_samples_left_are_those_of_a_plain_list(tmp_path_factory, rows, banned, batch_rows, read_texts):
    folder = tmp_path_factory.mktemp("clean")
    table = pa.table(
        {
            "image": [b""] * len(rows),
            "caption": pa.array([texts for _, texts in rows], pa.list_(pa.string())),
            "image_id": [f"COCO_train2014_{number:012d}.jpg" for number, _ in rows],
        }
    )
    paths = [folder / "a.arrow", folder / "b.arrow"]
    for path in paths:
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=batch_rows)
    clean = _list(folder, *(f"coco:{number}" for number in banned))
    split = _open(paths, clean, read_texts=read_texts)
    expected = [
        (path.stem, row, text)
        for path in paths
        for row, (number, texts) in enumerate(rows)
        for text in (dict.fromkeys(text for text in texts if text) if read_texts else [""])
        if number not in banned
    ]
    for one in (split, pickle.loads(pickle.dumps(split))):
        places = [one.locate(sample) for sample in range(len(one))]
        assert [(*one.table_and_row(where), one.text(where) if read_texts else "") for where in places] == expected
    used = {(stem, row) for stem, row, _ in expected}
    assert split.rows_with_samples().tolist() == [
        (path.stem, row) in used for path in paths for row in range(len(rows))
    ]
    report = removal("", split, "train", clean)
    everything = _open(paths, None, read_texts=read_texts)
    assert report.left == 0
    assert report.samples == len(everything) == len(expected) + report.samples_left_out
    assert report.rows_left_out == 2 * sum(number in banned for number, _ in rows)


def _captions(path: Path, *numbers: int, **columns: list) -> Path:
    ids = [f"COCO_train2014_{number:012d}.jpg" for number in numbers]
    values = {
        "image": [tiny.image_bytes(n) for n in numbers],
        "caption": [[f"text {n}"] for n in numbers],
        "image_id": ids,
    }
    return tiny.write_table(path, values | columns)


def test_what_the_list_names_and_is_still_read_stops_the_run(tmp_path):
    split = _open([_captions(tmp_path / "a.arrow", 1, 2)], None)
    with pytest.raises(RuntimeError, match="1 rows of coco train are of images in .*, and were not removed"):
        removal("", split, "train", _list(tmp_path / "clean.json", "coco:2"))


def test_rows_that_name_no_image_are_told(tmp_path):
    clean = _list(tmp_path / "clean.json", "coco:2")
    with pytest.raises(
        UserError, match=r"Row 1 of .*a\.arrow: image_id is 'x\.jpg', which names no image of collection coco"
    ):
        _open([_captions(tmp_path / "a.arrow", 1, 2, image_id=["1.jpg", "x.jpg"])], clean)
    path = tiny.write_table(tmp_path / "b.arrow", {"image": [b""], "caption": [["a"]]})
    with pytest.raises(UserError, match=r"b\.arrow has no column image_id.*python -m write_arrow coco --out"):
        _open([path], clean)
    with pytest.raises(UserError, match=r"Column image_id of .*c\.arrow has type list<item: int64>, expected a number"):
        _open([_captions(tmp_path / "c.arrow", 1, image_id=[[1]])], clean)


def test_texts_of_hard_pools_are_of_images_that_are_trained_on(tmp_path):
    first, second = _captions(tmp_path / "a.arrow", 1, 2), _captions(tmp_path / "b.arrow", 3, 4)
    whole = _open([first, second], None)
    near = np.array([[1, 2], [3, 0], [3, 1], [2, 0]], dtype=np.int32)
    write_pool(tmp_path / "coco_hard_pool.npz", near, list("abcd"), (), {"tables": tables_of(whole)})
    pool = open_pool(_open([first, second], _list(tmp_path, "coco:2", "coco:4")), None)
    assert [pool.near_of(pool.location(number)) for number in (0, 2)] == [[2], []]
    assert pool.near_of(Location(1, 1, 0)) == [2, 0]


# -- the file


def _written(path: Path, **changes) -> str:
    content = {"format": FORMAT, "splits": {"coco": ["test"]}, "val": ["coco:2"], "test": ["coco:1", "vg:7"]}
    path.write_text(json.dumps(content | changes))
    return str(path)


def test_the_value_chooses_lists_and_a_hash_tells_them_apart(tmp_path):
    path = _written(tmp_path / "clean.json")
    assert open_clean_list("none", path, "", None) is None
    test, both = (open_clean_list(exclude, None, str(tmp_path), None) for exclude in ("test", "val_test"))
    assert test
    assert both
    assert test.keys.to_pylist() == ["coco:1", "vg:7"]
    assert both.keys.to_pylist() == ["coco:1", "coco:2", "vg:7"]
    again = open_clean_list("test", _written(tmp_path / "other.json", test=["vg:7", "coco:1"]), "", None)
    assert again
    assert test.digest == again.digest != both.digest


def test_a_list_beside_data_behind_a_url_is_copied(tmp_path):
    _written(tmp_path / "clean.json")
    found = open_clean_list("test", None, f"file://{tmp_path}", str(tmp_path / "cache"))
    assert found
    assert len(found.keys) == 2


COMMAND = r"python -m write_arrow clean .* --aliases image_data\.json"


def test_a_missing_list_names_the_command(tmp_path):
    with pytest.raises(MissingFile, match=rf"clean\.exclude=test needs {tmp_path}/clean\.json.*{COMMAND}"):
        open_clean_list("test", None, str(tmp_path), None)
    with pytest.raises(MissingFile, match=COMMAND):
        open_clean_list("test", None, f"file://{tmp_path}", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "changes", [{"format": "x"}, {"test": [1]}, {"val": None}, {"splits": []}, {"splits": {"coco": 1}}, {"test": 5}]
)
def test_files_of_another_kind_are_refused(tmp_path, changes):
    path = _written(tmp_path / "clean.json", **changes)
    with pytest.raises(UserError, match=rf"clean\.json is no clean list\. Write one with: {COMMAND}"):
        open_clean_list("test", path, "", None)
    for text in ("", "[]", "12", "\0", "[" * 100_000):
        Path(path).write_text(text)
        with pytest.raises(UserError, match="is no clean list"):
            open_clean_list("test", path, "", None)


def test_data_sets_without_names_of_images_and_lists_without_their_splits_are_told(tmp_path):
    clean = open_clean_list("val_test", _written(tmp_path / "clean.json"), "", None)
    assert clean
    with pytest.raises(UserError, match=r"the rows of data set 'captions' do not say which images.*image_key"):
        clean.check("captions", CATALOG["captions"], lambda stems: True)
    with pytest.raises(UserError, match=rf"clean\.json was written without split val of data set 'coco'.*{COMMAND}"):
        clean.check("coco", COCO, lambda stems: True)
    clean.check("coco", COCO, lambda stems: stems != COCO.tables["val"])
    clean.check("vg", CATALOG["vg"], lambda stems: True)
