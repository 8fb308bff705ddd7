"""The same bytes from a local Ray of two workers (skipped where Ray is not installed)."""

import pytest

from tests.write_arrow.conftest import contents
from vlc.common.errors import UserError
from write_arrow.__main__ import main
from write_arrow.machine import writer

pytest.importorskip("ray")


def test_a_local_ray_gives_the_bytes_of_a_local_run(raw, write, tmp_path, monkeypatch, asked):
    monkeypatch.setattr(writer, "BATCH_BYTES", 1000)  # several tasks
    words = ["coco", "--root", f"file://{raw}/coco", "--out", f"file://{tmp_path}/ray"]
    main([*words, "--ray", "local", "--workers", "2"])
    assert contents(tmp_path / "ray") == contents(write("coco", raw / "coco"))
    asked.write_text("")  # Ray itself asks the address of clouds for what kind of machine this is


def test_a_cluster_that_does_not_answer_is_told(raw, tmp_path):
    with pytest.raises(UserError, match="--ray nowhere"):
        main(["coco", "--root", str(raw / "coco"), "--out", str(tmp_path), "--ray", "nowhere"])
