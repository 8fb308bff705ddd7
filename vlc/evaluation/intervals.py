"""How sure a measured value is: bootstrap intervals, paired tests of two models, and calibration."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES, LEVEL = 1000, 0.95
_CHUNK = 1 << 22  # drawn numbers at once


class Interval(NamedTuple):
    """A value with the bounds of its interval.

    size: of how many examples, or of how many batches, it is the value.
    """

    value: float
    low: float
    high: float
    size: int


class Comparison(NamedTuple):
    """Two models on the same examples.

    difference: the mean score of the second one minus that of the first one, with its bootstrap interval.
    p_bootstrap: twice the share of resamples on the other side of 0 (two-sided), at least 1 / resamples.
    only_first, only_second: the examples that one of them alone has right.
    p_mcnemar: of the exact test on them; None where scores are not only 0 and 1.
    """

    difference: Interval
    p_bootstrap: float
    only_first: int
    only_second: int
    p_mcnemar: float | None


def bootstrap(
    sums: Sequence[float], counts: Sequence[float] | None = None, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Return the ratio of the sums to the counts with its 95 % percentile interval (Efron and Tibshirani 1993).

    sums: the scores of examples, or what batches add to a metric; these are what is drawn again.
    counts: what they add to the metric's count; None: 1 each.
    """
    totals, sizes = np.asarray(sums, dtype=np.float64), np.ones(len(sums)) if counts is None else np.asarray(counts)
    means = _resampled(totals, sizes, seed, resamples)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(totals.sum() / sizes.sum()), float(low), float(high), len(totals))


def _resampled(totals: np.ndarray, sizes: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """The ratio of each resample, (resamples,) float64."""
    rng, found = np.random.default_rng(seed), []
    at_once = max(1, _CHUNK // len(totals))
    for start in range(0, resamples, at_once):
        drawn = rng.integers(len(totals), size=(min(at_once, resamples - start), len(totals)))
        found.append(totals[drawn].sum(axis=1) / np.maximum(sizes[drawn].sum(axis=1), 1e-12))
    return np.concatenate(found)


def compared(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Comparison:
    """Compare the scores of two models on the same examples by a paired bootstrap and, of 0 and 1, by McNemar's test."""
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    differences = other - one
    means = _resampled(differences, np.ones(len(one)), seed, RESAMPLES)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    against = min((means <= 0).mean(), (means >= 0).mean())
    only_first, only_second = int((differences < 0).sum()), int((differences > 0).sum())
    whole = bool(np.isin(one, (0, 1)).all() and np.isin(other, (0, 1)).all())
    return Comparison(
        Interval(float(differences.mean()), float(low), float(high), len(one)),
        float(min(1.0, max(2 * against, 1 / RESAMPLES))),
        only_first,
        only_second,
        mcnemar(only_first, only_second) if whole else None,
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p of McNemar's exact test (1947): how likely a fair coin divides the differing examples so.

    only_first, only_second: how many examples one model alone has right.
    """
    total, least = only_first + only_second, min(only_first, only_second)
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(least + 1)
    ]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


class Bin(NamedTuple):
    """The examples whose confidence lies in a range: its bounds, their number, and their mean confidence and score."""

    low: float
    high: float
    size: int
    confidence: float
    score: float


class Calibration(NamedTuple):
    """How far confidences agree with scores.

    bins: those with examples.
    error: expected calibration error (Guo et al. 2017): the mean over the examples of the distance in their bins.
    coverage: for each of some scores, the largest share of the examples, the most confident ones, that reach it.
    """

    bins: list[Bin]
    error: float
    coverage: dict[float, float]


def calibration(
    confidences: Sequence[float],
    scores: Sequence[float],
    *,
    num_bins: int = 10,
    reached: Sequence[float] = (0.8, 0.9, 0.95, 0.99),
) -> Calibration:
    """Return the calibration of answers in bins of equal width; of a range, the lower bound does not belong to it.

    reached: the mean scores for which the coverage is computed. Answers of equal confidence are kept together.
    """
    sure, right = np.asarray(confidences, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    places = np.clip(np.ceil(sure * num_bins).astype(int) - 1, 0, num_bins - 1)
    bins = []
    for place in np.unique(places).tolist():
        own = places == place
        mean, score = float(sure[own].mean()), float(right[own].mean())
        bins.append(Bin(place / num_bins, (place + 1) / num_bins, int(own.sum()), mean, score))
    error = sum(one.size * abs(one.confidence - one.score) for one in bins) / len(sure)
    order = np.argsort(-sure, kind="stable")
    means = right[order].cumsum() / np.arange(1, len(sure) + 1)
    ends = np.append(np.diff(sure[order]) != 0, True)  # where the next answer is less sure
    coverage = {}
    for least in reached:
        enough = np.flatnonzero(ends & (means >= least - 1e-12))
        coverage[least] = float((enough[-1] + 1) / len(sure)) if len(enough) else 0.0
    return Calibration(bins, error, coverage)
