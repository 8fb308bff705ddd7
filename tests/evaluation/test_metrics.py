"""Ratios, against the published accuracy."""

import pytest
import torch

from tests import golden_models
from vlc.common.errors import NonFiniteMetric
from vlc.evaluation.metrics import Ratio, check_finite
from vlc.objectives.base import accuracy, ranked_accuracy


def test_ratios_add_up_over_ragged_batches():
    ratio = Ratio()
    ratio.update(torch.tensor(3.0), 4)
    ratio.update(torch.tensor(0.0), 1)
    assert float(ratio.compute()) == pytest.approx(0.6)


def test_nothing_counted_is_no_value():
    assert Ratio().compute() is None


def test_a_nan_that_was_counted_stays():
    ratio = Ratio()
    ratio.update(torch.tensor(float("nan")), 4)
    ratio.update(torch.tensor(3.0), 4)
    assert ratio.compute().isnan()


def test_values_that_are_not_finite_are_errors():
    check_finite({"a": 1.0, "b": torch.tensor(-2.0)})
    with pytest.raises(NonFiniteMetric, match=r"NaN or infinite: b, c\. "):
        check_finite({"a": 1.0, "b": float("nan"), "c": torch.tensor(float("inf"))})


@pytest.mark.parametrize("name", ["pretrain", "vqa", "nlvr2", "irtr"])
def test_one_broken_weight_fails_the_evaluation_instead_of_leaving_metrics_out(golden, name):
    model = golden_models.load(golden, name)
    with torch.no_grad():
        model.module.encoder.norm.weight[3] = float("nan")
    model.module._evaluate(model.batch)
    with pytest.raises(NonFiniteMetric, match=f"{next(iter(model.module.objectives))}/val/loss"):
        model.module._computed_ratios()


def test_ties_and_nan_count_against_a_ranking():
    own = torch.tensor([0, 0, 1, 1, 2])
    nan = float("nan")
    scores = torch.tensor([[0.0, 0, 0], [1, 0, 1], [0, 1, 0], [nan, 1, 0], [0, 1, nan]])
    right, count = ranked_accuracy(scores, own)
    assert (int(right), count) == (1, 5)


def test_candidates_that_are_left_out_are_no_rivals():
    scores = torch.tensor([[2.0, -torch.inf, 1.0]])
    assert int(ranked_accuracy(scores, torch.tensor([0]))[0]) == 1


def test_a_ranking_head_of_zeros_ranks_nothing_rightly(golden):
    model = golden_models.load(golden, "irtr")
    torch.nn.init.zeros_(model.module.objectives["irtr"].rank_output.weight)
    right, count = model.module.outcomes(model.batch)["irtr"].metrics["accuracy"]
    assert (int(right), count) == (0, 4)


def test_ranking_heads_score_in_float32_within_half_precision(golden):
    module = golden_models.load(golden, "irtr").module
    pooled = torch.randn(2000, module.encoder.size.width, generator=torch.Generator().manual_seed(0)).tanh()
    matching = golden_models.load(golden, "itm").module.objectives["itm"]
    for score in (module.objectives["irtr"].score, matching.score):
        with torch.autocast("cpu", torch.bfloat16):
            scores = score(pooled.bfloat16())
        assert scores.dtype == torch.float32
        assert len(scores.unique()) > 0.99 * len(scores), "in bfloat16 most of them have an equal"
        torch.testing.assert_close(scores, score(pooled.bfloat16().float()))


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
