"""features: tables of what the encoder makes of images, and work in shards that goes on after an interruption."""

import errno
import json
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests import tiny
from tests.warm import command
from vlc.common.errors import UnwritableFile, UserError
from vlc.configuration.config import resolve_use
from vlc.configuration.recipes import loss_weights
from vlc.training.run import run
from vlc.use import shards
from vlc.use.features import features, write_features
from vlc.use.model import Model
from vlc.use.shards import UNFINISHED, Process

VIT = "mae_vit_tiny_patch16"
NUM_IMAGES = 7  # a shard of two whole batches, and one of a batch and a rest


@pytest.fixture(scope="module")
def trained(arrows, tmp_path_factory) -> str:
    options = {"data_root": str(arrows), "log_dir": str(tmp_path_factory.mktemp("trained")), "vit": VIT}
    metrics = run(tiny.settings("task_finetune_irtr_coco_mae_randaug", **options, loss_names=loss_weights(itc=1)))
    return f"{metrics['log_dir']}/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(NUM_IMAGES):
        (folder / f"{number}.png").write_bytes(tiny.image_bytes(number, kind="PNG"))
    return str(folder)


@pytest.fixture
def small_shards(monkeypatch) -> None:
    monkeypatch.setattr(shards, "ROWS", 4)


def _write(checkpoint: str, out: Path, *, process: Process | None = None, **values) -> dict:
    values = {"num_gpus": 0, "num_workers": 0, "per_gpu_batchsize": 2, **values}
    return write_features(*resolve_use(load_path=checkpoint, out=str(out), **values), process)


def _table(out: Path) -> pa.Table:
    return pa.concat_tables([pa.ipc.open_file(str(path)).read_all() for path in sorted(out.glob("*.arrow"))])


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def written(trained, photos, tmp_path_factory) -> Path:
    """What one process writes without interruption."""
    folder = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROWS", 4)
        _write(trained, folder / "out", image_folder=photos)
    return folder / "out"


def test_the_tables_hold_what_the_encoder_makes_of_each_image(trained, photos, written):
    names = [f"features-{number:05}.arrow" for number in range(2)]
    assert sorted(path.name for path in written.iterdir()) == [*names, "features.json"]
    about = json.loads((written / "features.json").read_text())
    assert [about["rows"], about["rejected"], [one["file"] for one in about["files"]]] == [NUM_IMAGES, 0, names]
    table = _table(written)
    assert table["image_id"].to_pylist() == list("0123456")
    assert set(zip(table["width"].to_pylist(), table["height"].to_pylist(), strict=True)) == {(40, 30)}
    model = Model.from_checkpoint(trained, num_gpus=0)
    width = model.module.encoder.size.width
    assert table.schema.field("patches").type == pa.list_(pa.list_(pa.float16(), width))
    pixels = [model.prepared(path) for path in table["source"].to_pylist()]
    vectors = table.combine_chunks()["patches"].chunk(0).flatten()
    patches = vectors.flatten().to_numpy().reshape(NUM_IMAGES, -1, vectors.type.list_size).astype(np.float32)
    assert table["grid"].to_pylist() == [[2, 2]] * NUM_IMAGES
    assert torch.from_numpy(patches).mean(dim=1).numpy() == pytest.approx(model.patch_means(pixels).numpy(), abs=2e-3)
    pooled = np.array(table["pooled"].to_pylist(), np.float32)
    with torch.inference_mode():
        expected = model.module.encoder.encode([model._embedded(pixels)]).pooled
    assert pooled == pytest.approx(expected.numpy(), abs=1e-5)


def test_rows_of_data_sets_have_the_ids_of_their_images(trained, arrows, tmp_path):
    _write(trained, tmp_path / "out", data_root=str(arrows), datasets=["coco"], splits=["test"])
    table = _table(tmp_path / "out")
    stored = pa.ipc.open_file(str(arrows / "coco_caption_karpathy_test.arrow")).read_all()
    assert table["image_id"].to_pylist() == list(map(str, stored["image_id"].to_pylist()))
    assert table["row"].to_pylist() == list(range(tiny.ROWS))


def test_parquet_holds_the_same(trained, photos, written, tmp_path):
    _write(trained, tmp_path / "out", image_folder=photos, file_format="parquet")
    assert pq.read_table(tmp_path / "out" / "features-00000.parquet").equals(_table(written).combine_chunks())


KILLED = """
import os, signal, sys
import tests.use.test_features as own
from vlc.use import features, shards
shards.ROWS, made, calls = 4, features._rows, iter(range(100))
def rows(*arguments):
    if next(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return made(*arguments)
features._rows = rows
own._write(sys.argv[1], own.Path(sys.argv[2]), image_folder=sys.argv[3])
"""


class Batches(list):
    """The sizes of the batches that are computed, until `most` of them are."""

    most = 100

    def __call__(self, model, images):
        if len(self) == self.most:
            raise KeyboardInterrupt
        self.append(len(images))
        return features(model, images)


@pytest.fixture
def batches(monkeypatch) -> Batches:
    found = Batches()
    monkeypatch.setattr("vlc.use.features.features", found)
    return found


def test_a_killed_process_goes_on_and_the_bytes_are_equal(trained, photos, written, tmp_path, small_shards, batches):
    out = tmp_path / "out"
    done = command("-c", KILLED, trained, out, photos)
    assert done.returncode == -signal.SIGKILL, done.stderr
    names = [path.name for path in out.iterdir()]
    assert "features-00000.arrow" in names
    assert [name for name in names if name.startswith(".features-00001.arrow.")], "it died within a shard"
    _write(trained, out, image_folder=photos)
    assert batches == [2, 1], "the other shard was there"
    assert _bytes(out) == _bytes(written)


def test_processes_share_the_shards(trained, photos, written, tmp_path, small_shards, batches):
    """The second one begins with the second shard, and is interrupted in the first; the first process does that one."""
    out, batches.most = tmp_path / "out", 3
    with pytest.raises(KeyboardInterrupt):
        _write(trained, out, image_folder=photos, process=Process(1, 2))
    assert batches == [2, 1, 2]
    assert {path.name for path in out.iterdir()} == {"features-00001.arrow", UNFINISHED}
    batches.most = 100
    _write(trained, out, image_folder=photos, process=Process(0, 2))
    assert batches == [2, 1, 2, 2, 2]
    assert _bytes(out) == _bytes(written)
    assert _write(trained, out, image_folder=photos, process=Process(1, 2))["rows"] == NUM_IMAGES
    assert len(batches) == 5, "one that comes late has nothing to do"


@pytest.fixture
def unfinished(trained, photos, tmp_path, small_shards, batches) -> Path:
    batches.most = 2
    with pytest.raises(KeyboardInterrupt):
        _write(trained, tmp_path / "out", image_folder=photos)
    batches.most = 100
    return tmp_path / "out"


def test_settings_and_weights_that_changed_are_named(trained, photos, unfinished, tmp_path, batches):
    content = torch.load(trained, weights_only=True)
    content["state_dict"]["encoder.cls_token"] += 1
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(
        UserError, match=rf"{unfinished}/.unfinished holds unfinished work that differs: weights is \w+ and"
    ):
        _write(str(tmp_path / "other.ckpt"), unfinished, image_folder=photos)
    with pytest.raises(UserError, match="differs: per_gpu_batchsize is 4 and was 2. Finish it with"):
        _write(trained, unfinished, image_folder=photos, per_gpu_batchsize=4)
    more = shutil.copytree(photos, tmp_path / "photos")
    with pytest.raises(UserError, match="differs: image_folder is .*, hash of the files is"):
        _write(trained, unfinished, image_folder=str(more))
    assert batches == [2, 2]


def test_a_shard_that_changed_is_computed_anew(trained, photos, written, unfinished, batches):
    shard = unfinished / "features-00000.arrow"
    shard.write_bytes(b"X" + shard.read_bytes()[1:])
    with pytest.raises(
        UserError, match=r"features-00000\.arrow changed since they were written. Run the same command again"
    ):
        _write(trained, unfinished, image_folder=photos)
    _write(trained, unfinished, image_folder=photos)
    assert batches == [2, 2, 2, 1, 2, 2]
    assert _bytes(unfinished) == _bytes(written)


def test_damaged_records_are_noticed(trained, photos, written, unfinished, batches):
    plan = unfinished / UNFINISHED / "plan.json"
    content = plan.read_bytes()
    for damaged in (b"", b"[]", content[:-9]):
        plan.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"plan.json is damaged .*: remove {unfinished}/.unfinished to begin anew"):
            _write(trained, unfinished, image_folder=photos)
    plan.write_bytes(content)
    (unfinished / UNFINISHED / "features-00000.json").write_bytes(b"{}")
    _write(trained, unfinished, image_folder=photos)
    assert batches == [2, 2, 2, 2, 2, 1], "its shard is computed anew"
    assert _bytes(unfinished) == _bytes(written)


def test_images_that_cannot_be_decoded_are_listed(trained, photos, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    (folder / "5b.jpg").write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"Left out an image that cannot be decoded: .*5b\.jpg"):
        about = _write(trained, tmp_path / "out", image_folder=str(folder))
    assert (about["rows"], about["rejected"]) == (NUM_IMAGES, 1)
    (line,) = map(json.loads, (tmp_path / "out" / "rejected.jsonl").read_text().splitlines())
    assert (line["source"], line["row"]) == (str(folder / "5b.jpg"), None)
    assert "UnidentifiedImageError" in line["reason"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"out": ""}, "out=FOLDER is missing"),
        ({"out": __file__}, "is a file: name a folder"),
        ({"out": "tests"}, r"out=tests holds something else \(\w+.*\): name another folder"),
        ({"datasets": ["nlvr2"]}, "'nlvr2' has pairs of images"),
        ({"image_folder": "write_arrow"}, "image_folder=write_arrow holds no image"),
        ({"file_format": "jsonl"}, "file_format=jsonl holds no vectors"),
        ({"file_format": "csv"}, "file_format=csv holds no vectors: features are written as arrow or parquet"),
    ],
)
def test_mistakes_are_named(trained, arrows, tmp_path, values, message):
    values = {"data_root": str(arrows), "datasets": ["coco"], **values}
    with pytest.raises(UserError, match=message):
        _write(trained, values.pop("out", tmp_path / "out"), **values)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_other_settings_filled_is_left_alone(trained, photos, written):
    before = _bytes(written)
    with pytest.raises(UserError, match="holds features that differ: per_gpu_batchsize is 3 and was 2. Name another"):
        _write(trained, written, image_folder=photos, per_gpu_batchsize=3)
    assert _bytes(written) == before


def test_a_disk_that_becomes_full_is_named_and_the_work_is_kept(trained, photos, unfinished, monkeypatch, written):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("vlc.use.features.features", full)
        with pytest.raises(
            UnwritableFile, match=rf"below out={unfinished} could not be written: No space left on device"
        ):
            _write(trained, unfinished, image_folder=photos)
    _write(trained, unfinished, image_folder=photos)
    assert _bytes(unfinished) == _bytes(written)


def test_a_local_ray_gives_the_same_bytes(trained, photos, tmp_path, asked):
    ray = pytest.importorskip("ray")
    _write(trained, tmp_path / "out", image_folder=photos)
    with pytest.raises(UserError, match="ray=nowhere"):
        _write(trained, tmp_path / "ray", image_folder=photos, ray="nowhere")
    assert _write(trained, tmp_path / "ray", image_folder=photos, ray="local")["rows"] == NUM_IMAGES
    assert not ray.is_initialized()
    assert _bytes(tmp_path / "ray") == _bytes(tmp_path / "out")
    asked.write_text("")  # Ray itself asks the address of clouds for what kind of machine this is


def test_ray_that_is_not_installed_is_named(trained, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'pip install -e ".\[ray\]"'):
        _write(trained, tmp_path / "out", image_folder=photos, ray="local")
