"""Ranks computed from scores of images and texts, and recalls computed from ranks."""

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
    best = np.where(own, scores, -np.inf).max(axis=1, keepdims=True)
    text_of_image = 1 + (~(scores < best) & ~own).sum(axis=1)
    return Ranks(image_of_text, text_of_image)


def recalls(scores: np.ndarray, text_image: np.ndarray, text_scores: np.ndarray | None = None) -> dict[str, float]:
    """Return recalls at 1, 5, 10, median and mean rank: ir_* (text -> image) and tr_* (image -> text).

    A cutoff that is not below the number of candidates says nothing and is left out.

    text_scores: the scores for text retrieval, where they are not `scores`.
    """
    ranks = (rank(scores, text_image), rank(scores if text_scores is None else text_scores, text_image))
    values: dict[str, float] = {}
    for name, found, candidates in (
        ("ir", ranks[0].image_of_text, scores.shape[0]),
        ("tr", ranks[1].text_of_image, scores.shape[1]),
    ):
        values |= {f"{name}_r{k}": float((found <= k).mean()) for k in CUTOFFS if k < candidates}
        values |= {f"{name}_median_rank": float(np.median(found)), f"{name}_mean_rank": float(found.mean())}
    return values


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
