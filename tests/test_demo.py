"""The demonstration's baseline and report, on a handful of scenes and two steps of training."""

import json
import re
from argparse import Namespace
from pathlib import Path

import pytest
import torch

import main_finetune
from demo import __main__ as demo
from demo import languages, multitask
from demo.__main__ import GROUPS_RECIPE, QUESTION_TYPES, SCENES, _groups_row, _pairs_row, _retrieval_rows, _table
from demo.baseline import any_box, candidates, majority_class, majority_scores, most_frequent_answer, same_box
from demo.comparison import cells
from demo.replicas import REPLICAS, Replica
from demo.report import write_report
from docs.pictures import _section
from tests import tiny
from vlc.configuration.config import resolve
from vlc.configuration.recipes import RECIPES
from vlc.configuration.settings import Settings
from vlc.data.catalog import CATALOG
from vlc.data.hard_pool import pool_name
from vlc.evaluation.results import Results
from vlc.objectives.kinds import KINDS
from vlc.objectives.mae import patchify, unpatchify
from vlc.tasks import TASKS
from vlc.training.run import run
from vlc.use.report.sections.first import OF_TYPE
from vlc.use.report.sections.reconstructions import SHOWN
from vlc.workflows.commands import Stage, typed
from write_arrow.machine.writer import write_table
from write_arrow.sources import SOURCES, emoji_groups


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tiny.write_scenes(tmp_path_factory.mktemp("scenes"), train=40, val=8, test=40, held_out=8)
    return tiny.write_dataset(folder, "emoji")


@pytest.fixture(scope="module")
def stages(data, tmp_path_factory) -> list[Stage]:
    """Pre-training and fine-tuning, logged often enough for curves."""
    made = []
    common = {"data_root": str(data), "log_dir": str(tmp_path_factory.mktemp("log")), "max_steps": 20, "batch_size": 8}
    for named in (
        "task_pretrain_emoji",
        "task_finetune_vqa_emoji",
    ):
        settings = Settings.from_config(resolve(named, **common, per_gpu_batchsize=8))
        metrics = run(settings)
        made.append(Stage(settings, metrics, Path(metrics.pop("log_dir"))))
    return made


def test_chance_scores_are_those_of_the_training_answers(data):
    scores = majority_scores(data, "test")
    assert set(scores) == {"all", *QUESTION_TYPES}
    assert all(0 <= score < 1 for score in scores.values())
    assert scores["exists"] >= 0.3
    assert scores["relation"] < 0.3


def test_the_report_has_its_questions_pictures_and_curves(stages, tmp_path):
    rows = [{"label": "VQA", "unit": "%", "test": 1.0, "test_chance": 2.0, "held_out": None, "held_out_chance": None}]
    page = write_report(tmp_path / "new" / "report.html", rows, *stages).read_text()
    first, reconstructed = (_section(page, name) for name in ("first", "reconstructions"))
    assert first.count('src="data:image/png;base64,') == len(QUESTION_TYPES) * OF_TYPE
    assert first.count('class="bar"') == 5 * len(QUESTION_TYPES) * OF_TYPE
    assert reconstructed.count('src="data:image/png;base64,') == 3 * SHOWN
    assert _section(page, "table").count("<tr>") == 2
    assert page.count("<figcaption>learning rate") == 2
    assert "how many things are there" in page
    assert "{{" not in page


def test_the_table_states_every_type_beside_its_baseline():
    names = [f"score/{kind}" for kind in QUESTION_TYPES]
    vqa = {f"vqa/{split}/{name}": 0.5 for split in ("test", "held_out") for name in ("score", *names)}
    metrics = ("mlm/{}/accuracy", "itm/{}/accuracy", "mae/{}/loss")
    pretraining = {name.format(split): 0.25 for split in SCENES.values() for name in metrics}
    majority = dict.fromkeys(("test", "held_out"), dict.fromkeys(("all", *QUESTION_TYPES), 0.3))
    rows = {row["label"]: row for row in _table(vqa, pretraining, majority)}
    assert len(rows) == 9
    assert (rows["VQA accuracy, where"]["test"], rows["VQA accuracy, where"]["held_out_chance"]) == (50.0, 30.0)
    assert rows["MAE loss"]["test"] == 0.25


def test_the_table_reads_what_a_test_of_pre_training_measures(stages, data):
    common = {"data_root": str(data), "log_dir": str(stages[0].log_dir), "load_path": stages[0].checkpoint}
    settings = Settings.from_config(resolve("task_pretrain_emoji", test_only=True, per_gpu_batchsize=8, **common))
    vqa = {f"vqa/{split}/score{kind}": 0.5 for split in SCENES for kind in ("", *(f"/{k}" for k in QUESTION_TYPES))}
    majority = dict.fromkeys(SCENES, dict.fromkeys(("all", *QUESTION_TYPES), 0.3))
    rows = {row["label"]: row for row in _table(vqa, run(settings), majority)}
    assert 0 <= rows["MLM accuracy"]["test"] <= 100
    assert rows["MAE loss"]["held_out"] > 0


def test_the_rows_of_pairs_and_of_retrieval():
    row = _pairs_row({"nlvr2/test/accuracy": 0.75, "nlvr2/held_out/accuracy": 0.5})
    assert (row["test"], row["test_chance"], row["held_out"], row["held_out_chance"]) == (75, 50, 50, 50)
    images, texts = _retrieval_rows({"itc/test/ir_r1": 0.5, "itc/test/tr_r1": 0.25}, 200)
    assert (images["test"], texts["test"], texts["test_chance"], texts["held_out"]) == (50, 25, 0.5, None)


def test_the_row_of_emoji_groups(tmp_path):
    for table in emoji_groups.tables(Namespace(format="arrow")):
        write_table(table, tmp_path)
    majority = majority_class(tmp_path, "emoji_groups", "test")
    assert majority == pytest.approx(237 / 385)  # "People & Body"
    row = _groups_row(70.04, majority)
    assert (row["test"], row["test_chance"], row["held_out"]) == (70.0, 61.6, None)
    assert main_finetune.parser().parse_args(GROUPS_RECIPE).aa == "none"


@pytest.mark.parametrize("words", [[], ["--all"]], ids=["short", "all"])
def test_the_demonstration_trains_other_tasks_only_where_they_are_asked_for(words, data, monkeypatch, tmp_path, capsys):
    commands, written = [], []
    names = [f"score{kind}" for kind in ("", *(f"/{kind}" for kind in QUESTION_TYPES))]
    metrics = {f"vqa/{split}/{name}": 0.9 for split in SCENES for name in names}
    objectives = ("mlm/{}/accuracy", "itm/{}/accuracy", "mae/{}/loss", "nlvr2/{}/accuracy")
    metrics |= {name.format(split): 0.5 for name in objectives for split in ("test", "held_out", "test_emoji_scenes")}
    metrics |= {"itc/test/ir_r1": 0.5, "itc/test/tr_r1": 0.5}

    def run_command(recipe: str, *named: str, **keys) -> Stage:
        commands.append(f"{recipe} {'test' if keys.get('test_only') else keys.get('load_path')}")
        return Stage(None, metrics, tmp_path / recipe)

    monkeypatch.setattr(demo, "run_command", run_command)
    monkeypatch.setattr(demo, "write", lambda name, folder: written.append(name))
    monkeypatch.setattr(demo, "write_report", lambda path, *others: path)
    monkeypatch.setattr(demo, "_classify", lambda *others: {"test_acc1": 70.0})
    monkeypatch.setattr(demo, "majority_class", lambda *others: 0.6)
    monkeypatch.setattr("sys.argv", ["demo", *words, "--data", str(data), "--out", str(tmp_path / "out")])
    monkeypatch.setattr(demo, "num_rows", lambda path: 200)
    demo.main()
    last = str(tmp_path / "task_pretrain_emoji" / "checkpoints" / "last.ckpt")
    assert (tmp_path / "out" / "pretrained.txt").read_text() == last
    assert commands[:2] == ["task_pretrain_emoji None", f"task_finetune_vqa_emoji {last}"]
    assert len(json.loads((tmp_path / "out" / "table.json").read_text())) == (13 if words else 9)
    assert {"emoji_nlvr2", "emoji_groups"}.isdisjoint(written) != bool(words)
    assert len(commands) == (8 if words else 4)


def test_patches_and_back():
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(unpatchify(patchify(images, 16), 16), images)


@pytest.mark.parametrize("replica", REPLICAS, ids=lambda replica: replica.task)
def test_replicas_name_what_there_is(replica):
    row = TASKS[replica.task]
    headlines = {row.head(kind): KINDS[kind].headline for kind in row.objectives}
    one = len(headlines) == 1
    assert {*replica.guesses} == {name if one else f"{head}_{name}" for head, name in headlines.items()}
    assert "inputs" in row.evaluators
    assert replica.dataset in SOURCES
    assert RECIPES[f"task_finetune_{replica.task}"]["tasks"] == [replica.task]
    assert {CATALOG[name].writer for name in row.datasets} == {replica.dataset}


def test_guesses_at_replicas(tmp_path):
    answers = {"answers": [[["yes"], ["no"]], [["yes"]]], "options": [[["a", "b", "c"]] * 2, [["a", "b", "c"]]]}
    for split in ("train", "test"):
        tiny.write_table(tmp_path / f"own_{split}.arrow", answers)
    assert most_frequent_answer(tmp_path, "own", "test") == pytest.approx(2 / 3)
    assert candidates(tmp_path, "own", "test") == 3


def test_guesses_at_boxes(tmp_path):
    left, right, below = [0.0, 0, 30, 30], [33.0, 1, 63, 31], [1.0, 60, 31, 90]
    of_pictures = {"boxes": [[left, right], [left, right, below]], "answer_index": [[0], [2, 1]]}
    of_pictures["target_boxes"] = [[[left]], [[below], [[2.0, 1, 32, 31]]]]
    tiny.write_table(tmp_path / "refer_test.arrow", of_pictures)
    assert any_box(tmp_path, "refer", "test") == pytest.approx((1 / 2 + 1 / 3 + 1 / 3) / 3)
    assert same_box(tmp_path, "refer", "test") == pytest.approx(2 / 3)
    of_texts = {"boxes": [[[left, right], [left, right, below, below]]], "answer_index": [[0, 1]]}
    tiny.write_table(tmp_path / "game_test.arrow", of_texts)
    assert any_box(tmp_path, "game", "test") == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_the_demonstration_of_many_tasks_knows_a_guess_for_each():
    for name in RECIPES[multitask.RECIPE]["tasks"]:
        row, replica = TASKS[name], multitask.OF_ALL[name]
        assert len(replica.guesses) == len(row.objectives)
        assert {CATALOG[dataset].writer for dataset in row.datasets} == {replica.dataset}


@pytest.fixture
def runs(monkeypatch, tmp_path) -> list[str]:
    """The commands that a comparison of two tasks runs. A test finds scores that depend on the task, and on the company."""
    commands = []

    def run_command(named: str, **keys) -> Stage:
        commands.append(f"{named} {typed(keys)}")
        if keys.get("test_only"):
            scores = {"vqa_emoji/test/score": 0.5, "guess_emoji/test/accuracy": 0.25}
            own = {name: value * len(keys["tasks"]) for name, value in scores.items() if name[:5] in str(keys["tasks"])}
            Results("last.ckpt", 100, list(own), {**own, "vqa_emoji/test/loss": 1.0}).write(tmp_path / "test")
        return Stage(None, {}, tmp_path / "test")

    monkeypatch.setattr(multitask, "run_command", run_command)
    monkeypatch.setattr(multitask, "prepare", lambda arguments: None)
    guesses = {"score": lambda folder: 0.1, "accuracy": lambda folder: 0.2}
    for name in ("vqa_emoji", "guess_emoji"):
        monkeypatch.setitem(multitask.OF_ALL, name, Replica(name, "", guesses))
    return commands


def test_a_comparison_has_as_many_batches_of_each_task_and_is_continued(runs, tmp_path, capsys):
    words = ["--compare", "--steps", "7", "--seeds", "0", "1", "--tasks", "vqa_emoji", "guess_emoji"]
    words += ["--out", str(tmp_path), "--pretrained", "start.ckpt", "--json", str(tmp_path / "copy.json")]
    multitask.main(words)
    assert len(runs) == 12  # with each seed, one training and one test of both together and of each
    assert "task_12in1_emoji 'tasks=[vqa_emoji,guess_emoji]'" in runs[0]
    assert "max_steps=14 seed=0" in runs[0]
    assert "'tasks=[vqa_emoji]'" in runs[2]
    assert "max_steps=7 seed=0" in runs[2]
    for training in runs[::2]:
        assert "load_path=start.ckpt multitask.mixing=round_robin" in training
    assert "guess_emoji.evaluators.inputs=None" in runs[1]
    multitask.main(words)
    assert len(runs) == 12
    comparison = json.loads((tmp_path / "copy.json").read_text())
    assert comparison["better"] == ["vqa_emoji", "guess_emoji"]
    assert comparison["parameters"] == {"single": 200, "all": 100}
    found = cells(comparison)
    assert ("vqa_emoji", "score", "10.0 %", "50.0 % (50.0 to 50.0)", "100.0 % (100.0 to 100.0)") in found
    assert ("better tasks", "", "", "", "2 of 2") in found
    (tmp_path / "vqa_emoji_seed1.json").unlink()
    multitask.main([*words[:2], "7", *words[3:]])
    assert len(runs) == 14
    multitask.main([*words[:2], "8", *words[3:]])
    assert len(runs) == 26


def test_the_demonstration_prints_every_metric_beside_a_guess(runs, tmp_path, capsys):
    multitask.main(["--tasks", "vqa_emoji", "guess_emoji", "--out", str(tmp_path)])
    assert "mixing" not in runs[0]
    assert "max_steps=1000" in runs[0]
    assert re.search(r"guess_emoji.+accuracy.+50\.0.+20\.0", capsys.readouterr().out)


def test_the_benchmark_of_languages_goes_on_from_one_pre_training_and_is_continued(monkeypatch, tmp_path, capsys):
    commands = []

    def run_command(named: str, **keys) -> Stage:
        commands.append(f"{named} {typed(keys)}")
        last = tmp_path / "checkpoints" / "last.ckpt"
        last.parent.mkdir(exist_ok=True)
        last.touch()
        metrics = {name: 0.5 for step in languages.STEPS.values() for name in step.metrics}
        return Stage(None, metrics if keys.get("test_only") else {}, tmp_path)

    monkeypatch.setattr(languages, "run_command", run_command)
    monkeypatch.setattr(languages, "tokenizer", lambda words: commands.append(f"tokenizer {' '.join(words)}"))
    monkeypatch.setattr(languages, "write", lambda name, folder: commands.append(f"write {name}"))
    words = ["--out", str(tmp_path), "--pretrained", "english.ckpt", "--seeds", "0", "1"]
    languages.main(words)
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").touch()
    assert [command.split()[0] for command in commands[:4]] == [
        "write",
        "write",
        "tokenizer",
        "task_pretrain_translations_emoji",
    ]
    assert "load_path=english.ckpt" in commands[3]
    assert sum("test_only=True" not in command for command in commands[4:]) == 2 * len(languages.STEPS)
    assert any("tasks=[translation_hidden_emoji]" in command for command in commands)
    assert re.search(r"images and texts.+50\.0", capsys.readouterr().out)
    done = len(commands)
    languages.main(words)
    assert commands[done:] == ["write emoji_translations", "write emoji_mlt"]


def test_what_is_prepared_once_is_not_prepared_again(monkeypatch, tmp_path):
    made = []

    def write(name: str, folder: Path) -> None:
        made.append(name)
        for split in ("train", "val", "test", "held_out"):
            (folder / f"{name}_{split}.arrow").touch()

    monkeypatch.setattr(multitask, "write", write)
    monkeypatch.setattr(multitask, "pretrain", lambda data, keys: made.append("pretraining") or "first.ckpt")
    monkeypatch.setattr(
        multitask, "make_hard_pool", lambda name, start, data: (made.append(start), (data / pool_name(name)).touch())
    )
    for _ in range(2):
        arguments = Namespace(tasks=["irtr_mc4_emoji", "vqa_emoji"], data=tmp_path, out=tmp_path, pretrained=None)
        multitask.prepare(arguments)
        assert arguments.pretrained == Path("first.ckpt")
    assert made == ["emoji_scenes", "pretraining", Path("first.ckpt")]


def test_what_was_not_measured_has_no_rows():
    assert cells({"steps": 0, "seeds": [], "rows": []}) == []
