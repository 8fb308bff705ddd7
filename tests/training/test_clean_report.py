"""Runs with clean.exclude: what they train on, the report, and what they can be resumed with."""

import json
from pathlib import Path

import pytest

from tests import tiny
from vlc.common.errors import UserError
from vlc.configuration.recipes import loss_weights
from vlc.data.clean import FORMAT
from vlc.training.run import build_data, run


def _write_list(folder: Path, *keys: str, **splits: list[str]) -> None:
    content = {"format": FORMAT, "splits": splits, "val": [], "test": sorted(keys)}
    (folder / "clean.json").write_text(json.dumps(content))


@pytest.fixture
def options(tmp_path, small_vit) -> dict:
    """A folder with captions and questions about the images 0 to 5 of COCO, and scenes of emoji."""
    folder = tmp_path / "arrows"
    for stem in ("coco_caption_karpathy_train", "coco_caption_karpathy_restval", "coco_caption_karpathy_val"):
        columns = {
            "image": [tiny.image_bytes(number) for number in range(6)],
            "caption": [[tiny.sentence(number), tiny.sentence(number + 10)] for number in range(6)],
            "image_id": [f"COCO_train2014_{number:012d}.jpg" for number in range(6)],
        }
        tiny.write_table(folder / f"{stem}.arrow", columns)
    tiny.write_dataset(folder, "emoji_nlvr2")
    return {"data_root": str(folder), "log_dir": str(tmp_path / "log"), "vit": small_vit}


COCO = {"datasets": ["coco"], "loss_names": loss_weights(itm=1)}


def test_training_leaves_listed_images_out_and_says_how_many(options, capsys):
    _write_list(Path(options["data_root"]), "coco:1", "coco:4", "vg:0", coco=["val", "test"])
    metrics = run(tiny.settings(**options, **COCO, clean={"exclude": "test"}))
    report = json.loads((Path(metrics["log_dir"]) / "clean_report.json").read_text())
    assert report["exclude"] == "test"
    (split,) = report["splits"]
    counts = {"rows": 12, "rows_left_out": 4, "samples": 24, "samples_left_out": 8, "left": 0}
    assert split == {"task": "", "dataset": "coco", "split": "train"} | counts
    printed = capsys.readouterr().out
    assert "clean.exclude=test: training leaves out the images of 3 keys in" in printed
    assert "16.7%" not in printed
    assert "33.3%" in printed


def test_evaluated_splits_stay_as_they_are_and_each_task_has_its_line(options, small_vit):
    folder = Path(options["data_root"])
    _write_list(folder, "coco:1", "coco:4", coco=["val", "test"])
    data = build_data(tiny.settings(**options, **COCO, clean={"exclude": "test", "lists": str(folder / "clean.json")}))
    assert data.train is not None
    assert len(data.train) == 16
    assert len(data.evaluation["val"]) == 12
    data = build_data(tiny.settings("task_finetune_nlvr2_emoji", **options, clean={"exclude": "val_test"}))
    (line,) = data.removals
    assert (line.dataset, line.rows_left_out, line.left) == ("emoji_nlvr2", 0, None)


def test_another_list_cannot_resume_a_run(options):
    _write_list(Path(options["data_root"]), "coco:1", coco=["val"])
    cleaned = {**options, **COCO, "clean": {"exclude": "test"}}
    metrics = run(tiny.settings(**cleaned))
    saved = str(Path(metrics["log_dir"]) / "checkpoints/last.ckpt")
    run(tiny.settings(**cleaned, max_steps=2, resume_from=saved))
    _write_list(Path(options["data_root"]), "coco:2", coco=["val"])
    with pytest.raises(
        UserError, match=r"was saved in a run with list \w{12}, this run has list \w{12}: give the same"
    ):
        run(tiny.settings(**cleaned, max_steps=2, resume_from=saved))
    with pytest.raises(UserError, match=r"with list \w{12}, this run has no list of images to leave out"):
        run(tiny.settings(**options, **COCO, max_steps=2, resume_from=saved))


def test_a_list_that_lacks_evaluated_files_of_the_run_is_refused(options):
    _write_list(Path(options["data_root"]), "coco:1")
    build_data(tiny.settings(**options, **COCO, clean={"exclude": "test"}))  # the test split has no file
    with pytest.raises(UserError, match=r"clean\.json was written without split val of data set 'coco'"):
        build_data(tiny.settings(**options, **COCO, clean={"exclude": "val_test"}))


def test_other_values_are_refused(options):
    with pytest.raises(UserError, match=r"clean\.exclude='tset' is not valid: expected one of none, test, val_test"):
        tiny.settings(**options, **COCO, clean={"exclude": "tset"})
