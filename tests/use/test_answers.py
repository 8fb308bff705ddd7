"""predict over whole data sets: tables with the answers that single questions get."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import tiny
from vlc.common.errors import UserError
from vlc.configuration.config import resolve_use
from vlc.use.model import Model
from vlc.use.predict import predict

TRAINED = {
    "vqa": ("task_finetune_vqa_mae_randaug", {"vqav2_label_size": 3}),
    "nlvr2": ("task_finetune_nlvr2_mae_randaug", {}),
    "pointing": ("task_finetune_refcoco", {"tasks": ["refcoco", "refcoco_box"]}),
    "options": ("task_finetune_visdial", {}),
}


@pytest.fixture(scope="module")
def trained(arrows, tmp_path_factory) -> dict[str, str]:
    return tiny.checkpoints(arrows, tmp_path_factory.mktemp("trained"), TRAINED)


def _answer(checkpoint: str, out: Path, **values) -> list[dict]:
    values = {"num_gpus": 0, "num_workers": 0, "per_gpu_batchsize": 3, **values}
    about = predict(*resolve_use(load_path=checkpoint, out=str(out), **values))
    rows = [json.loads(line) for path in sorted(out.glob("*.jsonl")) for line in path.read_text().splitlines()]
    assert about["rows"] == len(rows)
    return rows


def _rows(arrows: Path, name: str) -> list[dict]:
    return pa.ipc.open_file(str(arrows / f"{name}.arrow")).read_all().to_pylist()


def test_every_question_of_a_data_set_gets_the_answers_that_it_gets_alone(trained, arrows, tmp_path):
    rows = _answer(trained["vqa"], tmp_path / "out", data_root=str(arrows), datasets=["vqa"], splits=["val"])
    stored = _rows(arrows, "vqav2_rest_val")
    assert [(row["row"], row["text_number"], row["text"]) for row in rows] == [
        (number, place, text) for number, one in enumerate(stored) for place, text in enumerate(one["questions"])
    ]
    model = Model.from_checkpoint(trained["vqa"], num_gpus=0)
    for row in rows[:3]:
        (alone,) = model.answer(stored[row["row"]]["image"], row["text"])
        assert [row["task"], row["unit"]] == ["vqa", alone.unit]
        assert dict(row["answers"]) == pytest.approx(dict(alone.choices), abs=1e-6)


def test_texts_for_all_images(trained, arrows, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(2):
        (tmp_path / "photos" / f"{number}.png").write_bytes(tiny.image_bytes(number, kind="PNG"))
    asked = {"image_folder": str(tmp_path / "photos"), "text": ["what is it", "is it a dog"]}
    rows = _answer(trained["vqa"], tmp_path / "out", **asked)
    assert [(row["image_id"], row["text"]) for row in rows] == [(one, text) for one in "01" for text in asked["text"]]
    of_rows = _answer(
        trained["vqa"], tmp_path / "rows", data_root=str(arrows), datasets=["vqa"], splits=["val"], text="what is it"
    )
    assert [row["row"] for row in of_rows] == list(range(tiny.ROWS))


def test_parquet_holds_the_same(trained, arrows, tmp_path):
    options = {"data_root": str(arrows), "datasets": ["vqa"], "splits": ["val"]}
    rows = _answer(trained["vqa"], tmp_path / "out", **options)
    options |= {"per_gpu_batchsize": 3, "num_gpus": 0, "num_workers": 0, "file_format": "parquet"}
    predict(*resolve_use(load_path=trained["vqa"], out=str(tmp_path / "parquet"), **options))
    table = pq.read_table(tmp_path / "parquet" / "answers-00000.parquet").to_pylist()
    pairs = [{**row, "answers": [[one["answer"], one["value"]] for one in row["answers"]]} for row in table]
    assert pairs == rows


def test_pairs_of_images(trained, arrows, tmp_path):
    rows = _answer(trained["nlvr2"], tmp_path / "out", data_root=str(arrows), datasets=["nlvr2"], splits=["dev"])
    assert {row["task"] for row in rows} == {"nlvr2"}
    assert all({answer for answer, _ in row["answers"]} == {"True", "False"} for row in rows)


def test_boxes_and_options_of_the_data_are_chosen_among(trained, arrows, tmp_path):
    options = {"data_root": str(arrows), "splits": ["val"]}
    for row in _answer(trained["pointing"], tmp_path / "boxes", datasets=["refcoco"], **options):
        boxes = _rows(arrows, "refcoco_val")[row["row"]]["boxes"]
        if row["task"] == "refcoco":
            assert all(any(box == pytest.approx(own, abs=0.1) for own in boxes) for box in row["boxes"])
    for row in _answer(trained["options"], tmp_path / "options", datasets=["visdial"], **options):
        own = _rows(arrows, "visdial_val")[row["row"]]["options"][row["text_number"]]
        assert {answer for answer, _ in row["answers"]} <= set(own)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("vqa", {"datasets": ["nlvr2"]}, "none of which can be asked about data set 'nlvr2': vqa wants 1 image"),
        ("nlvr2", {"datasets": ["vqa"]}, "nlvr2 wants 2 images"),
        ("options", {"datasets": ["vqa"]}, "wants options"),
        ("vqa", {"image_folder": "docs"}, "vqa wants text"),
        ("vqa", {"image_folder": "write_arrow", "text": "what"}, "image_folder=write_arrow holds no image"),
        ("vqa", {"datasets": ["vqa"], "boxes": [0, 0, 1, 1]}, "boxes belongs to a single image=FILE"),
        ("vqa", {"datasets": ["vqa"], "out": ""}, "out=FOLDER is missing"),
    ],
)
def test_mistakes_are_named(trained, arrows, tmp_path, name, values, message):
    values = {"data_root": str(arrows), "out": str(tmp_path / "out"), **values}
    with pytest.raises(UserError, match=message):
        predict(*resolve_use(load_path=trained[name], num_gpus=0, **values))
    assert not (tmp_path / "out").exists()
