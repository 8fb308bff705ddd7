"""NLVR2: pairs of images, consistency, the scorer's file."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from tests import tiny
from vlc.checkpoint.weights import load, read
from vlc.common.inputs import Images
from vlc.configuration.recipes import loss_weights
from vlc.configuration.task_settings import make_options
from vlc.data.arrow import ArrowSplit
from vlc.data.batch import Batch
from vlc.data.catalog import CATALOG
from vlc.objectives.base import ModelContext, Outcome
from vlc.objectives.classes import Classes
from vlc.tasks import HEADS, TASKS
from vlc.training.run import build_data, build_module, run

REPORT = TASKS["nlvr2"].report


def _objective() -> Classes:
    context = ModelContext(width=32, vocab_size=20, num_patches=4, size=tiny.SMALL)
    return Classes(make_options("classes", HEADS["nlvr2"].options), context)


RECORDS = [
    {"identifier": "dev-850-0-0", "answer": True, "right": True},
    {"identifier": "dev-850-1-0", "answer": False, "right": True},
    {"identifier": "dev-850-0-1", "answer": True, "right": True},
    {"identifier": "dev-850-1-1", "answer": True, "right": False},
    {"identifier": "dev-851-1-1", "answer": True, "right": True},
]


def test_consistency_counts_sentences_that_are_always_judged_rightly():
    assert REPORT.summary(RECORDS) == {"consistency": 2 / 3}


@pytest.mark.parametrize("own", ["q1", "a-b", "1-2-3", "dev-850-x-0", "", 17])
def test_identifiers_of_other_data_are_taken_as_they_are_and_consistency_says_what_it_leaves_out(own):
    records = [record | {"identifier": own} for record in RECORDS[:2]]
    with pytest.warns(UserWarning, match="consistency leaves out 2 of 2 sentences: identifiers such as"):
        assert REPORT.summary(records) == {}
    with pytest.warns(UserWarning, match="leaves out 2 of 7 sentences"):
        assert REPORT.summary(RECORDS + records) == {"consistency": 2 / 3}
    assert REPORT.submission(records)[1].startswith(f"{own},True\n")


def test_data_with_identifiers_of_their_own_are_tested_to_the_end(arrows, small_vit, tmp_path):
    folder = tiny.write_dataset(tmp_path / "own", "nlvr2")
    for path in folder.glob("*.arrow"):
        columns = pa.ipc.open_file(str(path)).read_all().to_pydict()
        columns["identifiers"] = [[f"pair{n}/{text}" for text in range(tiny.TEXTS)] for n in range(tiny.ROWS)]
        tiny.write_table(path, columns)
    options = {"data_root": str(folder), "vit": small_vit, "log_dir": str(tmp_path)}
    trained = run(tiny.settings("task_finetune_nlvr2_mae_randaug", **options))
    saved = f"{trained['log_dir']}/checkpoints/last.ckpt"
    tested = run(tiny.settings("task_finetune_nlvr2_mae_randaug", **options, test_only=True, load_path=saved))
    assert {"nlvr2/dev/accuracy", "nlvr2/test1/accuracy"} <= set(tested)
    assert not [name for name in tested if name.endswith("consistency")]
    lines = Path(tested["log_dir"], "nlvr2_test1.csv").read_text().splitlines()
    assert lines[0].startswith("pair0/0,")


def test_accuracy_by_type_of_statement_where_the_data_have_it():
    records = [record | {"statement_type": kind} for record, kind in zip(RECORDS, "aabbb", strict=True)]
    assert REPORT.summary(records) == {"accuracy/a": 1, "accuracy/b": 2 / 3, "consistency": 2 / 3}


def test_without_labels_there_is_no_consistency():
    assert REPORT.summary([{"identifier": "test1-0-0-0", "answer": True}]) == {}


def test_the_scorers_file():
    assert REPORT.submission(RECORDS[:2]) == ("csv", "dev-850-0-0,True\ndev-850-1-0,False\n")


def test_predictions():
    batch = Batch(
        index=torch.arange(2),
        split="dev",
        parts={"truth": torch.tensor([1, 1]), "identifier": ["a-0-0-0", "a-0-1-0"]},
    )
    outcome = Outcome(torch.zeros(()), {}, torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    records = [dict(answer.record) for answer in _objective().answers(outcome, batch)]
    assert [max(record.pop("probabilities")) for record in records] == pytest.approx([0.7311, 0.7311], abs=1e-4)
    assert records == [
        {"identifier": "a-0-0-0", "answer": "True", "right": True, "gold": "True"},
        {"identifier": "a-0-1-0", "answer": "False", "right": False, "gold": "True"},
    ]


def test_files_without_whole_names_number_their_sentences(arrows, tmp_path):
    columns = pa.ipc.open_file(str(arrows / "nlvr2_dev.arrow")).read_all().to_pydict()
    ours = _identifiers(arrows / "nlvr2_dev.arrow")
    del columns["identifiers"]
    assert _identifiers(tiny.write_table(tmp_path / "old.arrow", columns)) == ours


def _identifiers(path) -> list[str]:
    spec = CATALOG["nlvr2"]
    split = ArrowSplit([path], spec, "nlvr2", spec.columns(frozenset(spec.fields)))
    return [split.field(split.locate(sample), "identifier") for sample in range(len(split))]


def test_images_are_told_apart_and_their_order_matters(arrows, small_vit):
    settings = tiny.settings("task_finetune_nlvr2_mae_randaug", data_root=str(arrows), vit=small_vit)
    data = build_data(settings)
    module = build_module(settings, data).eval()
    assert module.encoder.token_types.weight.shape[0] == 3
    batch = module.normalised(data.evaluation["dev"][[(0, 0), (0, 1)]])
    with torch.no_grad():
        torch.nn.init.normal_(module.encoder.token_types.weight)
        torch.nn.init.normal_(module.objectives["nlvr2"].classifier[3].weight)
        logits = module.outcomes(batch)["nlvr2"].logits
        swapped = module.outcomes(replace(batch, images=Images(batch.images.pixels.flip(1))))
    assert not torch.allclose(swapped["nlvr2"].logits, logits, atol=1e-4)


def test_a_model_of_one_image_starts_the_second_like_the_first(arrows, small_vit, tmp_path):
    options = {"data_root": str(arrows), "vit": small_vit, "log_dir": str(tmp_path)}
    one = run(tiny.settings(datasets=["coco"], loss_names=loss_weights(mlm=1), mlm_prob=0.5, **options))
    settings = tiny.settings("task_finetune_nlvr2_mae_randaug", **options)
    module = build_module(settings, build_data(settings))
    report = load(module, read(f"{one['log_dir']}/checkpoints/last.ckpt"))
    assert report.resized == ["encoder.token_types.weight"]
    types = module.encoder.token_types.weight
    assert torch.equal(types[1], types[2])


def test_splits_report_under_their_own_names_and_dev_selects(arrows, small_vit, tmp_path):
    options = {"data_root": str(arrows), "vit": small_vit, "log_dir": str(tmp_path)}
    usual = run(tiny.settings("task_finetune_nlvr2_mae_randaug", **options, max_steps=2))
    assert usual["val/the_metric"] == usual["nlvr2/dev/accuracy"]
    assert "nlvr2/test1/accuracy" not in usual
    published = run(tiny.settings("task_finetune_nlvr2_mae_randaug", "data_published_splits", **options, max_steps=2))
    assert published["val/the_metric"] == published["nlvr2/test1/accuracy"]
    saved = f"{usual['log_dir']}/checkpoints/last.ckpt"
    tested = run(tiny.settings("task_finetune_nlvr2_mae_randaug", **options, test_only=True, load_path=saved))
    assert {"nlvr2/dev/consistency", "nlvr2/test1/accuracy"} <= set(tested)
    lines = Path(tested["log_dir"], "nlvr2_test1.csv").read_text().splitlines()
    assert len(lines) == tiny.ROWS * tiny.TEXTS
    subsets = run(
        tiny.settings(
            "task_finetune_nlvr2_mae_randaug", **options, datasets=["nlvr2_subsets"], test_only=True, load_path=saved
        )
    )
    assert "nlvr2/balanced_test1/accuracy" in subsets
