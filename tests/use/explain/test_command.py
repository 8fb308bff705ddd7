"""run.py explain: its files, its page and its refusals."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests import tiny
from vlc.common.errors import UserError
from vlc.configuration.config import resolve_use
from vlc.training.run import run
from vlc.use.explain.command import explain_image
from vlc.use.explain.explanation import Sequence
from vlc.use.explain.views import NAMES, views
from vlc.use.model import Model


@pytest.fixture(scope="module")
def trained(arrows, tmp_path_factory) -> str:
    options = {"data_root": str(arrows), "log_dir": str(tmp_path_factory.mktemp("log")), "vit": "mae_vit_tiny_patch16"}
    found = run(tiny.settings("task_finetune_vqa_mae_randaug", vqav2_label_size=3, **options))
    return f"{found['log_dir']}/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("files") / "a b.png"
    path.write_bytes(tiny.image_bytes(0, kind="PNG"))
    return str(path)


def test_files_and_page(trained, picture, tmp_path):
    text = "a dog </script><b>$x$"
    values = {"load_path": trained, "num_gpus": 0, "image": picture, "text": text, "out": str(tmp_path / "maps")}
    (found,) = explain_image(*resolve_use(**values, method="rollout"))
    names = {path.name for path in (tmp_path / "maps").iterdir()}
    sheets = {f"a_b_0_vqa_{name.replace(' ', '_')}.png" for name in NAMES}
    assert names == {"a_b_0_vqa.npz", "a_b_0_vqa.png", "a_b_0_vqa_words.png", "a_b_0_vqa.html", *sheets}
    with np.load(tmp_path / "maps" / "a_b_0_vqa.npz") as arrays:
        assert arrays["attention_0"].dtype == np.float16
        assert len(arrays["tokens_0"]) == arrays["attention_0"].shape[-1]
        assert np.array_equal(arrays["image_0"], found.image)
    page = (tmp_path / "maps" / "a_b_0_vqa.html").read_text(encoding="utf-8")
    assert "</script><b>" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "://" not in page


def test_a_request_that_no_head_takes_says_what_heads_need(trained, picture):
    for lacking in ({"image": picture}, {"image": picture, "image2": picture, "text": "a dog"}):
        with pytest.raises(UserError, match=r"vqa \(images, text, images: 1\)"):
            explain_image(*resolve_use(load_path=trained, num_gpus=0, **lacking))
    with pytest.raises(UserError, match="image=FILE is missing"):
        explain_image(*resolve_use(load_path=trained, num_gpus=0, text="a dog"))


def _table(folder: Path) -> list[dict]:
    return pa.ipc.open_file(str(folder / "explanations-00000.arrow")).read_all().to_pylist()


def test_a_data_set_is_explained_as_each_of_its_questions_is(trained, arrows, tmp_path):
    values = {"load_path": trained, "num_gpus": 0, "num_workers": 0, "per_gpu_batchsize": 3, "method": "attention"}
    values |= {"data_root": str(arrows), "datasets": ["vqa"], "splits": ["val"], "limit": 2}
    about = explain_image(*resolve_use(**values, out=str(tmp_path / "out")))
    rows = _table(tmp_path / "out")
    stored = pa.ipc.open_file(str(arrows / "vqav2_rest_val.arrow")).read_all().to_pylist()
    asked = [(number, text) for number, one in enumerate(stored) for text in one["questions"]]
    assert [(row["row"], row["text"]) for row in rows] == asked
    assert about["rows"] == len(asked)
    model = Model.from_checkpoint(trained, num_gpus=0)
    row = rows[1]
    alone = model.explain(stored[row["row"]]["image"], row["text"], method="attention")
    ((answer, score),) = model.answer(stored[row["row"]]["image"], row["text"])[0].choices[:1]
    assert (row["answer"], row["tokens"], row["unit"], row["task"]) == (answer, alone.tokens, "probability", "vqa")
    assert (row["score"], row["value"]) == pytest.approx((score, alone.value), abs=1e-5)
    assert row["words"] == pytest.approx(alone.words.tolist(), abs=1e-5)
    (own,) = row["maps"]
    assert np.reshape(own["values"], (own["rows"], own["columns"])) == pytest.approx(alone.image, abs=1e-5)
    pictures = sorted(path.name for path in (tmp_path / "out/pictures").iterdir())
    assert [f"pictures/{name}" for name in pictures] == rows[0]["pictures"] + rows[1]["pictures"]
    assert not any(row["pictures"] for row in rows[2:])
    written = (tmp_path / "out/explanations-00000.arrow").stat().st_mtime_ns
    assert explain_image(*resolve_use(**values, out=str(tmp_path / "out"))) == about  # nothing is computed again
    assert (tmp_path / "out/explanations-00000.arrow").stat().st_mtime_ns == written
    with pytest.raises(UserError, match="limit is 3 and was 2"):
        explain_image(*resolve_use(**values | {"limit": 3}, out=str(tmp_path / "out")))


def test_images_of_a_folder_that_cannot_be_decoded_are_listed(trained, picture, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "0.png").write_bytes(b"no picture")
    for number in (1, 2):
        (photos / f"{number}.png").write_bytes(Path(picture).read_bytes())
    values = {"load_path": trained, "num_gpus": 0, "num_workers": 0, "method": "attention", "text": ["a dog", "two"]}
    values |= {"image_folder": str(photos), "out": str(tmp_path / "out"), "limit": 2}
    with pytest.warns(UserWarning, match="cannot be decoded"):
        explain_image(*resolve_use(**values))
    rows = _table(tmp_path / "out")
    assert [(row["image_id"], row["text"]) for row in rows] == [
        (one, text) for one in "12" for text in ("a dog", "two")
    ]
    assert [row["pictures"] for row in rows] == [["pictures/0000001_0_vqa.png"], ["pictures/0000001_1_vqa.png"], [], []]
    assert "0.png" in (tmp_path / "out/rejected.jsonl").read_text()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"limit": -1}, "limit=-1"),
        ({"method": "rolling"}, "method='rolling'"),
        ({"datasets": ["nlvr2"]}, "vqa wants 1 image"),
        ({"boxes": [0, 0, 1, 1]}, "boxes belongs to a single image=FILE"),
    ],
)
def test_mistakes_about_data_are_named(trained, arrows, tmp_path, values, message):
    known = {"data_root": str(arrows), "datasets": ["vqa"], "out": str(tmp_path / "out"), **values}
    with pytest.raises(UserError, match=message):
        explain_image(*resolve_use(load_path=trained, num_gpus=0, **known))
    assert not (tmp_path / "out").exists()


def test_partial_views_leave_special_tokens_out():
    names = ["[CLS]", "dog", "[SEP]", "image", "image 0", "image 1"]
    segments = ["text"] * 3 + ["image"] * 3
    attention = np.arange(2 * 36, dtype=np.float16).reshape(1, 2, 6, 6)
    found = views(Sequence(names, segments, ["text"], ["image"], attention), {"[CLS]", "[SEP]"})
    assert tuple(found) == NAMES
    assert np.allclose(found["text to image"], [[[[10 / 11, 1]], [[46 / 47, 1]]]])
    assert found["image to text"].shape == (1, 2, 2, 1)
    assert np.array_equal(found["all"], attention)
