"""Reports of runs made on the spot: figures as tests measure them, hostile texts, sizes, and folders that are no runs."""

import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from vlc.common.errors import UserError
from vlc.configuration.config import resolve, resolve_use
from vlc.configuration.recipes import loss_weights
from vlc.data.catalog import CATALOG
from vlc.evaluation import examples
from vlc.evaluation.intervals import bootstrap, calibration
from vlc.evaluation.results import Results
from vlc.model.sizes import ENCODERS
from vlc.training import facts
from vlc.training.facts import Facts
from vlc.training.run import run
from vlc.use.report import Page, report
from vlc.use.report import page as page_module
from vlc.use.report.page import made, render, write_page
from vlc.use.report.run import Run
from vlc.use.report.section import Section
from vlc.use.report.sections import SECTIONS, comparison, confusion, curves, groups, origin, results, sanity

TASKS = [
    "gqa",
    "nlvr2",
    "refcoco",
    "refcoco_box",
    "visual7w",
    "mlt",
    "vcr_qa",
]  # a head of each kind that judges answers
HOSTILE = "<img src=x onerror=alert(1)>\"'&<script>"


@pytest.fixture(scope="module", autouse=True)
def small_vit_of_module():
    """A two-layer encoder, as `tiny.settings` names it, for all runs of this file."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(ENCODERS, "small_vit", tiny.SMALL)
        yield


@pytest.fixture(scope="module")
def trained(arrows, tmp_path_factory) -> Path:
    """The log folder of a training of all kinds of heads that judge single answers."""
    log_dir = str(tmp_path_factory.mktemp("trained"))
    options = {"data_root": str(arrows), "log_dir": log_dir, "tasks": TASKS, "max_steps": len(TASKS)}
    return Path(run(tiny.settings(**options))["log_dir"])


@pytest.fixture(scope="module")
def tested(trained, arrows, tmp_path_factory) -> Path:
    """The log folder of the test of this training."""
    options = {"data_root": str(arrows), "log_dir": str(tmp_path_factory.mktemp("tested")), "tasks": TASKS}
    checkpoint = str(trained / "checkpoints" / "last.ckpt")
    return Path(run(tiny.settings(**options, test_only=True, load_path=checkpoint))["log_dir"])


@pytest.fixture(scope="module")
def captions(arrows, tmp_path_factory) -> Path:
    """The log folder of a training of retrieval, reconstruction and hidden words, long enough for curves."""
    options = {"data_root": str(arrows), "log_dir": str(tmp_path_factory.mktemp("captions"))}
    options |= {
        "loss_names": loss_weights(mlm=1, mae=1, itm=1, irtr=1, itc=1),
        "mlm_prob": 0.5,
        "max_steps": 12,
        "batch_size": 2,
        "per_gpu_batchsize": 2,
    }
    options |= {"is_pretrain": True, "draw_false_image": 1, "draw_false_text": 2}
    return Path(run(tiny.settings("task_finetune_irtr_coco_mae_randaug", **options))["log_dir"])


@pytest.fixture(scope="module")
def of_test(tested) -> Run:
    return _run(tested, num_examples=5)


@pytest.fixture(scope="module")
def of_training(trained) -> Run:
    """The training, of which a part of each split is evaluated here."""
    return _run(trained, num_examples=5)


def _run(folder: Path, num_examples: int = 500, **overrides) -> Run:
    return Run(folder, resolve(), {"num_gpus": 0, **overrides}, num_examples)


def _report(folder: Path, out: Path, **values) -> str:
    path = report(*resolve_use(run=str(folder), out=str(out), num_gpus=0, **values))
    assert path == out
    return out.read_text()


def _checked(page: str) -> str:
    """A page without its pictures, after it was checked that it needs nothing from elsewhere."""
    bare = re.sub(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+", "data:", page)
    assert not re.search(r"https?:|//\w|<script|<link|url\(|@import", bare)
    assert set(re.findall(r'(?:src|href)="([^"#]*)', bare)) <= {"data:", ""}
    assert "{{" not in bare
    return bare


# -- what runs leave


def test_a_test_leaves_examples_whose_mean_scores_are_its_metrics(of_test, tested):
    metrics = Results.read(tested / "metrics.json").metrics
    found = of_test.by_head()
    names = {"gqa": "score"}
    assert {task for task, _, _ in found} == set(TASKS)
    for (task, _, split), own in found.items():
        expected = metrics[f"{task}/{split}/{names.get(task, 'accuracy')}"]
        assert np.mean([one.score for one in own]) == pytest.approx(expected, abs=1e-4), task
    assert sum(one.score is None for one in of_test.examples) == 0


def test_examples_name_their_answers_and_boxes(of_test):
    by_task = {one.task: one for one in of_test.examples}
    assert set(by_task["nlvr2"].about) == {"statement_type"}
    assert by_task["nlvr2"].truth in ("True", "False")
    assert len(by_task["refcoco"].boxes[0]) == len(by_task["refcoco"].meant[0]) == 4
    assert by_task["refcoco_box"].confidence is None
    assert by_task["mlt"].truth in ("Haus", "maison")
    assert set(by_task["mlt"].about) >= {"target_lang"}
    assert len({(one.place, one.split) for one in of_test.examples}) == len(of_test.examples)


def test_a_run_says_what_it_was(trained, tested, arrows):
    found = Facts.read(trained / facts.FILE)
    assert found.command
    assert found.config["tasks"] == TASKS
    assert set(found.versions) >= {"python", "torch", "vlc"}
    assert found.seconds > 0
    assert found.peak_memory > 1e7
    splits = {(one["task"], one["split"]) for one in found.data}
    assert splits >= {("gqa", "train"), ("gqa", "val")}
    (file,) = next(one["files"] for one in found.data if one["dataset"] == "nlvr2" and one["split"] == "train")
    assert file == {
        "name": "nlvr2_train.arrow",
        "bytes": (arrows / "nlvr2_train.arrow").stat().st_size,
        "checksum": None,
    }
    assert {one["split"] for one in Facts.read(tested / facts.FILE).data if one["task"] == "gqa"} == {"testdev"}


def test_damaged_facts_are_refused(tmp_path):
    (tmp_path / facts.FILE).write_text('{"command": 3}')
    with pytest.raises(UserError, match="does not hold the facts of a run"):
        _run(tmp_path)


# -- the figures of the sections


def test_the_result_table_has_the_metrics_of_the_test_with_intervals(of_test, tested):
    metrics = Results.read(tested / "metrics.json").metrics
    (table,) = results.section(of_test).values["tables"]
    rows = {metric.task: row for row in table["groups"][""] for metric in row[:1]}
    assert set(rows) == set(TASKS)
    metric, interval, chance, whole = rows["nlvr2"]
    scores = [one.score for one in of_test.examples if one.task == "nlvr2" and one.split == metric.split]
    assert interval == bootstrap(scores)
    assert chance == 0.5
    assert whole == metrics[f"nlvr2/{metric.split}/accuracy"]
    assert "nlvr2/dev/loss" in dict(table["others"]) or f"nlvr2/{metric.split}/loss" in dict(table["others"])


def test_evaluating_here_gives_what_the_test_gave(of_training, of_test):
    whole = {(one.place, one.split): one for one in of_test.examples}
    assert 0 < len(of_training.examples) < len(whole)
    for one in of_training.examples:
        other = whole[one.place, one.split]
        assert (one.answer, one.truth, one.score, one.about) == (other.answer, other.truth, other.score, other.about)


def test_a_part_of_the_samples_is_spread_over_the_split(of_training):
    assert of_training.evaluated.sizes["gqa", "testdev"] == (5, 12)
    numbers = [one.number for one in of_training.examples if one.task == "gqa"]
    assert numbers == [0, 3, 6, 8, 11]


def test_inputs_that_are_left_out(of_training):
    rows = sanity.section(of_training).values["tables"][0]["rows"]
    assert {row["head"] for row in rows} >= {"gqa", "nlvr2", "refcoco (refer)"}
    for row in rows:
        assert [one.size for one in row["changed"]] == [row["whole"].size] * 3
        assert row["whole"].size <= 5


def test_groups_are_means_of_their_examples(of_test):
    found = {(one.head, one.field, one.value): one.score for one in groups.groups(of_test)}
    own = [one.score for one in of_test.examples if one.task == "gqa" and one.about["question_type"] == "count"]
    assert found["gqa", "question_type", "count"] == bootstrap(own)


def test_a_table_of_confusions():
    place = examples.Place("vqa", "t", 0, 0, -1)
    pairs = [("yes", "yes")] * 3 + [("yes", "no")] * 2 + [("no", "no"), ("no", "dog"), ("", "no")]
    made_up = [
        examples.Example("", "test", number, place, [(answer, 0.5)], True, truth, float(answer == truth))
        for number, (truth, answer) in enumerate(pairs)
    ]
    found = confusion.confusion(made_up)
    assert found["columns"] == ["yes", "no", "other answers"]
    assert found["rows"] == [
        ("yes", 5, [(3, True), (2, False), (0, False)]),
        ("no", 2, [(0, False), (1, True), (1, False)]),
    ]
    assert confusion.confusion(made_up[:1]) is None, "answers that do not come again"


def test_runs_are_compared_on_the_examples_that_both_have(of_test):
    other = [replace(one, score=1.0 - (one.score or 0)) for one in of_test.examples if one.task == "nlvr2"]
    pairs = comparison.paired(of_test.examples, other)
    assert {head for head, _ in pairs} == {"nlvr2"}
    assert sum(map(len, pairs.values())) == len(other)
    for one, second in (pair for own in pairs.values() for pair in own):
        assert one.place == second.place
        assert one.score + second.score == 1


def test_settings_that_differ():
    base = {"seed": 0, "tasks": ["vqa"], "log_dir": "a", "vqa": {"batch_size": 8, "where": {}}, "old": 1}
    own = {"seed": 1, "tasks": ("vqa",), "log_dir": "b", "vqa": {"batch_size": 4, "where": {}}, "new": 2}
    assert origin.changed(own, base) == [("seed", 1, 0), ("vqa.batch_size", 4, 8)]


def test_curves_join_training_and_validation():
    assert curves.named("vqa/train/loss") == ("vqa loss", "train")
    assert curves.named("train/loss") == ("loss", "train")
    assert curves.named("lr-AdamW/pg1") == ("learning rate", "pg1")
    found = curves.chart("loss", {"train": [(0, 4.0), (10, 2.0)], "val": [(10, 1.0)]})
    assert found["lines"] == {"train": "0.00,0.00 100.00,50.00", "val": "100.00,75.00"}
    assert (found["top"], found["bottom"], found["last"], found["ends"]) == (4, 0, 10, {"train": 2, "val": 1})
    thin = curves.thin([(step, float(step)) for step in range(600)])
    assert len(thin) == 150
    assert thin[0] == (1.5, 1.5)


# -- pages


def test_a_page_of_a_test_beside_its_training(tested, trained, of_test, tmp_path):
    page = _report(tested, tmp_path / "page.html", compare=str(trained), num_examples=2)
    bare = _checked(page)
    assert len(page) < 5_000_000
    for name in ("origin", "results", "comparison", "groups", "sanity", "examples", "first", "grounding", "reproduce"):
        assert f'class="{name}"' in bare
    left_out = re.search("<h2>Left out</h2>(.*?)</ul>", bare, re.DOTALL)[1]
    assert "Reconstructions: no head reconstructs images" in left_out
    assert "what mattered for the answer" in bare, "heat maps"
    assert html.escape(of_test.text(of_test.examples[0])) in bare
    section = re.search('<section id="comparison-1".*?</section>', bare, re.DOTALL)[0]
    assert section.count("<td>0 : 0</td><td>1</td>") == len(list(re.findall(r"<td>0 : 0</td>", section))) >= len(TASKS)
    assert "Settings in which the two differ" in bare


def test_calibration_of_a_page_is_that_of_its_examples(of_test, monkeypatch):
    module = SECTIONS["Calibration"].section.__globals__
    monkeypatch.setitem(module, "_LEAST", 4)
    charts = SECTIONS["Calibration"].section(of_test).values["charts"]
    found = {one["title"]: one["found"] for one in charts}
    own = [one for one in of_test.examples if one.task == "gqa"]
    assert found["gqa, testdev"] == calibration([one.confidence for one in own], [one.score for one in own])
    assert not any("refcoco_box" in title for title in found)


def test_without_tensorboard_the_curves_are_those_of_validations(tmp_path):
    lines = ({"epoch": 0, "step": step, "metrics": {"val/the_metric": step / 10}} for step in (1, 2))
    (tmp_path / "validations.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert Run(tmp_path, {}, {}, 1).curves == {"val/the_metric": [(1, 0.1), (2, 0.2)]}
    (tmp_path / "validations.jsonl").write_text("{}")
    with pytest.raises(UserError, match="does not hold the metrics of validations"):
        _ = Run(tmp_path, {}, {}, 1).curves


def test_a_page_of_retrieval_reconstructions_and_curves(captions, tmp_path):
    page = _report(captions, tmp_path / "page.html", num_examples=8)
    bare = _checked(page)
    for name in ("retrieval", "reconstructions", "masks", "curves", "speed"):
        assert f'class="{name}"' in bare
    assert len(re.findall(r'class="strip"', bare)) == 6
    assert "samples/s in training, median" in bare
    assert "share of the time that waits for batches" in bare
    assert "irtr/test/ir_r1" not in bare, "nothing was tested"


def test_ranks_of_strips_are_those_of_the_scores(captions):
    strip, *_ = SECTIONS["Retrieval"].section(_run(captions, num_examples=1)).values["strips"]
    for query in strip["by_text"]:
        places = [place for place, image in enumerate(query["shown"], start=1) if image["right"]]
        assert places == [query["rank"]] if query["rank"] <= len(query["shown"]) else places == []


def test_a_folder_of_several_runs_gives_a_page_with_a_part_for_each(tested, captions, tmp_path):
    for name, folder in (("first", tested), ("second", captions)):
        shutil.copytree(folder, tmp_path / "runs" / name / "version_0")
    bare = _checked(_report(tmp_path / "runs", tmp_path / "page.html", num_examples=2))
    assert "<h1>first/version_0</h1>" in bare
    assert 'id="retrieval-2"' in bare or 'id="retrieval-1"' in bare
    with pytest.raises(UserError, match="has 2 runs inside, and compare takes one"):
        _report(tmp_path / "runs", tmp_path / "page.html", compare=str(tested))


def test_hostile_texts_are_shown_and_not_obeyed(tested, tmp_path):
    folder = tmp_path / HOSTILE.replace("/", "") / "version_0"
    shutil.copytree(tested, folder)
    stored = json.loads((folder / facts.FILE).read_text())
    stored["command"] = f"run.py {HOSTILE} \x1b[2J"
    (folder / facts.FILE).write_text(json.dumps(stored))
    lines = [json.loads(line) for line in (folder / examples.FILE).read_text().splitlines()]
    for line in lines[:8]:
        line["truth"], line["about"] = HOSTILE, {"question_type": HOSTILE}
        line["choices"] = [[HOSTILE, 0.5], *line["choices"][1:]]
    (folder / examples.FILE).write_text("\n".join(map(json.dumps, lines[:8])))
    bare = _checked(_report(folder, tmp_path / "page.html", num_examples=1))
    assert "<img src=x" not in bare
    assert bare.count(html.escape("<img src=x onerror=alert(1)>", quote=False)) > 20
    assert "\x1b" not in bare


def test_pictures_shrink_until_the_page_is_small_enough(monkeypatch, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 300, 300, 3), dtype=np.uint8)
    triples = [[Image.fromarray(one)] * 3 for one in pixels]
    page = Page("", "", [], first=[Section("", "reconstructions", {"triples": triples})])
    sizes = [len(render(page, [("", page.first)], [], side)) for side in (224, 160)]
    monkeypatch.setattr(page_module, "MOST_BYTES", sizes[1] + 1)
    write_page(page, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size == sizes[1] < sizes[0]
    monkeypatch.setattr(page_module, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match="would be larger than"):
        write_page(page, tmp_path / "page.html")


# -- folders that are no runs, or lack something


@pytest.mark.parametrize("name", ["empty", "missing", "file.txt"])
def test_a_folder_that_is_no_run(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").touch()
    with pytest.raises(UserError, match=r"run=.*(has no run inside|is no folder)"):
        _report(tmp_path / name, tmp_path / "page.html")


def test_run_and_out_are_asked_for(tested, tmp_path):
    with pytest.raises(UserError, match="run=FOLDER is missing"):
        report(*resolve_use(num_gpus=0))
    with pytest.raises(UserError, match="is a folder: name a file"):
        _report(tested, tmp_path)


def test_what_is_missing_is_said_with_the_cure(trained, tested, tmp_path):
    without = tmp_path / "without" / "version_0"
    shutil.copytree(trained, without, ignore=shutil.ignore_patterns("checkpoints"))
    sections, left_out = made(_run(without))
    assert [one.name for one in sections] == ["origin", "speed", "reproduce"]
    assert any("has no checkpoint in its folder checkpoints: pass load_path=CHECKPOINT" in line for line in left_out)
    checkpoint = str(trained / "checkpoints" / "last.ckpt")
    sections, _ = made(_run(without, num_examples=2, load_path=checkpoint))
    assert "results" in [one.name for one in sections]
    sections, left_out = made(_run(tested, num_examples=1, data_root=str(tmp_path / "moved")))
    assert any("Pass data_root=FOLDER" in line for line in left_out)
    (table,) = next(one for one in sections if one.name == "results").values["tables"]
    assert dict(table["others"]) == Results.read(tested / "metrics.json").metrics


def test_data_that_are_others_now(tested, arrows, tmp_path):
    for path in arrows.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "gqa_testdev.arrow").unlink()
    tiny.write_table(tmp_path / "gqa_testdev.arrow", tiny.rows(CATALOG["gqa"], "testdev", num_rows=2))
    found = _run(tested, data_root=str(tmp_path))
    last = [one for one in found.examples if one.task == "gqa"][-1]
    with pytest.raises(UserError, match="The data are no longer those that"):
        found.pictures(last)


def test_a_run_of_another_version(tested, tmp_path):
    folder = tmp_path / "version_0"
    shutil.copytree(tested, folder)
    stored = json.loads((folder / facts.FILE).read_text())
    del stored["config"]["gqa"]["where"], stored["config"]["schedule"]["cooldown"]  # an older one lacks keys
    (folder / facts.FILE).write_text(json.dumps(stored))
    assert _run(folder).settings.tasks[0].where == {}
    stored["config"]["later"] = 1
    (folder / facts.FILE).write_text(json.dumps(stored))
    with pytest.raises(UserError, match="another version wrote it: Unknown config key 'later'"):
        _ = _run(folder).settings
