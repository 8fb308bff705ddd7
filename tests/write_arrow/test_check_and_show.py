"""Looking at what was written: `check` finds what is wrong, `show` prints and draws."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests import tiny
from tests.tiny import image_bytes
from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.checks import check_annotations, check_ids
from vlc.data.kinds import IDENTIFIERS
from write_arrow.__main__ import main
from write_arrow.check import check
from write_arrow.machine.readers import readers_of
from write_arrow.machine.storage import Folder
from write_arrow.show import TILE, contact_sheet


def _problems(folder, **options) -> list[str]:
    reports, general = check(Folder(folder), **options)
    return [f"{report.stem}: {problem}" for report in reports for problem in report.problems] + general


def test_good_folders_have_no_problems(arrows, capsys):
    found = _problems(arrows)
    assert [problem for problem in found if "repeat" not in problem] == []  # tiny tables have no ids of their own
    reports, _ = check(Folder(arrows))
    stems = {stem for spec in CATALOG.values() for stems in spec.tables.values() for stem in stems}
    assert len(reports) == sum(2 if stem.endswith("*") else 1 for stem in stems)
    sbu = next(report for report in reports if report.stem == "sbu_1")
    assert (sbu.readers, sbu.num_rows, sbu.num_texts) == (["sbu train"], tiny.ROWS, tiny.ROWS * tiny.TEXTS)


def test_the_published_files_pass_but_for_their_repeated_names(golden):
    assert _problems(golden / "arrow/coco") == []
    assert _problems(golden / "arrow/vqa_small") == []
    assert _problems(golden / "arrow/nlvr2") == []
    assert _problems(golden / "arrow/sbu") == ["sbu_0: 1 values of image_id repeat earlier ones, such as 'dup.jpg'"]


def test_annotations_of_all_published_files_are_understood(golden):
    """By `check`, and by the start of a run: nulls for withheld answers, tables without rows, one string a row."""
    seen = set()
    for path in sorted((golden / "arrow").glob("*/*.arrow")):
        for reader in readers_of(path.stem):
            source = ArrowSplit([path], reader.spec, reader.dataset, reader.columns)
            withheld = reader.split in reader.spec.unlabelled or not len(source)
            check_annotations(source, set() if withheld else reader.fields, training=False)
            check_ids(source, {name for name in reader.fields if reader.spec.fields[name].kind is IDENTIFIERS})
            seen.add(reader.dataset)
    assert {"vqa", "vgqa", "nlvr2", "nlvr2_subsets", "coco", "f30k", "vg", "sbu", "gcc", "pretrainVQA"} <= seen
    for folder in (golden / "arrow").iterdir():
        if folder.is_dir():
            told = [
                problem for problem in _problems(folder) if "repeat earlier" not in problem and "missing" not in problem
            ]
            assert told == [], folder


def test_a_file_of_captions_and_questions_counts_each_with_its_own(tmp_path):
    assert _problems(tiny.write_scenes(tmp_path, train=4, val=4, test=4, held_out=4)) == []


def _vg(folder, name="vg", **columns) -> None:
    rows = {"image": [image_bytes(), image_bytes(1)], "caption": [["a"], ["b"]], "image_id": ["1", "2"]} | columns
    tiny.write_table(folder / f"{name}.arrow", rows)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [image_bytes(), b"bad"]}, "vg: row 1: image cannot be decoded: not an image of a known format"),
        ({"image": [image_bytes(), None]}, "vg: row 1: image cannot be decoded: no image"),
        ({"image": ["path", "path"]}, "vg: column image is string, not binary"),
        ({"caption": [["a"], []]}, "vg: row 1: no caption"),
        ({"caption": [["a", None], ["b"]]}, "vg: row 0: caption holds null, expected a string"),
        ({"caption": ["a", None]}, "vg: row 1: caption holds null, expected a string"),
        ({"caption": [[1], [2]]}, "vg: column caption is list<item: int64>, not strings"),
        ({"image_id": ["1", "1"]}, "vg: 1 values of image_id repeat earlier ones, such as '1'"),
    ],
)
def test_problems_of_rows(columns, message, tmp_path):
    _vg(tmp_path, **columns)
    assert [problem.replace("list<element", "list<item") for problem in _problems(tmp_path)] == [message]
    assert _problems(tmp_path, num_workers=2) == _problems(tmp_path)


def test_problems_of_files(tmp_path):
    _vg(tmp_path, "sbu_0")
    _vg(tmp_path, "sbu_2", image_id=["2", "3"])
    (tmp_path / ".sbu_3.arrow.partial").touch()
    tiny.write_table(tmp_path / "vg.arrow", {"image": [image_bytes()]})
    (tmp_path / "coco_caption_karpathy_train.arrow").write_bytes(b"ARROW1\0\0")
    found = _problems(tmp_path)
    for expected in (
        "sbu_1: missing, sbu reads it; python -m write_arrow sbu writes it",
        "sbu_0: 1 values of image_id repeat earlier ones, such as '2'",
        ".sbu_3.arrow.partial: left by an interrupted run",
        "vg: lacks column caption, which vg reads",
        "coco_caption_karpathy_train: cannot be read",
        "coco_caption_karpathy_val: missing, coco reads it",
    ):
        assert any(problem.startswith(expected) for problem in found), (expected, found)


def test_answers_have_to_match_their_questions(tmp_path):
    tiny.write_dataset(tmp_path, "vqa")
    rows = tiny.rows(CATALOG["vqa"], "train")
    rows["answer_labels"][2] = [[1]]
    tiny.write_table(tmp_path / "vqav2_train.arrow", rows)
    assert "vqav2_train: row 2: 1 answer_labels for 2 questions" in _problems(tmp_path)


@pytest.mark.parametrize(
    ("named", "stem", "columns", "problem"),
    [
        (
            "nlvr2",
            "nlvr2_dev",
            {"answers": [["True", "maybe"]] * 2},
            "row 0: answers holds 'maybe', expected true or fal",
        ),
        (
            "nlvr2",
            "nlvr2_dev",
            {"identifiers": [["a", None]] * 2},
            "row 0: identifiers holds null, expected an integer",
        ),
        ("vqa", "vqav2_train", {"answers": [[[1, 2], [3, 4]]] * 2}, "row 0: answers holds 1, expected strings"),
        (
            "vqa",
            "vqav2_train",
            {"answer_scores": [[[1.0, 2.0]] * 2] * 2},
            "row 0: answer_scores holds 2.0, expected num",
        ),
        (
            "vqa",
            "vqav2_train",
            {"answer_scores": [[[1.0]] * 2] * 2},
            "row 0: 1 answer_scores and 2 answer_labels for one",
        ),
        (
            "vqa",
            "vqav2_test",
            {"question_id": [[1, None]] * 2},
            "row 0: question_id holds null, expected an integer, or",
        ),
        ("vqa", "vqav2_test", {"answer_labels": [[[-1], [-1]]] * 2}, ""),  # nobody reads them
    ],
)
def test_values_that_no_data_set_understands(named, stem, columns, problem, tmp_path):
    tiny.write_dataset(tmp_path, named, num_rows=2)
    split = "test" if stem == "vqav2_test" else "train"
    tiny.write_table(tmp_path / f"{stem}.arrow", tiny.rows(CATALOG[named], split, num_rows=2, first=90) | columns)
    found = [told for told in _problems(tmp_path) if "repeat" not in told]
    assert bool(problem) == bool(found)
    assert not problem or found[0].startswith(f"{stem}: {problem}"), found


def test_boxes_belong_to_pictures_of_the_stated_size(tmp_path):
    tiny.write_dataset(tmp_path, "refcoco", num_rows=2)
    assert _problems(tmp_path) == []
    rows = tiny.rows(CATALOG["refcoco"], "train", num_rows=2)
    sticks_out = [[[2.0, 3.0, 9.0, 8.0], [24.0, 16.0, 36.5, 26.0]], [[2.0, 3.0, 9.0, 8.0]]]
    changed = {
        "boxes": sticks_out,
        "box_ids": [[1, 2], [1]],
        "target_boxes": [[[[2.0, 3.0, 9.0, 8.0]]] * 2] * 2,
        "answer_index": [[0, 0]] * 2,
        "width": [40, 50],
        "height": [25, 30],
    }
    tiny.write_table(
        tmp_path / "refcoco_train.arrow", rows | changed | {"proposal_boxes": [[]] * 2, "proposal_scores": [[]] * 2}
    )
    assert _problems(tmp_path) == [
        "refcoco_train: row 0: image does not fit its annotation: the picture has 40x30 pixels, and its annotation says "
        "40x25",
        "refcoco_train: row 0: boxes holds [24.0, 16.0, 36.5, 26.0], which ends outside of the picture of 40x25",
        "refcoco_train: row 1: image does not fit its annotation: the picture has 40x30 pixels, and its annotation says "
        "50x30",
    ]


@pytest.mark.parametrize("labels", [[[True, False]] * 2, [["true", "FALSE"]] * 2, [[1, 0]] * 2, [["1", "0"]] * 2])
def test_known_spellings_have_no_problems(labels, tmp_path):
    tiny.write_dataset(tmp_path, "nlvr2", num_rows=2)
    rows = tiny.rows(CATALOG["nlvr2"], "train", num_rows=2, first=90)
    tiny.write_table(tmp_path / "nlvr2_dev.arrow", rows | {"answers": labels})
    assert [told for told in _problems(tmp_path) if "repeat" not in told] == []


def test_ids_are_compared_as_they_are(tmp_path):
    tiny.write_dataset(tmp_path, "vqa", num_rows=2)
    rows = tiny.rows(CATALOG["vqa"], "test", num_rows=2, first=90)
    for ids, expected in (([["01827492", "1827492"], ["q1", "q2"]], 0), ([["1", "2"], ["3", "1"]], 1)):
        tiny.write_table(tmp_path / "vqav2_test.arrow", rows | {"question_id": ids})
        assert len([told for told in _problems(tmp_path) if told.startswith("vqav2_test: ")]) == expected


def test_numbers_of_images_may_be_missing_or_large(tmp_path):
    _vg(tmp_path, image_id=pa.array([2**64 - 1, None], pa.uint64()))
    assert _problems(tmp_path) == []


def test_a_part_of_the_images(tmp_path):
    _vg(tmp_path, image=[image_bytes(), b"bad"])
    assert _problems(tmp_path, num_images=1) == []


def test_check_exits_with_one_and_tells(tmp_path, capsys):
    _vg(tmp_path, caption=[["a"], []])
    with pytest.raises(SystemExit) as exit_:
        main(["check", str(tmp_path), "--workers", "1"])
    assert exit_.value.code == 1
    assert "vg: row 1: no caption" in capsys.readouterr().out
    with pytest.raises(UserError, match="holds no arrow files"):
        main(["check", str(tmp_path.parent), "--workers", "1"])


def test_show_prints_rows_and_draws_their_images(tmp_path, capsys):
    _vg(tmp_path, image=[image_bytes(size=(80, 40)), b"bad"])
    sheet = tmp_path / "sheet.png"
    main(["show", str(tmp_path / "vg.arrow"), "--sheet", str(sheet)])
    printed = capsys.readouterr().out
    assert "vg.arrow: 2 rows" in printed
    assert "JPEG 80x40 RGB" in printed
    assert "3 bytes, not an image of a known format" in printed
    assert "caption: ['b']" in printed
    picture = Image.open(sheet)
    assert picture.width > 400
    assert len(picture.getcolors(10**6)) > 100
    main(["show", str(tmp_path / "vg.arrow"), "--sheet", str(sheet), "--first", "1", "--rows", "1"])
    printed = capsys.readouterr().out
    assert "row 1" in printed
    assert "row 0" not in printed


def test_show_of_a_file_without_images_or_damaged(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.write_table(tmp_path / "text_0.arrow", {"text": ["a line"]})
    main(["show", "text_0.arrow"])
    assert "text: 'a line'" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["text_0.arrow"]
    (tmp_path / "bad.arrow").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match=r"bad\.arrow is damaged"):
        main(["show", "bad.arrow"])


def test_show_draws_pictures_of_deep_levels_as_training_reads_them():
    """Of 16 bits: Pillow's own rule cuts all levels above 255 off, which leaves white."""
    levels = np.repeat(np.array([[0x4000, 0xC000]], dtype=np.uint16), 2, axis=0)
    buffer = io.BytesIO()
    Image.fromarray(levels).resize((40, 40), Image.Resampling.NEAREST).save(buffer, "PNG")
    sheet = contact_sheet([(buffer.getvalue(), "grey")])
    assert [sheet.getpixel((4 + left, 100)) for left in (20, TILE - 20)] == [(0x40,) * 3, (0xC0,) * 3]
