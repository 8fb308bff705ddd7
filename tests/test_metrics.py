"""Ratios, against the published accuracy."""

import pytest
import torch

from vlc.metrics import Ratio
from vlc.objectives.base import accuracy


def test_ratios_add_up_over_ragged_batches():
    ratio = Ratio()
    ratio.update(torch.tensor(3.0), 4)
    ratio.update(torch.tensor(0.0), 1)
    assert float(ratio.compute()) == pytest.approx(0.6)


def test_nothing_counted_is_nan():
    assert Ratio().compute().isnan()


def test_accuracy_of_the_published_metric(golden):
    stored = torch.load(golden / "eval/metrics.pt", weights_only=True)
    ratio = Ratio()
    for number in (1, 2):
        logits, labels = stored[f"acc_logits_{number}"].flatten(0, -2), stored[f"acc_target_{number}"].flatten()
        kept = labels != -100  # our objectives never make logits for ignored labels
        total, count = accuracy(logits[kept], labels[kept])
        assert float(total) / count == pytest.approx(float(stored[f"acc_batch_{number}"]), rel=1e-6)
        ratio.update(total, count)
    assert float(ratio.compute()) == pytest.approx(float(stored["acc_total"]), rel=1e-6)
