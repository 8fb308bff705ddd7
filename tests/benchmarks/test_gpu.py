"""What `make gpu` can do without a GPU: checks on tensors without values, and rows for what fails or has no time."""

import time

import pytest
import torch

from benchmarks.gpu import checks
from benchmarks.gpu.items import Setting, Unsuitable, rows
from benchmarks.gpu.measures import Line

SETTING = Setting(torch.device("cpu"), True, ends=time.monotonic() + 3600)


@pytest.mark.parametrize("name", checks.STEPS)
def test_no_shape_and_no_branch_of_a_step_depends_on_values(name):
    assert checks.never_waits(SETTING, name) == {"device": "meta"}


def test_what_waits_is_found(monkeypatch):
    monkeypatch.setattr(checks.ours, "build", lambda *words, device: torch.ones(3, device=device).sum().item)
    with pytest.raises(RuntimeError, match="meta"):
        checks.never_waits(SETTING, "vqa_576")


def test_a_resumed_optimiser():
    assert checks.resumed(SETTING)["difference"] == 0


def test_every_item_has_a_row():
    def fails(setting):
        raise ValueError("odd")

    def suits_others(setting):
        raise Unsuitable("no card")

    items = {"good": lambda setting: {"per_s": 3.0}, "bad": fails, "other": suits_others}
    found = {row["item"]: row for row in rows(items, SETTING)}
    assert found["good"]["per_s"] == 3
    assert [row["outcome"] for row in found.values()] == ["ok", "FAILED: ValueError: odd", "left out: no card"]
    late = Setting(torch.device("cpu"), True, ends=time.monotonic() - 1)
    assert [row["outcome"] for row in rows(items, late)] == 3 * ["left out: no time"]


def test_the_batch_that_fits():
    line = Line.through((8, 3000.0), (16, 4000.0))
    assert (line.fixed, line.each, line.at(32)) == (2000, 125, 6000)
    assert line.largest(24) == (0.92 * 24_000 - 2000) // 125
    assert line.largest(2) == 0
