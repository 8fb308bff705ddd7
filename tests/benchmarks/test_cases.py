"""Every case of `benchmarks.step` runs, at a tiny size."""

import pytest

from benchmarks import ours
from benchmarks.cases import CASES


@pytest.mark.parametrize("name", CASES)
def test_a_repeat(name, small_vit, monkeypatch):
    monkeypatch.setattr(ours, "keep_freed_memory", lambda: None)  # it would hold for all tests of this process
    ours.build(CASES[name], 2, False, f"vit={small_vit}", "image_size=32")()
