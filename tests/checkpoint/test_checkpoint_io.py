"""Checkpoints on their way to the disk."""

import resource
from pathlib import Path

import pytest
import torch

from vlc.checkpoint.checkpoint_io import CheckpointIO
from vlc.common.errors import UnwritableFile, UserError


class _Breaks:
    """Cannot be pickled."""

    def __reduce__(self):
        raise ZeroDivisionError


def test_a_checkpoint_appears_whole_beside_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    written = []
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda state, file: written.append(Path(file.name)) or save(state, file))
    for step in (1, 2):
        CheckpointIO().save_checkpoint({"global_step": step}, path)
        assert CheckpointIO().load_checkpoint(path, weights_only=True)["global_step"] == step
    assert {partial.parent for partial in written} == {tmp_path}, "not in TMPDIR, which may be another file system"
    assert [found.name for found in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_save_that_fails_leaves_the_checkpoint_before(tmp_path):
    path = tmp_path / "last.ckpt"
    CheckpointIO().save_checkpoint({"global_step": 1}, path)
    with pytest.raises(ZeroDivisionError):
        CheckpointIO().save_checkpoint({"weights": torch.ones(1000), "broken": _Breaks()}, path)
    assert CheckpointIO().load_checkpoint(path, weights_only=True)["global_step"] == 1
    assert [found.name for found in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    """The disk is full once the archive is being written."""
    path = tmp_path / "last.ckpt"
    CheckpointIO().save_checkpoint({"global_step": 1}, path)
    save = torch.save

    def to_a_full_disk(state, file):
        with open("/dev/full", "wb") as full:
            save(state, full)

    monkeypatch.setattr(torch, "save", to_a_full_disk)
    with pytest.raises(UnwritableFile, match=r"last.ckpt cannot be written \(No space left on device\)"):
        CheckpointIO().save_checkpoint({"weights": torch.ones(100_000)}, path)
    assert CheckpointIO().load_checkpoint(path, weights_only=True)["global_step"] == 1


@pytest.mark.parametrize("room", [1000, 300_000, 399_000, 400_500])
def test_a_disk_that_becomes_full_at_any_moment_leaves_the_checkpoint_before(tmp_path, room):
    path = tmp_path / "last.ckpt"
    CheckpointIO().save_checkpoint({"global_step": 1}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(UnwritableFile, match=r"last.ckpt cannot be written \(File too large\)"):
            CheckpointIO().save_checkpoint({"weights": torch.ones(50_000), "moments": torch.ones(50_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert CheckpointIO().load_checkpoint(path, weights_only=True)["global_step"] == 1
    assert [found.name for found in tmp_path.iterdir()] == ["last.ckpt"]


def test_torchs_own_errors_stay_while_another_is_handled(tmp_path, monkeypatch):
    def breaking(state, file):
        raise RuntimeError("torch's own")

    monkeypatch.setattr(torch, "save", breaking)
    try:
        raise KeyError("handled")
    except KeyError:
        with pytest.raises(RuntimeError, match="torch's own"):
            CheckpointIO().save_checkpoint({}, tmp_path / "last.ckpt")


def test_a_damaged_checkpoint_is_told(tmp_path):
    path = tmp_path / "last.ckpt"
    CheckpointIO().save_checkpoint({"weights": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"last.ckpt is damaged: File is not a zip file"):
        CheckpointIO().load_checkpoint(path, weights_only=True)
