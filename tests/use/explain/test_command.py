"""run.py explain: its files, its page and its refusals."""

import re

import numpy as np
import pytest

from tests import tiny
from vlc.common.errors import UserError
from vlc.configuration.config import resolve_use
from vlc.training.run import run
from vlc.use.explain.command import explain_image
from vlc.use.explain.explanation import Sequence
from vlc.use.explain.views import NAMES, views


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
    assert "http" not in page


def test_a_request_that_no_head_takes_says_what_heads_need(trained, picture):
    for lacking in ({"image": picture}, {"image": picture, "image2": picture, "text": "a dog"}):
        with pytest.raises(UserError, match=r"vqa \(images, text, images: 1\)"):
            explain_image(*resolve_use(load_path=trained, num_gpus=0, **lacking))
    with pytest.raises(UserError, match="image=FILE is missing"):
        explain_image(*resolve_use(load_path=trained, num_gpus=0, text="a dog"))


def test_partial_views_leave_special_tokens_out():
    names = ["[CLS]", "dog", "[SEP]", "image", "image 0", "image 1"]
    segments = ["text"] * 3 + ["image"] * 3
    attention = np.arange(2 * 36, dtype=np.float16).reshape(1, 2, 6, 6)
    found = views(Sequence(names, segments, ["text"], ["image"], attention), {"[CLS]", "[SEP]"})
    assert tuple(found) == NAMES
    assert np.allclose(found["text to image"], [[[[10 / 11, 1]], [[46 / 47, 1]]]])
    assert found["image to text"].shape == (1, 2, 2, 1)
    assert np.array_equal(found["all"], attention)
