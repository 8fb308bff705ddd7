"""Reading Arrow files: samples, repeated texts, shards, damage."""

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tiny
from vlc.common.errors import MissingFile, UserError
from vlc.data.arrow import ArrowSplit, find_tables
from vlc.data.catalog import CATALOG
from vlc.data.spec import DatasetSpec

SPEC = DatasetSpec("captions", {"train": ("t",)})


def _split(paths: list[Path], spec: DatasetSpec = SPEC, **options) -> ArrowSplit:
    return ArrowSplit(paths, spec, "captions", {"image", "caption"}, **options)


def _table(path: Path, texts: list[list[str]] | list[str]) -> Path:
    return tiny.write_table(path, {"image": [bytes([i]) for i in range(len(texts))], "caption": texts})


def _samples(split: ArrowSplit) -> list[tuple[str, int, str]]:
    found = []
    for sample in range(len(split)):
        where = split.locate(sample)
        found.append((*split.table_and_row(where), split.text(where)))
    return found


def test_samples_are_the_texts_in_order_and_repeated_ones_count_once(tmp_path):
    first = _table(tmp_path / "a.arrow", [["x", "y", "x"], [], ["z"]])
    second = _table(tmp_path / "b.arrow", [["z", "z"], ["x"]])
    expected = [("a", 0, "x"), ("a", 0, "y"), ("a", 2, "z"), ("b", 0, "z"), ("b", 1, "x")]
    assert _samples(_split([first, second])) == expected


def test_repeated_texts_stay_where_the_data_set_says_so(tmp_path):
    path = _table(tmp_path / "a.arrow", [["x", "x"]])
    spec = DatasetSpec("captions", {"train": ("t",)}, unique_texts=False)
    assert len(_split([path], spec)) == 2


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=4), min_size=1, max_size=8), st.integers(1, 5))
def test_index_agrees_with_a_plain_list(tmp_path_factory, texts, batch_rows):
    path = tmp_path_factory.mktemp("index") / "t.arrow"
    table = pa.table({"image": [b""] * len(texts), "caption": pa.array(texts, pa.list_(pa.string()))})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    expected = [("t", row, text) for row, cell in enumerate(texts) for text in dict.fromkeys(cell)]
    assert _samples(_split([path])) == expected


@pytest.mark.parametrize("unique", [True, False])
def test_texts_that_are_null_are_left_out(tmp_path, unique):
    spec = DatasetSpec("captions", {"train": ("t",)}, unique_texts=unique)
    plain = _table(tmp_path / "plain.arrow", ["x", None, "y"])
    lists = _table(tmp_path / "lists.arrow", [[None, "x", None], None, [None], ["y", None, "z"]])
    split = _split([plain, lists], spec)
    expected = [("plain", 0, "x"), ("plain", 2, "y"), ("lists", 0, "x"), ("lists", 3, "y"), ("lists", 3, "z")]
    assert _samples(split) == expected
    assert split.num_missing == {plain: 1, lists: 4}
    assert split.texts(split.locate(4)) == ["y", "z"]


def test_texts_hidden_under_a_null_row_are_left_out(tmp_path):
    """Arrow allows a null list to span values."""
    letters = pa.array(["x", "hidden", "y"])
    cells = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), letters, mask=pa.array([False, True, False]))
    assert cells.values.to_pylist() == ["x", "hidden", "y"]
    split = _split([_table(tmp_path / "a.arrow", cells)])
    assert [text for *_, text in _samples(split)] == ["x", "y"]


def test_one_plain_string_a_row_is_one_text(tmp_path):
    split = _split([_table(tmp_path / "a.arrow", ["a dog", "a cat"])])
    assert [text for *_, text in _samples(split)] == ["a dog", "a cat"]
    assert split.texts(split.locate(1)) == ["a cat"]


def test_without_texts_every_row_is_a_sample(tmp_path):
    split = _split([_table(tmp_path / "a.arrow", [["x", "y"], []])], read_texts=False)
    assert len(split) == 2
    assert bytes(split.image(split.locate(1), "image")) == b"\x01"


def test_empty_table_of_null_columns(golden, tmp_path):
    """The published writer leaves such a file where nothing was left for a split."""
    columns = {name: pa.nulls(0) for name in ("image", "caption")}
    assert len(_split([tiny.write_table(tmp_path / "a.arrow", columns)])) == 0


def test_captions_are_looked_at_once_and_not_by_loader_processes(tmp_path, monkeypatch):
    path = _table(tmp_path / "a.arrow", [["x", "x"]])
    split = pickle.dumps(_split([path, path]))
    monkeypatch.setattr("vlc.data.arrow.repeated_texts", lambda *_: pytest.fail("looks at captions"))
    assert [text for *_, text in _samples(pickle.loads(split))] == ["x", "x"]


def test_image_bytes_are_not_copied(tmp_path):
    split = _split([_table(tmp_path / "a.arrow", [["x"]])])
    first, second = (split.image(split.locate(0), "image") for _ in range(2))
    assert first.address == second.address


def test_fields_belong_to_their_text(arrows):
    spec = CATALOG["vqa"]
    paths = find_tables(arrows, spec.tables["train"], "vqa", spec.writer)
    split = ArrowSplit(paths, spec, "vqa", spec.columns(frozenset(spec.fields)))
    for sample in range(4):
        where = split.locate(sample)
        assert split.field(where, "question_id") == sample
        assert split.field(where, "answer_labels") == [sample % 2, 2]


def test_pickled_splits_open_their_files_again(tmp_path):
    split = _split([_table(tmp_path / "a.arrow", [["x", "y"]])])
    data = pickle.dumps(split)
    assert len(data) < 2000, "files travel by name"
    assert _samples(pickle.loads(data)) == _samples(split)


def test_published_files_give_the_published_number_of_samples(golden):
    expectations = json.loads((golden / "arrow/dataset_expectations.json").read_text())["samples"]
    folders = {"vqa": "vqa", "coco": "coco", "f30k": "f30k", "vg": "vg", "gcc": "conceptual_caption"}
    folders |= {"pretrainFlickr30k": "pretrain_f30k", "pretrainGQA": "pretrain_gqa"}
    compared = 0
    for name, expected in expectations.items():
        dataset = name.split(".")[0]
        if dataset not in folders or isinstance(expected, str) or not expected["tables"]:
            continue
        spec = CATALOG[dataset]
        paths = find_tables(golden / "arrow" / folders[dataset], tuple(expected["tables"]), dataset, spec.writer)
        opened = ArrowSplit(paths, spec, dataset, {spec.text, "image"})
        assert (len(opened), opened.num_rows) == (expected["samples"], expected["rows"]), name
        compared += 1
    assert compared >= 10


class TestFinding:
    def test_shards_are_found_in_numerical_order(self, tmp_path):
        for number in (10, 2, 0):
            _table(tmp_path / f"sbu_{number}.arrow", [["x"]])
        _table(tmp_path / "sbu_other.arrow", [["x"]])
        paths = find_tables(tmp_path, ("sbu_*",), "sbu", "sbu")
        assert [path.stem for path in paths] == ["sbu_0", "sbu_2", "sbu_10"]

    @pytest.mark.parametrize("stem", ["vg", "sbu_*"])
    def test_missing_file_names_path_data_set_and_command(self, tmp_path, stem):
        with pytest.raises(MissingFile) as error:
            find_tables(tmp_path, (stem,), "visual", "writer")
        for part in (str(tmp_path / stem), "'visual'", "python -m write_arrow writer"):
            assert part in str(error.value)

    @pytest.mark.parametrize("root", ["", "/nowhere/at/all"])
    def test_missing_data_root(self, root):
        with pytest.raises(MissingFile, match=r"data_root=.*python -m write_arrow vg"):
            find_tables(root, ("vg",), "vg", "vg")


class TestDamage:
    def test_missing_column(self, tmp_path):
        path = tiny.write_table(tmp_path / "a.arrow", {"image": [b""], "text": ["x"]})
        with pytest.raises(UserError, match=r"a\.arrow lacks column caption.*has image, text.*write_arrow captions"):
            _split([path])

    def test_a_column_of_the_wrong_type(self, tmp_path):
        path = tiny.write_table(tmp_path / "a.arrow", {"image": ["x"], "caption": ["x"]})
        with pytest.raises(UserError, match=r"Column image of .*a\.arrow has type string.*write_arrow captions"):
            _split([path])

    def test_truncated_or_foreign_files(self, tmp_path):
        whole = _table(tmp_path / "whole.arrow", [["x" * 100]] * 50).read_bytes()
        path = tmp_path / "a.arrow"
        for content in (whole[: len(whole) // 2], whole[:20], b"", b"not arrow at all" * 10):
            path.write_bytes(content)
            with pytest.raises(UserError, match=r"a\.arrow is damaged or not an Arrow IPC file"):
                _split([path])


def test_out_of_range(tmp_path):
    split = _split([_table(tmp_path / "a.arrow", [["x"]])])
    with pytest.raises(IndexError):
        split.locate(1)
    assert isinstance(split.locate(np.int64(0)).row, int)
