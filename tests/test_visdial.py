"""VisDial from its raw files to the file for the server: written, trained, tested, and asked from Python."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import vlc
from tests import tiny
from tests.conftest import GOLDEN
from vlc.common.errors import UserError
from vlc.training.run import run
from write_arrow.__main__ import main

RAW = GOLDEN / "tasks/visdial"


@pytest.fixture(scope="module")
def arrows_of_visdial(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("visdial")
    main(["visdial", "--root", str(RAW), "--out", str(out), "--workers", "1"])
    return out


@pytest.fixture(scope="module")
def options(arrows_of_visdial, tmp_path_factory) -> dict:
    folder = str(tmp_path_factory.mktemp("log"))
    return {"tasks": ["visdial"], "data_root": str(arrows_of_visdial), "log_dir": folder, "vit": "mae_vit_tiny_patch16"}


@pytest.fixture(scope="module")
def trained(options) -> str:
    metrics = run(tiny.settings(**options, max_steps=2))
    assert {"visdial/train/loss", "visdial/val/accuracy"} <= set(metrics)
    return f"{metrics['log_dir']}/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def tested(options, trained) -> dict:
    return run(tiny.settings(**options, test_only=True, load_path=trained))


def test_a_test_reports_what_the_challenge_measures_and_writes_its_files(tested):
    assert {f"visdial/val/{name}" for name in ("r1", "r5", "r10", "mrr", "mean_rank", "ndcg")} <= set(tested)
    assert tested["visdial/val/r1"] == pytest.approx(tested["visdial/val/accuracy"])
    assert "visdial/test/mrr" not in tested
    for split, images, rounds in (("val", [710000, 710001, 710002], range(1, 11)), ("test", [720000, 720001], [2])):
        entries = json.loads(Path(tested["log_dir"], f"visdial_{split}.json").read_text())
        assert [(entry["image_id"], entry["round_id"]) for entry in entries] == [(i, r) for i in images for r in rounds]
        assert all(set(entry) == {"image_id", "round_id", "ranks"} for entry in entries)
        assert all(sorted(entry["ranks"]) == [*range(1, 101)] for entry in entries)


@pytest.mark.parametrize("branches", [False, True])
def test_choose_gives_the_order_that_the_test_wrote(tested, trained, options, branches):
    if branches:  # another model with the same weights
        changes = {"visdial.choice.branches": True, "test_only": True, "load_path": trained, "splits": ["val"]}
        tested = run(tiny.settings(**options | changes))
    chosen = {"tasks": ["visdial"], "visdial.choice.branches": True} if branches else {}
    model = vlc.Model.from_checkpoint(trained, num_gpus=0, **chosen)
    raw = json.loads((RAW / "visdial_1.0_val.json").read_text())["data"]
    dialogue = raw["dialogs"][0]
    said = [(raw["questions"][turn["question"]], raw["answers"][turn["answer"]]) for turn in dialogue["dialog"]]
    answers = [raw["answers"][number] for number in dialogue["dialog"][4]["answer_options"]]
    image = RAW / f"VisualDialog_val2018/VisualDialog_val2018_{dialogue['image_id']:012d}.jpg"
    answer = model.choose(image, said[4][0], answers, history=said[:4], caption=dialogue["caption"])
    ranks = json.loads(Path(tested["log_dir"], "visdial_val.json").read_text())[4]["ranks"]
    by_rank = [answers[place] for place in np.argsort(ranks)]
    values = dict(answer.choices)
    found = [values[option] for option in by_rank]
    assert all(one >= other - 1e-6 for one, other in itertools.pairwise(found))
    assert answer.head == "visdial"
    assert sum(value for _, value in answer.choices) == pytest.approx(1, abs=1e-4)


def test_a_model_of_dialogues_says_how_it_is_asked(trained, arrows_of_visdial):
    model = vlc.Model.from_checkpoint(trained, num_gpus=0)
    with pytest.raises(UserError, match=r"pass options=\[\.\.\.\], or from Python call choose of vlc\.Model"):
        model.answer(tiny.image_bytes(), "is it sunny")
    with pytest.raises(UserError, match="no options are given"):
        model.choose(tiny.image_bytes(), "is it sunny", [])
