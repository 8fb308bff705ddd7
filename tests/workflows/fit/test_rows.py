import csv
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tiny import image_bytes
from tests.workflows.fit.tables import questions, read, written
from vlc.common.errors import MissingFile, UserError


def _csv(path: Path, rows: list[dict], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0], delimiter=delimiter)
        table.writeheader()
        table.writerows(rows)
    return path


def test_the_forms_of_files_give_the_same_rows(tmp_path):
    rows = questions(tmp_path, 6)
    (tmp_path / "list.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "table.parquet")
    paths = [
        _csv(tmp_path / "comma.csv", rows),
        _csv(tmp_path / "semicolon.csv", rows, ";"),
        _csv(tmp_path / "tab.tsv", rows, "\t"),
        written(tmp_path, rows),
        tmp_path / "list.json",
        tmp_path / "table.parquet",
    ]
    for path in paths:
        table = read(path)
        assert [row.cells for row in table.rows] == rows, path
        assert table.columns == list(rows[0])
    assert read(paths[0]).rows[2].where == f"{paths[0]}, line 4"


def test_several_files_of_one_form_are_one_table(tmp_path):
    rows = questions(tmp_path, 6)
    for number in range(2):
        written(tmp_path / "parts", rows[3 * number : 3 * number + 3], f"{number}.jsonl")
    assert [row.cells for row in read(tmp_path / "parts").rows] == rows


def test_a_webdataset_shard(tmp_path):
    members = {
        "a.jpg": image_bytes(1),
        "a.json": b'{"question": "how many"}',
        "a.cls": b"3",
        "b.jpg": image_bytes(2),
        "b.txt": b"a dog",
        "c.jpg": image_bytes(3),
        "c.json": b"{",
    }
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    table = read(tmp_path / "shard.tar")
    first, second = (row.cells for row in table.rows)
    assert Path(first["image"]).read_bytes() == members["a.jpg"]
    assert (first["question"], first["label"], second["text"]) == ("how many", "3", "a dog")
    ((where, reason),) = table.problems
    assert where.endswith("sample c")
    assert ".json cannot be read" in reason


def test_a_folder_that_datasets_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "question": datasets.Value("string"),
        }
    )
    rows = {"image": [{"bytes": image_bytes(n), "path": None} for n in range(4)], "label": [0, 1, 1, 0]}
    data = datasets.Dataset.from_dict(rows | {"question": list("abcd")}, features=features)
    datasets.DatasetDict({"train": data, "validation": data}).save_to_disk(tmp_path / "whole")
    table = read(tmp_path / "whole")
    assert [row.cells["label"] for row in table.rows] == ["cat", "dog", "dog", "cat"] * 2
    assert [row.cells["split"] for row in table.rows] == ["train"] * 4 + ["validation"] * 4
    assert Path(table.rows[1].cells["image"]).read_bytes() == image_bytes(1)
    state = tmp_path / "whole/train/state.json"
    state.write_text(
        json.dumps(json.loads(state.read_text()) | {"_indices_files": ["indices.arrow"]})
    )  # older versions
    with pytest.raises(UserError, match="flatten_indices"):
        read(tmp_path / "whole")


def test_names_of_classes_in_a_schema(tmp_path):
    info = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    data = pa.table({"image": [image_bytes(0)] * 3, "label": [1, None, 7]})
    pq.write_table(data.replace_schema_metadata({"huggingface": json.dumps(info)}), tmp_path / "table.parquet")
    table = read(tmp_path / "table.parquet")
    assert [row.cells["label"] for row in table.rows] == ["dog", None, 7]
    assert len({row.cells["image"] for row in table.rows}) == 1, "equal bytes are one file"


def test_rows_that_cannot_be_read_are_listed(tmp_path):
    (tmp_path / "ragged.csv").write_text("image,question\na.png,what\nb.png,one,two\nc.png,where\n")
    table = read(tmp_path / "ragged.csv")
    assert [row.cells["image"] for row in table.rows] == ["a.png", "c.png"]
    assert table.problems == [
        (f"{tmp_path}/ragged.csv, line 3", "it has 3 cells, and the first line 2: quote cells that hold ','")
    ]
    (tmp_path / "lines.jsonl").write_text('{"image": "a.png"}\n[1]\n{"im\n')
    assert [reason.split(" ")[0] for _, reason in read(tmp_path / "lines.jsonl").problems] == ["a", "not"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("twice.csv", b"image,text,text\na.png,b,c\n", "names the column 'text' more than once"),
        ("latin.csv", "image,text\na.png,caf\xe9\n".encode("latin-1"), "pass fit.encoding=latin-1"),
        ("quote.csv", b'image,text\na.png,"b\nc.png,d\n', "save the table as JSON lines"),
        ("empty.csv", b"image,text\n", "has no rows"),
        ("table.xlsx", b"PK", "should end in .csv"),
        ("cut.parquet", b"PAR1", "cannot be read"),
        ("object.json", b'{"rows": []}', "should be a JSON list"),
    ],
)
def test_files_that_are_no_tables(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


def test_an_encoding_can_be_named(tmp_path):
    (tmp_path / "latin.csv").write_bytes("image,text\na.png,caf\xe9\n".encode("latin-1"))
    assert read(tmp_path / "latin.csv", encoding="latin-1").rows[0].cells["text"] == "caf\xe9"


def test_folders_without_a_table(tmp_path):
    with pytest.raises(MissingFile, match="does not exist"):
        read(tmp_path / "none.csv")
    with pytest.raises(UserError, match="should hold files of one form"):
        read(tmp_path)
