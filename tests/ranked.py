"""The scores of a ranking as whole matrices, and ranks counted in these."""

import numpy as np

from vlc.data.corpus import Group
from vlc.evaluation.ranks import Ranks, recalls
from vlc.evaluation.scores import Reranked, Scores, Stored


def matrices(scores: Scores, *, finds_rows: bool = True) -> list[np.ndarray]:
    """The scores (rows, columns) of a single process, for finding rows and for finding columns."""
    if isinstance(scores, Stored):
        return [scores.values] * 2
    near = scores.near if isinstance(scores, Reranked) else scores
    blocks = list(scores.blocks(finds_rows=finds_rows).values())
    found = [block(scores.mine, np.arange(len(near.columns))) for block in blocks]
    return [found[0], found[-1]]


def matrix(scores: Scores) -> np.ndarray:
    return matrices(scores)[0]


def of(group: Group, scores: np.ndarray) -> np.ndarray:
    """The part (R, C) of a matrix of all rows and columns that belongs to a group."""
    return scores[np.ix_(group.rows, group.columns)]


def stored(scores: np.ndarray) -> Stored:
    return Stored(np.arange(len(scores)), scores)


def _all(scores: np.ndarray, text_image: np.ndarray) -> Group:
    """All together, images without a text too."""
    rows = np.arange(len(scores))
    return Group("", rows, np.arange(len(text_image)), rows, text_image)


def rank_all(scores: np.ndarray, text_image: np.ndarray) -> Ranks:
    """The ranks of images and texts; text_image (texts,): the image of each text."""
    return stored(scores).ranks(_all(scores, text_image), finds_rows=True)


def recalls_of_all(scores: np.ndarray, text_image: np.ndarray) -> dict[str, float]:
    return recalls(stored(scores), _all(scores, text_image))
