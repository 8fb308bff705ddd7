"""Ranking: an evaluator that scores every row of a split with every column, exactly or in two stages.

Rows are images, and columns texts; or rows are sentences, and columns their possible translations (`vlc.data.corpus`). Rows
are divided over the processes, and their images are embedded once. Columns are grouped by length, so that there is little
padding.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from vlc.common.files import to_json, write_atomically
from vlc.common.inputs import Text
from vlc.common.terminal import progress
from vlc.data.corpus import Corpus, Group, Rankable, Translations
from vlc.data.samples import Samples
from vlc.data.transforms import normalize
from vlc.evaluation.evaluator import Model
from vlc.evaluation.metrics import check_finite
from vlc.evaluation.predictions import write_text
from vlc.evaluation.ranks import fold_recalls, mean_recall, nearest, rank_of_best, recalls, summary
from vlc.hardware.distributed import gather_lists, is_first_process, process_number
from vlc.hardware.threads import free_cores
from vlc.model.encoder import Encoder
from vlc.model.segments import Segment
from vlc.objectives.itc import ITC
from vlc.objectives.wpa import inner_words

PAIRS_AT_ONCE = {"cpu": 16, "cuda": 64}  # what fits into a processor's caches is faster


def match_scores(
    encoder: Encoder, score: Callable[[Tensor], Tensor], text: Text, image: Segment | None, task: str = ""
) -> Tensor:
    """Return scores (N,) of texts with images by the full model; a single text or image is paired with all others.

    image: None scores texts alone.
    task: as in `Encoder.encode`.
    """
    if text.ids.device.type == "cpu":
        free_cores.follow()
    embedded = encoder.embed_text(text)
    segments = (embedded,) if image is None else (embedded, image)
    return score(encoder.encode(segments, pooled_only=True, task=task).pooled)


class Scorer:
    """Scores the rows and columns of a corpus with a model.

    score: pooled features (N, D) of fused pairs -> (N,); None where the model has no such head.
    itc: the head that embeds images and texts separately; None where the model has none.
    task: the name of the task, for models with task tokens.
    """

    def __init__(
        self,
        encoder: Encoder,
        corpus: Rankable,
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
        self._mine = range(rank, corpus.num_rows, world_size)

    @property
    def embeds(self) -> bool:
        """Whether rows and columns have embeddings apart from each other: of the contrastive head, or of sentences."""
        return self.itc is not None or isinstance(self.corpus, Translations)

    @torch.inference_mode()
    def exact(self, pairs_at_once: int | None = None) -> np.ndarray:
        """Return scores (rows, columns) float32 of every pair by the full model, on every process.

        They are -inf where row and column are not ranked with each other.
        """
        self.pairs_at_once = pairs_at_once or self.pairs_at_once

        def columns(row: int) -> np.ndarray:
            return np.unique(np.concatenate([group.columns for group in self.corpus.groups if row in group.rows]))

        return self._gathered([self._scores(row, image, columns(row)) for row, image in self._images()])

    @torch.inference_mode()
    def similarities(self) -> np.ndarray:
        """Return cosine similarities (rows, columns) float32 of the embeddings, on every process.

        Images and texts are embedded by the contrastive head. Sentences have the mean of the encoded states of their words.
        """
        columns = self._vectors(self.corpus.texts_by_length(self.pairs_at_once), self.corpus.num_columns)
        if isinstance(self.corpus, Translations):
            rows = self._vectors(self.corpus.sources_by_length(self.pairs_at_once), self.corpus.num_rows)
            return self._gathered([rows[row] for row in self._mine]) @ columns.T
        assert self.itc is not None
        images = [self.itc.image_vectors(self._pooled(image))[0].float().cpu().numpy() for _, image in self._images()]
        return self._gathered(images) @ columns.T

    @torch.inference_mode()
    def reranked(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return two-stage scores (rows, columns): for finding rows by column, and for finding columns by row.

        The full model scores the k nearest candidates of each query by embedding. They rank before all others, which
        keep the order of their similarities. The full model sees O((rows + columns) * k) pairs. Where rows are not found by
        columns, both are the same.
        """
        near = self.similarities()
        of_column, of_row = self._nearest(near, k)
        wanted = of_column | of_row
        scored = [self._scores(row, image, np.flatnonzero(wanted[row])) for row, image in self._images()]
        scores = self._gathered(scored)
        behind = near - 2 - max(0.0, -float(scores[wanted].min()))  # below every score of the full model
        by_row = np.where(of_row, scores, behind)
        return (np.where(of_column, scores, behind) if self.corpus.finds_rows else by_row), by_row

    def _nearest(self, near: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The pairs (rows, columns) bool of each column with its nearest rows, and of each row with its nearest columns."""
        of_column, of_row = np.zeros(near.shape, dtype=bool), np.zeros(near.shape, dtype=bool)
        for group in self.corpus.groups:
            part = np.ix_(group.rows, np.unique(group.columns)) if group.name else ...
            of_row[part] |= nearest(near[part], k)
            if self.corpus.finds_rows:
                of_column[part] |= nearest(near[part].T, k).T
        return of_column, of_row

    def _scores(self, row: int, image: Segment | None, columns: np.ndarray) -> np.ndarray:
        """Return the scores (columns,) float32 of a row with some columns, -inf with the others."""
        assert self.score is not None
        scores = np.full(self.corpus.num_columns, -np.inf, dtype=np.float32)
        order, found = columns[np.argsort(self.corpus.lengths[columns], kind="stable")], []
        for start in range(0, len(order), self.pairs_at_once):
            text = self.corpus.texts(row, order[start : start + self.pairs_at_once])
            text = text.to(self.device, non_blocking=True)
            found.append(match_scores(self.encoder, self.score, text, image, self.task))
        scores[order] = torch.cat(found).float().cpu().numpy()
        return scores

    def _vectors(self, texts: Iterable[tuple[np.ndarray, Text]], count: int) -> np.ndarray:
        """Return the unit vectors (count, D) float32 of texts by themselves."""
        vectors = np.empty((count, self.encoder.size.width), dtype=np.float32)
        for numbers, text in texts:
            text = text.to(self.device)
            embedded = self.encoder.embed_text(text)
            if self.itc is not None:
                found = self.itc.text_vectors(self._pooled(embedded))
            else:
                states = self.encoder.encode((embedded,), task=self.task)["text"].float()
                found = F.normalize((states * inner_words(text.mask)[..., None]).sum(dim=1), dim=-1)
            vectors[numbers] = found.float().cpu().numpy()
        return vectors

    def _pooled(self, segment: Segment | None) -> Tensor:
        assert segment is not None
        return self.encoder.encode((segment,), pooled_only=True, task=self.task).pooled

    def _images(self) -> Iterator[tuple[int, Segment | None]]:
        """Embed the images of this process's rows one after the other; None where images are not read."""
        with progress("ranking", len(self._mine), shown=is_first_process()) as advance:
            for row in self._mine:
                image = self.corpus.image(row)
                if image is None:
                    yield row, None
                else:
                    pixels = normalize(image[None].to(self.device), self.encoder.size.pixel_normalization)
                    yield row, self.encoder.embed_images(pixels)
                advance(1)

    def _gathered(self, rows: list[np.ndarray]) -> np.ndarray:
        """Gather what belongs to all rows from the processes, which have what belongs to their own rows."""
        parts = gather_lists([(list(self._mine), rows)])
        numbered = dict(pair for numbers, values in parts for pair in zip(numbers, values, strict=True))
        return np.stack([numbered[row] for row in range(self.corpus.num_rows)])


@dataclass(frozen=True)
class Ranking:
    """The evaluator of retrieval: recalls of images found by texts, and of texts found by images, in each language apart.

    Of samples that are pairs of texts, recalls of the translations of sentences, in each direction apart.

    head: name of the head that ranks.
    itc: name of the contrastive head that finds candidates, where the task has one.
    every: see `Evaluator`.
    rerank_k: how many candidates the ranking head scores where there are embeddings; None: all.
    save_scores: whether a test writes its scores.
    task: the name of the task, for models with task tokens.
    pairs: whether samples are pairs of texts.
    """

    head: str
    itc: str | None = None
    every: int = 0
    rerank_k: int | None = None
    save_scores: bool = False
    task: str = ""
    pairs: bool = False
    headlines: ClassVar[tuple[str, ...]] = ("ir_r1", "tr_r1", "r_mean")  # r_mean of data with languages

    def __call__(self, model: Model, samples: Samples, out: Path | None) -> dict[str, float]:
        score = None if self.head == self.itc else model.objectives[self.head].score
        itc = model.objectives[self.itc] if self.itc else None
        assert itc is None or isinstance(itc, ITC)
        corpus = Translations(samples) if self.pairs else Corpus(samples)
        scorer = Scorer(model.encoder, corpus, model.device, score=score, itc=itc, task=self.task)
        out = None if out is None else out.with_name(f"{out.name}_ranking")
        return evaluate(scorer, out, rerank_k=self.rerank_k, save_scores=self.save_scores)


def evaluate(
    scorer: Scorer, out: Path | None, *, rerank_k: int | None = None, save_scores: bool = False
) -> dict[str, float]:
    """Return the recalls of a corpus, on every process.

    They are exact where the model has no embeddings or rerank_k is None, use embeddings alone where it has no other head,
    and otherwise have two stages. Groups of a name are ranked apart: the names of their metrics end in it, as in ir_r1_de,
    r_mean_de is the mean of the group's recalls, and r_mean the mean over all groups.

    out: rank 0 writes OUT.json, the recalls.
    save_scores: rank 0 also writes OUT.npz: `scores` (images, texts) float16 for image retrieval, `text_scores` for text
        retrieval where they differ, and `text_image` (texts,) int64. Of groups it has, with their names behind, `scores`,
        `text_scores`, and `row_keys` and `column_keys`: a column is right for a row where these are equal.
    """
    corpus = scorer.corpus
    if scorer.score is None:
        scores = text_scores = scorer.similarities()
    elif rerank_k is None or not scorer.embeds:
        scores = text_scores = scorer.exact()
    else:
        scores, text_scores = scorer.reranked(rerank_k)
    found = {group.name: _measured(corpus, group, scores, text_scores) for group in corpus.groups}
    values = {f"{metric}_{name}" if name else metric: value for name in found for metric, value in found[name].items()}
    if means := [own["r_mean"] for own in found.values() if "r_mean" in own]:
        values["r_mean"] = float(np.mean(means))
    if any(found):
        facts = ", ".join(f"{name}: {value}" for name, value in corpus.facts.items())
        rank_zero_info(f"Ranked each of {', '.join(found)} apart ({facts})")
    if out is not None and is_first_process():
        write_text(out.with_name(f"{out.name}.json"), to_json(corpus.facts | values))
        if save_scores:
            arrays = {
                key: value for group in corpus.groups for key, value in _arrays(group, scores, text_scores).items()
            }
            with write_atomically(out.with_name(f"{out.name}.npz")) as partial, partial.open("wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # an option is a bool
    return values


def _measured(corpus: Rankable, group: Group, scores: np.ndarray, text_scores: np.ndarray) -> dict[str, float]:
    """The recalls of a group; of one with a name, their mean too."""
    own, own_text = group.of(scores), group.of(text_scores)
    if not np.isfinite(own).all() or not np.isfinite(own_text).all():
        check_finite({"the scores of a ranking": np.nan})
    if corpus.finds_rows:
        text_image = np.searchsorted(group.rows, group.column_keys)
        values = recalls(own, text_image, own_text) | fold_recalls(own, text_image, own_text)
    else:
        right = group.row_keys[:, None] == group.column_keys
        values = summary(rank_of_best(own_text, right), len(group.columns))
    mean = mean_recall(values) if group.name else None
    return values if mean is None else values | {"r_mean": mean}


def _arrays(group: Group, scores: np.ndarray, text_scores: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of a group for a file, with what is right."""
    kept = {"scores": scores, "text_scores": text_scores} if text_scores is not scores else {"scores": scores}
    arrays = {name: group.of(array).astype(np.float16) for name, array in kept.items()}
    if not group.name:
        return arrays | {"text_image": group.column_keys}
    arrays |= {"row_keys": group.row_keys, "column_keys": group.column_keys}
    return {f"{name}_{group.name}": array for name, array in arrays.items()}
