"""Ranks and recalls against 12-in-1's published evaluation, which counts ranks from 0 and finds images alone."""

import json

import numpy as np
import pytest

from tests.ranked import rank_all, recalls_of_all


@pytest.fixture(scope="module")
def published(golden) -> dict:
    folder = golden / "tasks/retrieval/expected"
    return dict(np.load(folder / "retrieval.npz")) | json.loads((folder / "retrieval.json").read_text())


def test_ranks_of_images_are_the_published_ones(published):
    ranks = rank_all(published["scores"].T, published["image_of_caption"])
    np.testing.assert_array_equal(ranks.of_rows - 1, published["rank"])
    assert (ranks.of_columns - 1).tolist() == published["tr_OWN"]["best_rank_per_image"]


@pytest.mark.parametrize(("ours", "theirs"), [("ir", "ir"), ("tr", "tr_OWN")])
def test_recalls_and_mean_rank_are_the_published_ones(published, ours, theirs):
    values, expected = recalls_of_all(published["scores"].T, published["image_of_caption"]), published[theirs]
    for k in (1, 5, 10):
        assert 100 * values[f"{ours}_r{k}"] == pytest.approx(expected[f"r{k}"], abs=5e-4)
    assert values[f"{ours}_mean_rank"] == pytest.approx(expected["mean"], abs=5e-4)
    assert values[f"{ours}_median_rank"] == expected["median"]


def test_zero_shot_log_odds_rank_as_the_published_probabilities(published):
    """Class 0 of the published head is the match; the log odds of a match have the order of its probability."""
    logits = published["zero_shot_two_class_logits"]
    ranks = rank_all((logits[..., 0] - logits[..., 1]).T, published["image_of_caption"])
    np.testing.assert_array_equal(ranks.of_rows - 1, published["rank"])


def test_a_median_between_two_ranks_stays_there():
    """Published is floor(median of 0-based ranks) + 1: here 1."""
    scores = np.array([[2.0, 2.0], [1.0, 3.0]])
    assert recalls_of_all(scores, np.array([0, 0]))["ir_median_rank"] == 1.5
