"""VQA from files to submission: vocabularies that differ, splits without labels, splits by name, several processes."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from tests import tiny
from tests.warm import command
from vlc.checkpoint import weights
from vlc.common.errors import UserError
from vlc.configuration.recipes import loss_weights
from vlc.data.catalog import CATALOG
from vlc.training.run import build_data, build_module, run

RECIPE = "task_finetune_vqa_mae_randaug"
# Answers by label of two vocabularies that share some.
OURS, THEIRS = ["red", "two", "cat"], ["cat", "blue", "red", "green"]


def _write(folder: Path, vocabulary: list[str], **labels) -> Path:
    """The tables of vqa, question n being answered by label n."""
    for split, stems in CATALOG["vqa"].tables.items():
        for first, stem in enumerate(stems):
            columns = tiny.rows(CATALOG["vqa"], split, first=10 * first)
            if columns["answers"][0]:
                labels = [[[number % len(vocabulary)] for number in numbers] for numbers in columns["question_id"]]
                columns["answer_labels"] = labels
                columns["answers"] = [[[vocabulary[label] for label in text] for text in row] for row in labels]
                columns["answer_scores"] = [[[1.0] for _ in row] for row in labels]
            tiny.write_table(folder / f"{stem}.arrow", columns)
    return folder


@pytest.fixture
def options(small_vit, tmp_path) -> dict:
    data = _write(tmp_path / "ours", OURS)
    return {"data_root": str(data), "log_dir": str(tmp_path / "log"), "vit": small_vit, "vqav2_label_size": 3}


def _trained(options: dict) -> str:
    return f"{run(tiny.settings(RECIPE, **options))['log_dir']}/checkpoints/last.ckpt"


IDS = {
    "integers": lambda number: 458752000 + number,
    "words": lambda number: f"q{number}",
    "digits": lambda number: f"01827{number}" if number % 2 else f"1827{number - 1}",  # two of the same number
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_reach_the_submission_as_they_came(options, kind):
    """Published ids are integers; GQA's are strings of digits, of which some begin with zeros."""
    trained = _trained(options)
    path = Path(options["data_root"]) / "vqav2_test.arrow"
    columns = tiny.rows(CATALOG["vqa"], "test")
    ids = [[IDS[kind](number) for number in numbers] for numbers in columns["question_id"]]
    tiny.write_table(path, columns | {"question_id": ids})
    tested = run(tiny.settings(RECIPE, **options, test_only=True, load_path=trained))
    written = json.loads((Path(tested["log_dir"]) / "vqa_test.json").read_text())
    assert [answer["question_id"] for answer in written] == [number for row in ids for number in row]


def test_training_on_other_answers_carries_the_shared_ones_over(options, tmp_path, caplog):
    caplog.set_level("INFO")
    saved = _trained(options)
    other = options | {"data_root": str(_write(tmp_path / "theirs", THEIRS)), "vqav2_label_size": 4}
    settings = tiny.settings(RECIPE, **other, load_path=saved)
    module = build_module(settings, build_data(settings))
    theirs = weights.read(saved).state
    head = module.objectives["vqa"].classifier[3]
    for name, parameter in (("weight", head.weight), ("bias", head.bias)):
        before = theirs[f"objectives.vqa.classifier.3.{name}"]
        assert torch.equal(parameter[0], before[OURS.index("cat")])
        assert torch.equal(parameter[2], before[OURS.index("red")])
        assert not any(torch.equal(parameter[1], row) for row in before) or name == "bias"
    assert module.objectives["vqa"].context.vocabulary.answers == tuple(THEIRS)
    assert "2 of 4 answers start from the checkpoint's answers (3)" in caplog.text


def test_the_same_answers_are_loaded_as_they_are(options):
    saved = _trained(options)
    settings = tiny.settings(RECIPE, **options, load_path=saved)
    module = build_module(settings, build_data(settings))
    for name, value in weights.read(saved).state.items():
        assert torch.equal(module.state_dict()[name], value), name


def test_a_model_without_questions_takes_nothing_of_them(options, arrows):
    saved = _trained(options)
    settings = tiny.settings(
        **(options | {"data_root": str(arrows)}), datasets=["coco"], loss_names=loss_weights(mlm=1), load_path=saved
    )
    assert "vqa" not in build_module(settings, build_data(settings)).objectives


def test_testing_uses_the_answers_of_the_checkpoint(options, tmp_path):
    """The same questions with labels of another vocabulary: answers that both have are right as before."""
    saved = _trained(options)
    ours, theirs = Path(options["data_root"]), _write(tmp_path / "theirs", THEIRS)
    columns = pa.ipc.open_file(str(ours / "vqav2_rest_val.arrow")).read_all().to_pydict()
    # "two" is not among their answers: of the other two the labels are translated.
    columns["answer_labels"] = [
        [[THEIRS.index(word) for word in words if word in THEIRS] for words in row] for row in columns["answers"]
    ]
    columns["answers"] = [[[word for word in words if word in THEIRS] for words in row] for row in columns["answers"]]
    columns["answer_scores"] = [[[1.0] * len(words) for words in row] for row in columns["answers"]]
    tiny.write_table(theirs / "vqav2_rest_val.arrow", columns)
    scored = {}
    for name, folder in (("ours", ours), ("theirs", theirs)):
        test = {"test_only": True, "splits": ["val"], "load_path": saved}
        settings = tiny.settings(RECIPE, **(options | {"data_root": str(folder)} | test))
        data = build_data(settings)
        module = build_module(settings, data).eval()
        batch = module.normalised(data.evaluation["val"][[(0, sample) for sample in range(12)]])
        with torch.no_grad():
            outcome = module.outcomes(batch)["vqa"]
        scored[name] = [answer.record for answer in module.objectives["vqa"].answers(outcome, batch)]
    said = {record["answer"] for record in scored["ours"]}
    assert said <= set(OURS)
    for ours_record, theirs_record in zip(scored["ours"], scored["theirs"], strict=True):
        truth = OURS[ours_record["question_id"] % 3]
        assert theirs_record["answer"] == ours_record["answer"]
        assert ours_record["score"] == (ours_record["answer"] == truth)
        assert theirs_record["score"] == (truth in THEIRS and theirs_record["answer"] == truth)


def test_answers_that_the_checkpoint_does_not_know_are_told_and_count_as_wrong(options, tmp_path):
    saved = _trained(options)
    unknown = options | {"data_root": str(_write(tmp_path / "none", ["up", "down", "left", "right"]))}
    with pytest.warns(UserWarning, match=r"does not know 4 of the 4 answers of the tested data \('down' among them\)"):
        tested = run(tiny.settings(RECIPE, **unknown, test_only=True, splits=["val"], load_path=saved))
    assert tested["vqa/val/score"] == 0


def test_more_answers_than_the_head_has_are_refused(options, tmp_path):
    other = options | {"data_root": str(_write(tmp_path / "theirs", THEIRS))}
    with pytest.raises(UserError, match="The data have 4 answers, vqav2_label_size=3 is too small"):
        run(tiny.settings(RECIPE, **other))


def test_a_label_of_two_answers_is_refused(options):
    folder = Path(options["data_root"])
    columns = pa.ipc.open_file(str(folder / "vqav2_rest_val.arrow")).read_all().to_pydict()
    columns["answers"][0][0] = ["three"]
    tiny.write_table(folder / "vqav2_rest_val.arrow", columns)
    with pytest.raises(UserError, match=r"vqav2_rest_val\.arrow: answer label 0 stands for .*and elsewhere for"):
        run(tiny.settings(RECIPE, **options))


def _withhold(folder: Path, stem: str) -> None:
    columns = pa.ipc.open_file(str(folder / f"{stem}.arrow")).read_all().to_pydict()
    empty = {name: [[] for _ in column] for name, column in columns.items() if name.startswith("answer")}
    tiny.write_table(folder / f"{stem}.arrow", columns | empty)


def test_a_test_split_whose_labels_are_withheld_is_answered(options):
    """A split that has labels by the catalogue, and a file that has none."""
    saved = _trained(options)
    _withhold(Path(options["data_root"]), "vqav2_rest_val")
    tested = run(tiny.settings(RECIPE, **options, test_only=True, splits=["val"], load_path=saved))
    assert not [name for name in tested if name.startswith("vqa/val/")]
    written = json.loads(Path(tested["log_dir"], "vqa_val.json").read_text())
    assert len(written) == tiny.ROWS * tiny.TEXTS


@pytest.mark.parametrize(("stem", "split"), [("vqav2_rest_val", "val"), ("vqav2_train", "train of vqa")])
def test_training_needs_labels(options, stem, split):
    folder = Path(options["data_root"])
    for name in {stem, stem.replace("vqav2_train", "vqav2_trainable_val")}:
        _withhold(folder, name)
    with pytest.raises(
        UserError, match="has no answer_labels, answer_scores: without labels a split can only be tested"
    ):
        run(tiny.settings(RECIPE, **options))


def test_data_sets_with_and_without_labels_are_not_mixed(options, tmp_path):
    folder = Path(options["data_root"])
    _withhold(folder, "vqav2_train")
    _withhold(folder, "vqav2_trainable_val")
    tiny.write_dataset(folder, "vgqa")
    with pytest.raises(UserError, match="split 'train' of vqa has no labels, and the other data sets have labels"):
        build_data(tiny.settings(RECIPE, **options, datasets=["vqa", "vgqa"]))


@pytest.mark.parametrize("split", ["test", "test-dev"])
def test_the_split_for_the_server_is_chosen(options, split):
    tested = run(tiny.settings(RECIPE, **options, test_only=True, splits=[split], load_path=_trained(options)))
    assert {path.name for path in Path(tested["log_dir"]).glob("vqa_*")} == {f"vqa_{split}.json"}


def test_splits_are_names_that_the_data_sets_have(options):
    with pytest.raises(
        UserError, match=r"splits=\('dev',\) is not valid: expected names out of train, val, test, test-dev"
    ):
        tiny.settings(RECIPE, **options, splits=["dev"])


def test_two_processes_answer_every_question_once(arrows, tmp_path):
    """Seven batches for two processes; a second test leaves what the first one wrote alone, and takes nothing from it."""
    words = ["with", RECIPE, f"data_root={arrows}", f"log_dir={tmp_path}", "num_gpus=0", "num_workers=0"]
    words += ["vit=mae_vit_tiny_patch16", "image_size=32", "tokenizer=emoji", "vocab_size=None", "max_text_len=16"]
    words += ["per_gpu_batchsize=2", "batch_size=4", "max_steps=1", "vqav2_label_size=3", "val_check_interval=1.0"]
    _launch(1, words)
    (saved,) = tmp_path.glob("*/version_0/checkpoints/last.ckpt")
    words += ["test_only=True", f"load_path={saved}", "splits=['test','test-dev']"]
    for count in (2, 1):
        _launch(count, words)
    written = {}
    for path in sorted(tmp_path.glob("*_from_last/version_*/vqa_*.json")):
        written.setdefault(path.name, []).append(json.loads(path.read_text()))
    for split in ("test", "test-dev"):
        table = pa.ipc.open_file(f"{arrows}/vqav2_{split}.arrow").read_all()
        asked = sorted(table["question_id"].combine_chunks().flatten().to_pylist())
        by_two, by_one = (sorted(answers, key=lambda a: a["question_id"]) for answers in written[f"vqa_{split}.json"])
        assert [answer["question_id"] for answer in by_two] == asked
        assert by_two == by_one
    assert len(list(tmp_path.rglob("vqa_*"))) == 4, "one file for each split and test"


def _launch(count: int, words: list[str]) -> None:
    launcher = ["-m", "launch", f"--nproc_per_node={count}", "--standalone"] if count > 1 else []
    done = command(*launcher, "run.py", *words)
    assert done.returncode == 0, done.stderr[-2000:]
