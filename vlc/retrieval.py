"""Exact ranking of every image of a split against every text, and the recalls that follow.

Images are divided over the processes and embedded once; texts are grouped by length, so that little is computed on
padding; captions are read without decoding images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from vlc.data.batch import Text
from vlc.data.corpus import Corpus
from vlc.data.transforms import normalize
from vlc.distributed import gather_lists, is_first_process, process_number
from vlc.model.encoder import Encoder
from vlc.objectives.base import to_json
from vlc.objectives.irtr import encode_pairs
from vlc.predictions import write_text

CUTOFFS = (1, 5, 10)
FOLD = 1000  # images; five folds of them are reported beside the 5,000 images of COCO
PAIRS_AT_ONCE = 64


@dataclass(frozen=True)
class Ranks:
    """1-based ranks: of each text's image among all images (texts,), of each image's best own text (images,)."""

    image_of_text: np.ndarray
    text_of_image: np.ndarray


def rank(scores: np.ndarray, text_image: np.ndarray) -> Ranks:
    """Ranks from scores (images, texts); text_image (texts,) is the image that each text belongs to.

    Ties count against us: an equal score of another candidate stands before the right one.
    """
    texts = np.arange(scores.shape[1])
    true = scores[text_image, texts]
    image_of_text = (scores >= true).sum(axis=0)
    own = text_image[None, :] == np.arange(len(scores))[:, None]
    best = np.where(own, scores, -np.inf).max(axis=1, keepdims=True)
    text_of_image = 1 + ((scores >= best) & ~own).sum(axis=1)
    return Ranks(image_of_text, text_of_image)


def recalls(scores: np.ndarray, text_image: np.ndarray) -> dict[str, float]:
    """ir_* (text -> image) and tr_* (image -> text): recalls at 1, 5, 10, median and mean rank.

    A cutoff that is not below the number of candidates says nothing and is left out.
    """
    ranks = rank(scores, text_image)
    values = {}
    for name, found, candidates in (
        ("ir", ranks.image_of_text, scores.shape[0]),
        ("tr", ranks.text_of_image, scores.shape[1]),
    ):
        values |= {f"{name}_r{k}": float((found <= k).mean()) for k in CUTOFFS if k < candidates}
        values |= {f"{name}_median_rank": float(np.median(found)), f"{name}_mean_rank": float(found.mean())}
    return values


def fold_recalls(scores: np.ndarray, text_image: np.ndarray) -> dict[str, float]:
    """Mean recalls of five folds of 1,000 images, for splits of 5,000; names end in _1k."""
    if len(scores) != 5 * FOLD:
        return {}
    folds = []
    for start in range(0, len(scores), FOLD):
        texts = np.flatnonzero((text_image >= start) & (text_image < start + FOLD))
        folds.append(recalls(scores[start : start + FOLD, texts], text_image[texts] - start))
    return {f"{name}_1k": float(np.mean([fold[name] for fold in folds])) for name in folds[0]}


@torch.inference_mode()
def score_matrix(
    encoder: Encoder,
    score: Callable[[Tensor], Tensor],
    corpus: Corpus,
    device: torch.device,
    pairs_at_once: int = PAIRS_AT_ONCE,
) -> np.ndarray:
    """Scores (images, texts) float32 of every pair, on every process. score: pooled features (N, D) -> (N,)."""
    chunks = [
        (numbers, Text(*(part.to(device) for part in (text.ids, text.mask))))
        for numbers, text in corpus.texts_by_length(pairs_at_once)
    ]
    rank, world_size = process_number()
    mine = range(rank, corpus.num_images, world_size)
    rows = np.empty((len(mine), corpus.num_texts), dtype=np.float32)
    columns = TextColumn("ranking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, disable=not is_first_process()) as progress:
        for place, image in enumerate(progress.track(mine)):
            pixels = normalize(corpus.image(image)[None].to(device))
            tokens = encoder.embed_images(pixels)
            row = [score(encode_pairs(encoder, text, tokens, len(numbers))).float() for numbers, text in chunks]
            rows[place, np.concatenate([numbers for numbers, _ in chunks])] = torch.cat(row).cpu().numpy()
    scores = np.empty((corpus.num_images, corpus.num_texts), dtype=np.float32)
    for numbers, part in gather_lists([(list(mine), rows)]):
        scores[numbers] = part
    return scores


def evaluate(
    encoder: Encoder,
    score: Callable[[Tensor], Tensor],
    corpus: Corpus,
    device: torch.device,
    out: Path | None,
    *,
    save_scores: bool = False,
) -> dict[str, float]:
    """Recalls of a split, on every process. With `out`, the first one writes OUT.json and, if asked, OUT.npz.

    The latter holds scores (images, texts) float16 and text_image (texts,) int64.
    """
    scores = score_matrix(encoder, score, corpus, device)
    values = recalls(scores, corpus.text_image) | fold_recalls(scores, corpus.text_image)
    if out is not None and is_first_process():
        sizes = {"images": corpus.num_images, "texts": corpus.num_texts}
        write_text(out.with_suffix(".json"), to_json(sizes | values))
        if save_scores:
            kept = scores.astype(np.float16)
            np.savez_compressed(out.with_suffix(".npz"), scores=kept, text_image=corpus.text_image)
    return values
