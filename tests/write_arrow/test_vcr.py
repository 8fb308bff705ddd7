"""VCR as it is distributed: what a row holds, how objects are named, and what is said of files that are damaged."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from tests.conftest import GOLDEN
from tests.write_arrow.conftest import table
from vlc.common.errors import UserError
from vlc.data.catalog import CATALOG
from vlc.data.references import NAMES, BadReference, called_by, rendered
from vlc.data.values import value_problems
from write_arrow.check import check
from write_arrow.machine.storage import Folder

RAW = GOLDEN / "tasks/vcr"


@pytest.fixture
def root(tmp_path) -> Path:
    return Path(shutil.copytree(RAW, tmp_path / "raw"))


def _annotations(split: str, root: Path = RAW) -> list[dict]:
    return [json.loads(line) for line in (root / f"vcr1annots/{split}.jsonl").read_text().splitlines()]


def _change(root: Path, split: str, number: int, **values) -> None:
    """Change an annotation."""
    entries = _annotations(split, root)
    entries[number] |= values
    (root / f"vcr1annots/{split}.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))


def _change_metadata(root: Path, entry: dict, change) -> None:
    path = root / "vcr1images" / entry["metadata_fn"]
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _rejected(out: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (out / f"vcr_{split}.rejected.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_rows_hold_what_the_files_say(write, split):
    entries = {entry["annot_id"]: entry for entry in _annotations(split)}
    rows = table(write("vcr", RAW) / f"vcr_{split}.arrow").to_pylist()
    assert [number for row in rows for number in row["annot_id"]] == list(entries)
    for row in rows:
        own = [entries[number] for number in row["annot_id"]]
        metadata = json.loads((RAW / "vcr1images" / own[0]["metadata_fn"]).read_text())
        assert row["image"] == (RAW / "vcr1images" / own[0]["img_fn"]).read_bytes()
        assert {row["image_id"]} == {entry["img_id"] for entry in own}
        assert (row["width"], row["height"]) == (metadata["width"], metadata["height"])
        assert row["boxes"] == [box[:4] for box in metadata["boxes"]]
        assert row["box_scores"] == [box[4] for box in metadata["boxes"]]
        assert row["box_names"] == own[0]["objects"]
        assert json.loads(row["segms"]) == metadata["segms"]
        assert row["answer_index"] == ([] if split == "test" else [entry["answer_label"] for entry in own])
        assert [len(answers) for answers in row["answers"]] == [4] * len(own)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_rationales_are_given_the_right_answer_or_each_of_a_test(write, split):
    for row in table(write("vcr", RAW) / f"vcr_{split}.arrow").to_pylist():
        given = (
            [[0, 1, 2, 3]] * len(row["questions"]) if split == "test" else [[label] for label in row["answer_index"]]
        )
        places = [(number, place) for number, places in enumerate(given) for place in places]
        assert row["given_annot_id"] == [row["annot_id"][number] for number, _ in places]
        assert row["given_answer_index"] == [place for _, place in places]
        assert row["given_questions"] == [row["questions"][number] for number, _ in places]
        assert row["given_answers"] == [row["answers"][number][place] for number, place in places]
        assert row["given_answer_tags"] == [row["answer_tags"][number][place] for number, place in places]
        assert len(row["rationales"]) == len(row["rationale_tags"]) == len(places)
        assert len(row["rationale_index"]) == (0 if split == "test" else len(places))


def test_tags_are_numbers_of_boxes_and_a_person_keeps_its_name(write):
    row = table(write("vcr", RAW) / "vcr_train.arrow").to_pylist()[0]
    first, second, *_ = called_by("train-1", row["box_names"])
    assert row["questions"][1] == f"Why is {first} looking at {second} and book ?"
    assert row["question_tags"][1] == [0, 0, 1, 0, 0, 2, 0, 3, 0]
    assert row["answers"][1][0] == f"{second} and kite are friends ."
    assert row["rationales"][1][0].startswith(f"{first} and {second} stand next to {first} and look")
    assert row["rationale_tags"][1][0][:8] == [1, 0, 2, 0, 0, 0, 1, 0]
    for texts, tags in (("answers", "answer_tags"), ("rationales", "rationale_tags")):
        for text, own in zip(row[texts][1], row[tags][1], strict=True):
            assert len(text.split(" ")) == len(own)


def test_names_come_from_the_annotation_and_no_two_persons_share_one():
    objects = ["person", "book"] * 100
    called = called_by("val-3", objects)
    assert called == called_by("val-3", objects)
    assert called != called_by("val-4", objects)
    assert called[1::2] == ["book"] * 100
    assert len(set(called[::2])) == 100
    assert set(called[: 2 * len(NAMES) : 2]) == set(NAMES)


def test_a_box_that_is_none_gives_no_tag(write, root):
    entry = _annotations("train")[0]

    def change(metadata: dict) -> None:
        metadata["boxes"][0] = [50, 57, 50, 71, 0.5]
        metadata["boxes"][1] = [-5, 27, 20, 95, 0.5]

    _change_metadata(root, entry, change)
    row = table(write("vcr", root) / "vcr_train.arrow").to_pylist()[0]
    assert row["box_ids"] == [1, 2, 3, 4]
    assert row["boxes"][0] == [0, 27, 20, 80]
    assert row["box_names"] == entry["objects"][1:]
    assert row["question_tags"][1] == [0, 0, 0, 0, 0, 1, 0, 2, 0]


def test_images_and_metadata_that_are_missing_or_of_another_kind_are_listed(write, root):
    entries = _annotations("train")
    images = root / "vcr1images"
    (images / entries[0]["img_fn"]).unlink()
    (images / entries[2]["metadata_fn"]).write_text("{")
    _change_metadata(root, entries[4], lambda metadata: metadata["boxes"].pop())
    (images / _annotations("val")[0]["metadata_fn"]).unlink()
    with pytest.raises(UserError, match=r"vcr_train: no image with annotations .* 3 were left out"):
        write("vcr", root)
    shutil.copy(RAW / "vcr1images" / entries[4]["metadata_fn"], images / entries[4]["metadata_fn"])
    out = write("vcr", root)
    first, second = _rejected(out, "train")
    assert first == {"path": f"vcr1images/{entries[0]['img_fn']}", "reason": "no such file"}
    assert second["path"] == f"vcr1images/{entries[2]['metadata_fn']}"
    assert second["reason"].startswith("no metadata of an image (JSONDecodeError")
    (missing,) = _rejected(out, "val")
    assert missing == {"path": f"vcr1images/{_annotations('val')[0]['metadata_fn']}", "reason": "no such file"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": ["Why", [5], "?"]}, "a text holds [5], expected a word or numbers of its 5 objects"),
        ({"question": ["Why", {"a": 1}]}, "a text holds {'a': 1}, expected a word or numbers of its 5 objects"),
        ({"question": []}, "a text without words"),
        ({"answer_label": 4}, "the right answer and rationale are 4 and 1, expected numbers from 0 to 3"),
        ({"rationale_choices": [["no"]] * 3}, "4 answers and 3 rationales, expected 4 of each"),
    ],
)
def test_a_wrong_question_is_listed_and_the_others_stay(write, root, change, reason):
    _change(root, "train", 0, **change)
    out = write("vcr", root)
    assert _rejected(out, "train") == [{"path": "vcr1annots/train.jsonl, train-0", "reason": reason}]
    rows = table(out / "vcr_train.arrow").to_pylist()
    assert [number for row in rows for number in row["annot_id"]] == [f"train-{number}" for number in range(1, 6)]


def test_a_key_that_is_missing_is_named(write, root):
    _change(root, "val", 1, question="Why?")
    with pytest.raises(UserError, match=r"val\.jsonl: question is 'Why\?', expected a list"):
        write("vcr", root)


def test_wrong_outlines_and_other_categories_are_named(write, root):
    first, third = _annotations("train")[0], _annotations("train")[2]
    _change_metadata(root, first, lambda metadata: metadata["segms"].__setitem__(1, [[[1, 2], [3]]]))
    _change_metadata(root, third, lambda metadata: metadata.update(segms=None))
    out = write("vcr", root)
    (found,) = _rejected(out, "train")
    assert found["path"] == f"vcr1images/{first['metadata_fn']}"
    assert found["reason"].startswith(
        "the outline of object 1 is [[[1, 2], [3]]], expected polygons of 3 or more points"
    )
    rows = table(out / "vcr_val.arrow")
    spec = CATALOG["vcr_qa"]
    for cell in ("[[[[1, 2], [3, 4]]]]", "no JSON"):
        cells = pa.array([cell] * len(rows))
        changed = rows.set_column(rows.schema.get_field_index("segms"), "segms", cells)
        assert (
            "expected JSON with a list of polygons" in value_problems(changed.to_batches()[0], spec, spec.fields)[0][1]
        )


def test_objects_named_together_are_joined():
    assert rendered(["Do", [1, 0, 2], "see"], ["Sam", "Alex", "cell phone"], [1, 2, 0]) == (
        "Do Alex and Sam and cell phone see",
        [0, 2, 0, 1, 0, 0, 0, 0],
    )
    with pytest.raises(BadReference):
        rendered([[True]], ["Sam", "Alex"], [1, 2])


def test_what_is_written_has_no_problems_and_tags_are_checked(write):
    out = write("vcr", RAW)
    reports, general = check(Folder(out))
    assert not general
    assert [report.problems for report in reports] == [[], [], []]
    rows = table(out / "vcr_val.arrow")
    wrong = {
        "answer_tags": ([[[[0], [1]]] * 2] * 2, (0, "2 answer_tags and 4 answers for one text")),
        "question_tags": (
            [[[0, -1], [0]]] * 2,
            (0, "question_tags holds -1, expected numbers of boxes"),
        ),
    }
    spec = CATALOG["vcr_qa"]
    for column, (cells, problem) in wrong.items():
        changed = rows.set_column(rows.schema.get_field_index(column), column, pa.array(cells))
        assert value_problems(changed.to_batches()[0], spec, spec.fields)[0] == problem
    beyond = [[[[0, 1]] * 4, [[0, 0]] * 4], [[[0, 1]] * 4, [[2, 0], [0], [1], [3]]]]
    changed = rows.set_column(rows.schema.get_field_index("answer_tags"), "answer_tags", pa.array(beyond))
    assert value_problems(changed.to_batches()[0], spec, spec.fields) == [(1, "answer_tags names box 3 of 2")]


def test_an_image_of_another_size_than_its_metadata_say_is_listed(write, root):
    entry = _annotations("train")[0]
    _change_metadata(root, entry, lambda metadata: metadata.update(width=90))
    (found,) = _rejected(write("vcr", root), "train")
    assert found["path"] == f"vcr1images/{entry['img_fn']}"
    assert found["reason"] == "the picture has 80x80 pixels, and its annotation says 90x80"
