"""What can be continued and what is refused, told before training; log folders that cannot be written to."""

import os
from pathlib import Path

import pytest
import torch

import main_finetune
from tests import tiny
from tests.labelled_folders import words, write_folder
from tests.resuming import last_checkpoint
from vlc.common.errors import MissingFile, UnwritableFile, UserError
from vlc.configuration.recipes import loss_weights
from vlc.training.resume import differences, newest
from vlc.training.run import run

RECIPE = "task_finetune_vqa_mae_randaug"


@pytest.fixture
def options(arrows, small_vit, tmp_path) -> dict:
    return {"data_root": str(arrows), "vit": small_vit, "log_dir": str(tmp_path / "log")}


@pytest.fixture
def saved(options, tmp_path) -> Path:
    run(tiny.settings(RECIPE, **options, max_steps=2))
    return last_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": ["coco"], "loss_names": loss_weights(mlm=1)}, r"is of another model \(.*loss_names .*now "),
        ({"layer_decay": 1.0}, r"is of another optimiser \(.*layer_decay 0\.5 \(now 1\.0\)"),
        (
            {"optimizer.rates": {"classifier": 2}},
            r"is of another optimiser \(.*optimizer.rates {} \(now {'classifier': 2}\)",
        ),
        ({"optimizer.frozen": ["norm"]}, r"is of another optimiser \(.*optimizer.frozen \[\] \(now \['norm'\]\)"),
        ({"max_text_len": 20}, r"is of another model \(max_text_len 16 \(now 20\)"),
        ({"optim_type": "sgd"}, r"is of another optimiser \(.*optim_type 'adamw' \(now 'sgd'\)"),
        ({"per_gpu_batchsize": 2}, "was saved with 4 samples a step over all devices, this run has 2"),
    ],
    ids=["objectives", "groups", "rates", "frozen", "shapes", "optimiser", "batch"],
)
def test_another_run_is_refused_in_a_sentence(options, saved, changes, message):
    with pytest.raises(UserError, match=rf"resume_from={saved} {message}"):
        run(tiny.settings(RECIPE, **options | {"max_steps": 4, "resume_from": str(saved)} | changes))


def test_other_data_are_refused(options, saved, tmp_path):
    folder = tiny.write_dataset(tmp_path / "more", "vqa", num_rows=8)
    with pytest.raises(UserError, match=r"over other data: \d+ training samples, this run has \d+"):
        run(tiny.settings(RECIPE, **options | {"data_root": str(folder)}, max_steps=4, resume_from=str(saved)))


def test_other_settings_are_told(options, saved):
    with pytest.warns(UserWarning, match=r"other settings: .*batch_size 4 \(now 8\), seed 0 \(now 1\)"):
        run(tiny.settings(RECIPE, **options, max_steps=4, resume_from=str(saved), seed=1, batch_size=8))


def test_files_that_hold_no_run_are_refused(options, tmp_path, golden):
    (tmp_path / "text.ckpt").write_text("hello")
    torch.save({"state_dict": {}}, tmp_path / "weights.ckpt")
    for path, message in (
        (tmp_path / "text.ckpt", "cannot be read as a checkpoint of a run"),
        (tmp_path / "weights.ckpt", r"holds no state of a run .*start from them with load_path="),
        (golden / "tiny/pretrain.ckpt", "holds no state of a run"),
    ):
        with pytest.raises(UserError, match=f"resume_from={path} {message}"):
            run(tiny.settings(RECIPE, **options, resume_from=str(path)))
        with pytest.raises(UserError, match=f"--resume {path} {message.partition(' .*')[0]}"):
            main_finetune.main(words(write_folder(tmp_path / path.stem, {"train": 8, "val": 1}), resume=path))
    with pytest.raises(MissingFile, match="resume_from=nowhere does not exist"):
        run(tiny.settings(RECIPE, **options, resume_from="nowhere"))


def test_auto_continues_the_newest_run_of_the_name(options, tmp_path):
    for steps in (1, 2, 3):
        metrics = run(tiny.settings(RECIPE, **options, max_steps=steps, resume_from="auto"))
        state = torch.load(Path(metrics["log_dir"], "checkpoints/last.ckpt"), weights_only=True)
        assert state["global_step"] == steps
        assert state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] == steps
    other = run(tiny.settings(RECIPE, **options, max_steps=1, resume_from="auto", exp_name="other"))
    assert Path(other["log_dir"]).name == "version_0"


def test_main_finetune_tells_other_options_and_refuses_other_data(images, tmp_path):
    main_finetune.main(words(images, tmp_path / "out", epochs=1))
    last = tmp_path / "out/last.ckpt"
    with pytest.warns(UserWarning, match=r"was saved with other options: .*mixup 0 \(now 0\.8\)"):
        main_finetune.main(words(images, resume=last, epochs=2, mixup=0.8))
    fewer = write_folder(tmp_path / "fewer", {"train": 15, "val": 5})
    with pytest.raises(UserError, match="over other data: 48 training samples, this run has 45"):
        main_finetune.main(words(fewer, resume=last))
    with pytest.raises(UserError, match="was saved with 8 samples a step over all devices, this run has 4"):
        main_finetune.main(words(images, resume=last, batch_size=4))


@pytest.mark.parametrize("program", ["run", "main_finetune"])
def test_a_folder_that_is_a_file_is_told_before_anything_is_read(small_vit, tmp_path, program):
    (tmp_path / "file").touch()
    if program == "run":
        settings = tiny.settings(RECIPE, data_root="nowhere", vit=small_vit, log_dir=str(tmp_path / "file"))
        with pytest.raises(UnwritableFile, match=r"log_dir=.*file cannot be written to \(File exists\)"):
            run(settings)
    else:
        with pytest.raises(UnwritableFile, match=r"--log_dir .*file cannot be written to \(File exists\)"):
            main_finetune.main(words(tmp_path / "nowhere", log_dir=tmp_path / "file"))


def test_a_folder_without_room_for_a_checkpoint_is_told_before_training(options, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: _Usage)
    with pytest.raises(UnwritableFile, match=r"log_dir=.*log has room for 0\.00 GB, and a checkpoint takes 0.01 GB"):
        run(tiny.settings(RECIPE, **options))


class _Usage:
    free = 1000


def test_a_disk_that_becomes_full_is_one_sentence(options, monkeypatch):
    from pytorch_lightning.loggers import TensorBoardLogger

    def full(self, *given, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorBoardLogger, "log_metrics", full)
    with pytest.raises(UnwritableFile, match=r"below log_dir=.*could not be written: No space left on device"):
        run(tiny.settings(RECIPE, **options, max_steps=2))


def test_helpers(tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    os.utime(tmp_path / "a", (2e9, 2e9))
    assert newest(tmp_path / name for name in "abc") == tmp_path / "a"
    assert newest([]) is None
    assert differences({"x": [1], "y": 2, "z": 3}, {"x": (1,), "y": 3, "z": 4}, {"z"}) == ["y 2 (now 3)"]
