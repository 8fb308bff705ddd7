"""Ranks computed from scores of images and texts, and recalls computed from ranks."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

CUTOFFS = (1, 5, 10)
FOLD = 1000  # images; five folds of them are reported beside the 5,000 images of COCO


@dataclass(frozen=True)
class Ranks:
    """Ranks, counted from 1.

    image_of_text: (texts,), the rank of each text's image among all images.
    text_of_image: (images,), the rank of the best own text of each image among the texts of others.
    """

    image_of_text: np.ndarray
    text_of_image: np.ndarray


def rank(scores: np.ndarray, text_image: np.ndarray) -> Ranks:
    """Return ranks from scores (images, texts); text_image (texts,): the image that each text belongs to.

    Ties count against the model: another candidate with an equal score ranks before the right one. A right candidate
    whose score is NaN ranks last.
    """
    texts = np.arange(scores.shape[1])
    true = scores[text_image, texts]
    image_of_text = (~(scores < true)).sum(axis=0)
    own = text_image[None, :] == np.arange(len(scores))[:, None]
    return Ranks(image_of_text, rank_of_best(scores, own))


def rank_of_best(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the rank of the best right candidate of each query among the wrong ones, (queries,).

    Ties count against the model, as in `rank`.

    scores: (queries, candidates).
    right: (queries, candidates) bool; each query has a right candidate.
    """
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    return 1 + (~(scores < best) & ~right).sum(axis=1)


def recalls(scores: np.ndarray, text_image: np.ndarray, text_scores: np.ndarray | None = None) -> dict[str, float]:
    """Return recalls at 1, 5, 10, median and mean rank: ir_* (text -> image) and tr_* (image -> text).

    A cutoff that is not below the number of candidates says nothing and is left out.

    text_scores: the scores for text retrieval, where they are not `scores`.
    """
    ranks = (rank(scores, text_image), rank(scores if text_scores is None else text_scores, text_image))
    ir = summary(ranks[0].image_of_text, scores.shape[0])
    tr = summary(ranks[1].text_of_image, scores.shape[1])
    return {f"ir_{name}": value for name, value in ir.items()} | {f"tr_{name}": value for name, value in tr.items()}


def summary(ranks: np.ndarray, num_candidates: int) -> dict[str, float]:
    """Return recalls at 1, 5 and 10 (r1, r5, r10), median and mean of ranks; cutoffs are left out as in `recalls`."""
    values = {f"r{k}": float((ranks <= k).mean()) for k in CUTOFFS if k < num_candidates}
    return values | {"median_rank": float(np.median(ranks)), "mean_rank": float(ranks.mean())}


def mean_recall(values: Mapping[str, float]) -> float | None:
    """Return the mean of all recalls among some metrics, such as the six of images and texts; None where there are none."""
    found = [value for name, value in values.items() if name.rpartition("_")[2] in {f"r{k}" for k in CUTOFFS}]
    return float(np.mean(found)) if found else None


def fold_recalls(scores: np.ndarray, text_image: np.ndarray, text_scores: np.ndarray | None = None) -> dict[str, float]:
    """Return mean recalls of five folds of 1,000 images, for splits of 5,000; names end in _1k."""
    if len(scores) != 5 * FOLD:
        return {}
    folds = []
    for start in range(0, len(scores), FOLD):
        texts = np.flatnonzero((text_image >= start) & (text_image < start + FOLD))
        images = slice(start, start + FOLD)
        others = None if text_scores is None else text_scores[images, texts]
        folds.append(recalls(scores[images, texts], text_image[texts] - start, others))
    return {f"{name}_1k": float(np.mean([fold[name] for fold in folds])) for name in folds[0]}


def nearest(similarities: np.ndarray, k: int) -> np.ndarray:
    """Return which candidates are among the k most similar of their query: (queries, candidates) bool."""
    k = min(k, similarities.shape[1])
    best = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
    chosen = np.zeros(similarities.shape, dtype=bool)
    np.put_along_axis(chosen, best, True, axis=1)
    return chosen
