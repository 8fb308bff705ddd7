"""Loggers: what TensorBoard, wandb and mlflow can read back, and runs whose loggers fail."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests import tiny
from vlc.common.errors import UserError
from vlc.configuration.groups import LoggingSettings
from vlc.training import loggers
from vlc.training.run import run

RECIPE = "task_finetune_vqa_emoji"


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    return tiny.write_dataset(tmp_path_factory.mktemp("questions"), "emoji_scenes_vqa")


@pytest.fixture
def options(questions, tmp_path, small_vit, monkeypatch) -> dict:
    for name in ("WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return {"data_root": str(questions), "log_dir": str(tmp_path / "log"), "vit": small_vit}


def _run(options: dict, **updates) -> Path:
    return Path(str(run(tiny.settings(RECIPE, **options, **updates))["log_dir"]))


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_tensorboard_has_metrics_pictures_and_the_configuration(options):
    folder = _run(options)
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    assert "val/the_metric" in events.Tags()["scalars"]
    (picture,) = events.Images("vqa/val/examples")
    assert (picture.step, picture.width > 100) == (1, True)
    parameters = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"per_gpu_batchsize" in parameters
    assert yaml.safe_load((folder / "hparams.yaml").read_text())["vit"] == options["vit"]


def test_without_loggers_the_folder_is_the_same_but_for_tensorboards_files(options):
    folders = [_run(options, logging={"to": []}) for _ in range(2)]
    assert [folder.name for folder in folders] == ["version_0", "version_1"]
    assert _files(folders[1]) == {
        "run.json",
        "validations.jsonl",
        "checkpoints/last.ckpt",
        "checkpoints/epoch=0-step=1.ckpt",
    }


class _FullDisk:
    """A logger whose first metrics fail."""

    def __init__(self):
        self.calls = 0

    def log_hyperparams(self, params) -> None: ...

    def log_metrics(self, metrics, step) -> None:
        self.calls += 1
        raise OSError(28, "No space left on device")


def test_trackers_that_fail_are_named_once_and_the_run_goes_on_in_its_folder(options, monkeypatch):
    disk = _FullDisk()

    def unreachable(self) -> None:
        raise ConnectionError("the server is away\nand more")

    def started(self) -> None:
        self.identity, self.logger = "id", disk

    monkeypatch.setattr(loggers, "find_spec", lambda name: True)
    monkeypatch.setattr(loggers.Wandb, "_start", unreachable)
    monkeypatch.setattr(loggers.MLflow, "_start", started)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        folder = _run(options, logging={"to": ["wandb", "mlflow"]}, max_steps=2)
    said = [str(one.message) for one in told if "has failed, and the run goes on without it" in str(one.message)]
    assert [text.split()[0] for text in said] == ["wandb", "mlflow"]
    assert "ConnectionError: the server is away)" in said[0]
    assert (folder.name, disk.calls) == ("version_0", 1)
    assert {"run.json", "checkpoints/last.ckpt"} <= _files(folder)


def test_a_missing_package_and_an_unknown_logger_are_refused(options, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package wandb: pip install -e '.\[wandb\]'"):
        loggers.check_installed(LoggingSettings(to=("tensorboard", "wandb")))
    for key, value, said in (
        ("to", ["tensorbord"], "Unknown logger in logging.to 'tensorbord'. Did you mean tensorboard?"),
        ("files", ["../other.json"], "logging.files='../other.json' is not valid"),
        ("pictures", -1, "logging.pictures=-1 is not valid"),
    ):
        with pytest.raises(UserError) as error:
            tiny.settings(RECIPE, **options, logging={key: value})
        assert said in str(error.value)


def _wandb_records(path: Path) -> Iterator[Any]:
    """The records of wandb's offline file, which is a log of LevelDB's kind: blocks of 32 kB with parts of records."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, block, whole = path.read_bytes(), 7, 2**15, b""
    while place < len(data):
        if block - place % block < 7:
            place += block - place % block
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def test_wandb_has_metrics_configuration_pictures_files_and_goes_on_with_a_resumed_run(options, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logging = {"to": ["wandb"], "tags": ["small"], "project": "of tests"}
    first = _run(options, logging=logging)
    second = _run(options, logging=logging, max_steps=2, resume_from=str(first / "checkpoints" / "last.ckpt"))
    assert "WANDB_MODE" not in os.environ
    found = []
    for folder in (first, second):
        (path,) = folder.rglob("*.wandb")
        found.append(list(_wandb_records(path)))
    runs = [next(one.run for one in records if one.HasField("run")) for records in found]
    assert runs[0].run_id == runs[1].run_id
    assert (runs[0].project, list(runs[0].tags)) == ("of tests", ["small"])
    configured = {item.key for one in found[0] for item in one.config.update}
    assert {"learning_rate", "multitask"} <= configured
    logged = {item.key or "/".join(item.nested_key) for one in found[1] for item in one.history.item}
    assert {"val/the_metric", "trainer/global_step"} <= logged
    files = {file.path for one in found[1] for file in one.files.files}
    assert "run.json" in files
    assert any(path.startswith("media/images/vqa/val/examples") for path in files)
    assert not any(path.endswith(".ckpt") for path in files)


def test_mlflow_has_metrics_configuration_pictures_files_and_goes_on_with_a_resumed_run(options, monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from mlflow.tracking import MlflowClient

    logging = {"to": ["mlflow"], "tags": ["small"], "files": ["run.json", "checkpoints/last.ckpt"]}
    first = _run(options, logging=logging)
    _run(options, logging=logging, max_steps=2, resume_from=str(first / "checkpoints" / "last.ckpt"))
    client = MlflowClient(f"sqlite:///{options['log_dir']}/mlflow.db")
    experiment = client.get_experiment_by_name("vlc")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.status, found.data.tags["small"]) == ("FINISHED", "true")
    assert found.data.params["multitask/mixing"] == "round_robin"
    steps = [one.step for one in client.get_metric_history(found.info.run_id, "val/the_metric")]
    assert len(steps) == 2
    names = {one.path for one in client.list_artifacts(found.info.run_id)}
    assert {"run.json", "images", "checkpoints"} <= names
    assert len([one for one in client.list_artifacts(found.info.run_id, "images") if one.path.endswith(".png")]) == 2
