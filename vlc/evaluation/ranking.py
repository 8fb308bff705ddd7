"""Ranking: an evaluator that scores every image of a split with every text, exactly or in two stages.

Images are divided over the processes and embedded once. Texts are grouped by length, so that there is little padding.
Captions are read without decoding images.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vlc.common.files import to_json, write_atomically
from vlc.common.inputs import Text
from vlc.common.terminal import progress
from vlc.data.corpus import Corpus
from vlc.data.samples import Samples
from vlc.data.transforms import normalize
from vlc.evaluation.evaluator import Model
from vlc.evaluation.metrics import check_finite
from vlc.evaluation.predictions import write_text
from vlc.evaluation.ranks import fold_recalls, nearest, recalls
from vlc.hardware.distributed import gather_lists, is_first_process, process_number
from vlc.model.encoder import Encoder
from vlc.model.segments import Segment
from vlc.objectives.itc import ITC

PAIRS_AT_ONCE = {"cpu": 16, "cuda": 64}  # what fits into a processor's caches is faster


def match_scores(
    encoder: Encoder, score: Callable[[Tensor], Tensor], text: Text, image: Segment, task: str = ""
) -> Tensor:
    """Return scores (N,) of texts with images by the full model; a single text or image is paired with all others.

    task: as in `Encoder.encode`.
    """
    return score(encoder.encode((encoder.embed_text(text), image), pooled_only=True, task=task).pooled)


class Scorer:
    """Scores the images and texts of a corpus with a model.

    score: pooled features (N, D) of fused pairs -> (N,); None where the model has no such head.
    itc: the head that embeds images and texts separately; None where the model has none.
    task: the name of the task, for models with task tokens.
    """

    def __init__(
        self,
        encoder: Encoder,
        corpus: Corpus,
        device: torch.device,
        *,
        score: Callable[[Tensor], Tensor] | None = None,
        itc: ITC | None = None,
        task: str = "",
    ):
        self.encoder, self.corpus, self.device, self.score, self.itc = encoder, corpus, device, score, itc
        self.task = task
        self.pairs_at_once = PAIRS_AT_ONCE.get(device.type, 64)
        rank, world_size = process_number()
        self._mine = range(rank, corpus.num_images, world_size)

    @torch.inference_mode()
    def exact(self, pairs_at_once: int | None = None) -> np.ndarray:
        """Return scores (images, texts) float32 of every pair by the full model, on every process."""
        size = pairs_at_once or self.pairs_at_once
        chunks = [(numbers, text.to(self.device)) for numbers, text in self.corpus.texts_by_length(size)]
        order = np.concatenate([numbers for numbers, _ in chunks])

        def row(image: Segment) -> np.ndarray:
            scores = [self._score(text, image) for _, text in chunks]
            return torch.cat(scores).float().cpu().numpy()[np.argsort(order)]

        return self._gathered([row(image) for image in self._images()])

    @torch.inference_mode()
    def similarities(self) -> np.ndarray:
        """Return cosine similarities (images, texts) float32 of the embeddings, on every process."""
        assert self.itc is not None
        texts = np.empty((self.corpus.num_texts, self.encoder.size.width), dtype=np.float32)
        for numbers, text in self.corpus.texts_by_length(self.pairs_at_once):
            vectors = self.itc.text_vectors(self._pooled(self.encoder.embed_text(text.to(self.device))))
            texts[numbers] = vectors.float().cpu().numpy()
        images = [self.itc.image_vectors(self._pooled(image))[0].float().cpu().numpy() for image in self._images()]
        return self._gathered(images) @ texts.T

    @torch.inference_mode()
    def reranked(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return two-stage scores (images, texts): for finding images by text, and for finding texts by image.

        The full model scores the k nearest candidates of each query by embedding. They rank before all others, which
        keep the order of their similarities. The full model sees O((images + texts) * k) pairs.
        """
        near = self.similarities()
        of_text, of_image = nearest(near.T, k).T, nearest(near, k)
        wanted = of_text | of_image
        texts = dict(enumerate(self.corpus.token_ids()))
        full: list[np.ndarray] = []
        for number, image in zip(self._mine, self._images(), strict=True):
            row = np.full(self.corpus.num_texts, -np.inf, dtype=np.float32)
            numbers = np.flatnonzero(wanted[number])
            numbers = numbers[np.argsort([len(texts[number]) for number in numbers.tolist()], kind="stable")]
            for start in range(0, len(numbers), self.pairs_at_once):
                chunk = numbers[start : start + self.pairs_at_once]
                text = self.corpus.padded([texts[number] for number in chunk.tolist()], chunk)
                row[chunk] = self._score(text.to(self.device), image).float().cpu().numpy()
            full.append(row)
        scores = self._gathered(full)
        behind = near - 2 - max(0.0, -float(scores[wanted].min()))  # below every score of the full model
        return np.where(of_text, scores, behind), np.where(of_image, scores, behind)

    def _score(self, text: Text, image: Segment) -> Tensor:
        """Return scores (N,) of texts (N, L) with one image."""
        assert self.score is not None
        return match_scores(self.encoder, self.score, text, image, self.task)

    def _pooled(self, segment: Segment) -> Tensor:
        return self.encoder.encode((segment,), pooled_only=True, task=self.task).pooled

    def _images(self) -> Iterator[Segment]:
        """Embed the images of this process one after the other."""
        with progress("ranking", len(self._mine), shown=is_first_process()) as advance:
            for image in self._mine:
                pixels = self.corpus.image(image)[None].to(self.device)
                yield self.encoder.embed_images(normalize(pixels, self.encoder.size.pixel_normalization))
                advance(1)

    def _gathered(self, rows: list[np.ndarray]) -> np.ndarray:
        """Gather the rows of all images from the processes, which have the rows of their own images."""
        parts = gather_lists([(list(self._mine), rows)])
        numbered = dict(pair for numbers, values in parts for pair in zip(numbers, values, strict=True))
        return np.stack([numbered[image] for image in range(self.corpus.num_images)])


@dataclass(frozen=True)
class Ranking:
    """The evaluator of retrieval: recalls of images found by texts, and of texts found by images.

    head: name of the head that ranks.
    itc: name of the contrastive head that finds candidates, where the task has one.
    every: see `Evaluator`.
    rerank_k: how many candidates the ranking head scores where there is a contrastive head; None: all.
    save_scores: whether a test writes its scores.
    task: the name of the task, for models with task tokens.
    """

    head: str
    itc: str | None = None
    every: int = 0
    rerank_k: int | None = None
    save_scores: bool = False
    task: str = ""
    headlines: ClassVar[tuple[str, ...]] = ("ir_r1", "tr_r1")

    def __call__(self, model: Model, samples: Samples, out: Path | None) -> dict[str, float]:
        score = None if self.head == self.itc else model.objectives[self.head].score
        itc = model.objectives[self.itc] if self.itc else None
        assert itc is None or isinstance(itc, ITC)
        scorer = Scorer(model.encoder, Corpus(samples), model.device, score=score, itc=itc, task=self.task)
        out = None if out is None else out.with_name(f"{out.name}_ranking")
        return evaluate(scorer, out, rerank_k=self.rerank_k, save_scores=self.save_scores)


def evaluate(
    scorer: Scorer, out: Path | None, *, rerank_k: int | None = None, save_scores: bool = False
) -> dict[str, float]:
    """Return the recalls of a corpus, on every process.

    They are exact where the model has no embeddings or rerank_k is None, use embeddings alone where it has no other head,
    and otherwise have two stages.

    out: rank 0 writes OUT.json, the recalls.
    save_scores: rank 0 also writes OUT.npz: `scores` (images, texts) float16 for image retrieval, `text_scores` for text
        retrieval where they differ, and `text_image` (texts,) int64.
    """
    corpus = scorer.corpus
    if scorer.score is None:
        scores = text_scores = scorer.similarities()
    elif scorer.itc is None or rerank_k is None:
        scores = text_scores = scorer.exact()
    else:
        scores, text_scores = scorer.reranked(rerank_k)
    if not np.isfinite(scores).all() or not np.isfinite(text_scores).all():
        check_finite({"the scores of a ranking": np.nan})
    values = recalls(scores, corpus.text_image, text_scores) | fold_recalls(scores, corpus.text_image, text_scores)
    if out is not None and is_first_process():
        sizes = {"images": corpus.num_images, "texts": corpus.num_texts}
        write_text(out.with_name(f"{out.name}.json"), to_json(sizes | values))
        if save_scores:
            kept = {"scores": scores, "text_scores": text_scores} if text_scores is not scores else {"scores": scores}
            arrays = {name: array.astype(np.float16) for name, array in kept.items()}
            with write_atomically(out.with_name(f"{out.name}.npz")) as partial, partial.open("wb") as file:
                np.savez_compressed(file, text_image=corpus.text_image, **arrays)  # type: ignore[arg-type]  # an option is a bool
    return values
