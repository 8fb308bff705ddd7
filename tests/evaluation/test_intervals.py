"""Intervals, paired tests and calibration, against what is computed by hand."""

import numpy as np
import pytest

from vlc.evaluation.intervals import RESAMPLES, Bin, bootstrap, calibration, compared, mcnemar


def test_a_bootstrap_interval_is_made_of_the_means_of_resamples():
    scores = [1.0, 0.0, 0.5, 1.0, 0.0, 1.0, 0.3]
    drawn = np.random.default_rng(3).integers(7, size=(RESAMPLES, 7))
    means = sorted(sum(scores[place] for place in row) / 7 for row in drawn.tolist())
    found = bootstrap(scores, seed=3)
    assert found.value == pytest.approx(3.8 / 7)
    assert (found.low, found.high) == pytest.approx((np.quantile(means, 0.025), np.quantile(means, 0.975)))
    assert found.size == 7
    assert bootstrap(scores, seed=3) == found
    assert bootstrap([0.5] * 4)[:3] == (0.5, 0.5, 0.5)


def test_a_bootstrap_of_batches_is_of_sums_and_counts():
    found = bootstrap([1.0, 6.0], [2, 4], seed=0)
    assert found.value == pytest.approx(7 / 6), "no mean of means"
    assert (found.low, found.high) == (0.5, 1.5)


def test_many_examples_are_drawn_in_parts(monkeypatch):
    whole = bootstrap(np.linspace(0, 1, 50))
    monkeypatch.setattr("vlc.evaluation.intervals._CHUNK", 50 * 300)
    parts = bootstrap(np.linspace(0, 1, 50))
    assert parts == whole


def test_mcnemars_test_is_that_of_a_fair_coin():
    assert mcnemar(1, 6) == pytest.approx(2 * (1 + 7) / 2**7)
    assert mcnemar(6, 1) == mcnemar(1, 6)
    assert mcnemar(0, 10) == pytest.approx(2 / 2**10)
    assert mcnemar(3, 3) == 1
    assert mcnemar(0, 0) == 1
    assert 0 < mcnemar(4000, 4400) < 1e-4


def test_two_models_on_the_same_examples():
    first = [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    second = [1, 1, 0, 1, 1, 1, 1, 1, 1, 0]
    found = compared(first, second)
    assert found.difference.value == pytest.approx(0.5)
    assert (found.only_first, found.only_second) == (1, 6)
    assert found.p_mcnemar == pytest.approx(0.125)
    drawn = np.random.default_rng(0).integers(10, size=(RESAMPLES, 10))
    means = (np.array(second) - first)[drawn].mean(axis=1)
    assert found.p_bootstrap == pytest.approx(max(2 * (means <= 0).mean(), 1 / RESAMPLES))
    assert found.difference[1:3] == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    assert compared([0.3, 1], [1, 1]).p_mcnemar is None
    assert compared(first, first).p_bootstrap == 1


def test_calibration_by_hand():
    found = calibration([0.95, 0.85, 0.85, 0.3], [1, 1, 0, 0], reached=(0.5, 0.8, 1.1))
    assert found.bins == [
        Bin(0.2, pytest.approx(0.3), 1, 0.3, 0),
        Bin(0.8, 0.9, 2, pytest.approx(0.85), 0.5),
        Bin(0.9, 1.0, 1, 0.95, 1),
    ]
    assert found.error == pytest.approx((0.3 + 2 * 0.35 + 0.05) / 4)
    # Of the two answers with 85 %, none can be kept without the other one: only the first answer reaches 80 %.
    assert found.coverage == {0.5: 1.0, 0.8: 0.25, 1.1: 0.0}
    assert calibration([0.0, 1.0], [0, 1]).error == 0
