"""The scores of a corpus by a model: exact, by embeddings, or in two stages.

Rows are images, and columns texts; or rows are sentences, and columns their possible translations (`vlc.data.corpus`). Rows
are divided over the processes so that each has equally many pairs, and texts are divided to be embedded. Images are read
ahead and embedded in batches. The columns of a row are scored in passes of similar length, so that there is little padding.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vlc.common.inputs import Text
from vlc.common.terminal import progress
from vlc.data.corpus import Rankable, Translations
from vlc.data.transforms import normalize
from vlc.data.workers import worker_options
from vlc.evaluation.scores import Reranked, Similarities, Stored, room_for
from vlc.hardware.distributed import gather_lists, is_first_process, process_number
from vlc.hardware.threads import free_cores
from vlc.model.encoder import Encoder
from vlc.model.segments import Segment
from vlc.objectives.itc import ITC
from vlc.objectives.wpa import inner_words

Input = TypeVar("Input", Text, Tensor)
PAIRS_AT_ONCE = {"cpu": 16, "cuda": 512}  # what fits into a processor's caches is faster; a GPU has to be filled
IMAGES_AT_ONCE = {"cpu": 16, "cuda": 128}
WORTH_WORKERS = 500  # images; fewer are read before a worker process has started


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


@dataclass
class _Reader(Dataset):
    """The images of rows, by lists of their numbers: those of one shape (B, 3, H, W) uint8 together, with their rows.

    Where images are not read, they are None.
    """

    corpus: Rankable

    def __getitem__(self, rows: list[int]) -> list[tuple[list[int], Tensor | None]]:
        found: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
        for row in rows:
            image = self.corpus.image(row)
            if image is None:
                return [(rows, None)]
            found.setdefault(tuple(image.shape), []).append((row, image))
        return [([row for row, _ in same], torch.stack([image for _, image in same])) for same in found.values()]


class Scorer:
    """Scores the rows and columns of a corpus with a model. All processes call its methods together.

    score: pooled features (N, D) of fused pairs -> (N,); None where the model has no such head.
    itc: the head that embeds images and texts separately; None where the model has none.
    task: the name of the task, for models with task tokens.
    workers: how many processes read images ahead.
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
        workers: int = 0,
    ):
        self.encoder, self.corpus, self.device, self.score, self.itc = encoder, corpus, device, score, itc
        self.task, self.workers = task, workers
        self.pairs_at_once = PAIRS_AT_ONCE.get(device.type, 64)
        self._images_at_once = IMAGES_AT_ONCE.get(device.type, 16)
        self._process, self.num_processes = process_number()

    @property
    def embeds(self) -> bool:
        """Whether rows and columns have embeddings apart from each other: of the contrastive head, or of sentences."""
        return self.itc is not None or isinstance(self.corpus, Translations)

    @property
    def rows_of_process(self) -> int:
        """The most rows that a process scores exactly."""
        return -(-self.corpus.num_rows // self.num_processes)

    @torch.inference_mode()
    def exact(self, pairs_at_once: int | None = None, folder: Path | None = None) -> Stored:
        """Return scores of every pair by the full model; they are -inf where row and column are not ranked with each other.

        folder: where the scores of this process lie in a file; None: they are in memory.
        """
        self.pairs_at_once = pairs_at_once or self.pairs_at_once
        counts = np.array([len(self._columns(row)) for row in range(self.corpus.num_rows)])
        mine = shares(counts, self.num_processes)[self._process]
        values, finite = room_for((len(mine), self.corpus.num_columns), folder), True
        places = {row: place for place, row in enumerate(mine.tolist())}
        for row, columns, found in self._scored(mine, self._columns):
            values[places[row]] = -np.inf
            values[places[row], columns] = found
            finite = finite and bool(np.isfinite(found).all())
        return Stored(mine, values, finite)

    @torch.inference_mode()
    def similarities(self) -> Similarities:
        """Return cosine similarities of the embeddings.

        Images and texts are embedded by the contrastive head. Sentences have the mean of the encoded states of their words.
        """
        mine = np.arange(self._process, self.corpus.num_rows, self.num_processes)
        columns = self._text_vectors(self.corpus.texts_by_length(self.pairs_at_once), self.corpus.num_columns)
        if isinstance(self.corpus, Translations):
            rows = self._text_vectors(self.corpus.sources_by_length(self.pairs_at_once), self.corpus.num_rows)
            return Similarities(mine, rows, columns)
        assert self.itc is not None
        found = [
            (np.array(rows), self.itc.image_vectors(self._pooled(images)).float().cpu().numpy())
            for rows, images in self._images(mine)
        ]
        return Similarities(mine, self._of_all(found, self.corpus.num_rows), columns)

    @torch.inference_mode()
    def reranked(self, k: int) -> Reranked:
        """Return two-stage scores: for finding rows by column, and for finding columns by row.

        The full model scores the k nearest candidates of each query by embedding. They rank before all others, which
        keep the order of their similarities. The full model sees O((rows + columns) * k) pairs. Where rows are not found by
        columns, both are the same.
        """
        near = self.similarities()
        of_row, of_column = self._candidates(near, k)
        counts = np.bincount(np.concatenate([of_row[0], of_column[0]]), minlength=self.corpus.num_rows)
        mine = shares(counts, self.num_processes)[self._process]
        own_row, own_column = (self._pairs_of(mine, pairs) for pairs in (of_row, of_column))
        pairs = np.union1d(own_row, own_column)
        row, column = np.divmod(pairs, self.corpus.num_columns)
        scores, starts = (
            np.empty(len(pairs), dtype=np.float32),
            np.searchsorted(row, np.arange(self.corpus.num_rows + 1)),
        )

        def columns(number: int) -> np.ndarray:
            return column[starts[number] : starts[number + 1]]

        for number, _, found in self._scored(mine[np.diff(starts)[mine] > 0], columns):
            scores[starts[number] : starts[number + 1]] = found
        near = Similarities(mine, near.rows, near.columns)
        return Reranked(near, row, column, scores, np.isin(pairs, own_row), np.isin(pairs, own_column))

    def _candidates(
        self, near: Similarities, k: int
    ) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """The pairs (rows, columns) int32 of each row with its nearest columns, and of each column with its nearest rows.

        Each process searches for its share of the rows and columns, and gets the pairs of all.
        """
        of_row, of_column = [], []
        for group in self.corpus.groups:
            columns = np.unique(group.columns)
            mine = group.rows[self._process :: self.num_processes]
            found = near.nearest_columns(mine, columns, k)
            of_row.append((np.repeat(mine, found.shape[1]), found.flatten()))
            if self.corpus.finds_rows:
                mine = columns[self._process :: self.num_processes]
                found = near.nearest_rows(mine, group.rows, k)
                of_column.append((found.flatten(), np.repeat(mine, found.shape[1])))
        return _gathered(of_row), _gathered(of_column)

    def _pairs_of(self, rows: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """The pairs of some rows, each as a number: row * columns + column."""
        own = np.isin(pairs[0], rows)
        return pairs[0][own].astype(np.int64) * self.corpus.num_columns + pairs[1][own]

    @cached_property
    def _groups_of_rows(self) -> np.ndarray:
        """Whether each row is in each group (rows, groups) bool."""
        return np.stack([np.isin(np.arange(self.corpus.num_rows), group.rows) for group in self.corpus.groups], axis=1)

    @cached_property
    def _columns_of_groups(self) -> dict[bytes, np.ndarray]:
        return {}

    def _columns(self, row: int) -> np.ndarray:
        """The columns that are ranked with a row, in ascending order; rows in the same groups share them."""
        chosen = self._groups_of_rows[row]
        if chosen.tobytes() not in self._columns_of_groups:
            columns = [group.columns for group, own in zip(self.corpus.groups, chosen, strict=True) if own]
            self._columns_of_groups[chosen.tobytes()] = np.unique(np.concatenate(columns))
        return self._columns_of_groups[chosen.tobytes()]

    def _scored(
        self, rows: np.ndarray, columns: Callable[[int], np.ndarray]
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Score rows with columns: (row, its columns (C,), their scores (C,) float32).

        The scores are read from the device when the next passes are under way, so that it always has work.
        """
        waiting: tuple[list[int], list[np.ndarray], Tensor] | None = None
        for numbers, image in self._images(rows):
            for part in self._together([columns(number) for number in numbers]):
                own = numbers[part], [columns(number) for number in numbers[part]]
                launched = *own, self._launched(*own, None if image is None else image.at(part))
                if waiting is not None:
                    yield from _by_row(*waiting)
                waiting = launched
        if waiting is not None:
            yield from _by_row(*waiting)

    def _together(self, columns: list[np.ndarray]) -> Iterator[slice]:
        """Rows in succession that have enough pairs for a pass; those of a single row are often enough."""
        start, pairs = 0, 0
        for place, own in enumerate(columns, 1):
            pairs += len(own)
            if pairs >= self.pairs_at_once or place == len(columns):
                yield slice(start, place)
                start, pairs = place, 0

    def _launched(self, rows: list[int], columns: list[np.ndarray], image: Segment | None) -> Tensor:
        """The scores (pairs,) of rows with their columns, still on the device; image: of the rows."""
        assert self.score is not None
        place, column = np.repeat(np.arange(len(rows)), list(map(len, columns))), np.concatenate(columns)
        order, found = np.argsort(self.corpus.lengths[column], kind="stable"), []
        for chunk in np.array_split(order, -(-len(order) // self.pairs_at_once)):
            text = self._on_device(self.corpus.texts(np.array(rows)[place[chunk]], column[chunk]))
            shown = image
            if image is not None and len(rows) > 1:
                shown = image.at(torch.from_numpy(place[chunk]).to(self.device))
            found.append(match_scores(self.encoder, self.score, text, shown, self.task))
        return torch.cat(found)[torch.from_numpy(np.argsort(order)).to(self.device)]

    def _on_device(self, inputs: Input) -> Input:
        """Copy texts or pixels without waiting for the device."""
        return (inputs.pin_memory() if self.device.type == "cuda" else inputs).to(self.device, non_blocking=True)

    def _text_vectors(self, texts: Iterable[tuple[np.ndarray, Text]], count: int) -> Tensor:
        """Return the unit vectors (count, D) float32 of texts by themselves; each process embeds its share of chunks."""
        found = []
        for numbers, text in islice(texts, self._process, None, self.num_processes):
            found.append((numbers, self._text_vector(self._on_device(text)).float().cpu().numpy()))
        return self._of_all(found, count)

    def _text_vector(self, text: Text) -> Tensor:
        embedded = self.encoder.embed_text(text)
        if self.itc is not None:
            return self.itc.text_vectors(self._pooled(embedded))
        states = self.encoder.encode((embedded,), task=self.task)["text"].float()
        return F.normalize((states * inner_words(text.mask)[..., None]).sum(dim=1), dim=-1)

    def _of_all(self, found: list[tuple[np.ndarray, np.ndarray]], count: int) -> Tensor:
        """Gather vectors by their numbers: (count, D) float32 on this process's device."""
        vectors = torch.empty(count, self.encoder.size.width)
        for numbers, own in gather_lists(found):
            vectors[torch.from_numpy(numbers)] = torch.from_numpy(own)
        return vectors.to(self.device)

    def _pooled(self, segment: Segment | None) -> Tensor:
        assert segment is not None
        return self.encoder.encode((segment,), pooled_only=True, task=self.task).pooled

    def _images(self, rows: np.ndarray) -> Iterator[tuple[list[int], Segment | None]]:
        """Embed the images of rows in batches of images of one shape; None where images are not read."""
        size = self._images_at_once
        batches = [rows[start : start + size].tolist() for start in range(0, len(rows), size)]
        workers = worker_options(self.workers if len(rows) >= WORTH_WORKERS else 0)
        with progress("ranking", len(rows), shown=is_first_process()) as advance:
            for same_shape in DataLoader(_Reader(self.corpus), None, sampler=batches, **workers):
                for numbers, pixels in same_shape:
                    yield numbers, None if pixels is None else self._embedded(pixels)
                    advance(len(numbers))

    def _embedded(self, pixels: Tensor) -> Segment:
        pixels = self._on_device(pixels)
        return self.encoder.embed_images(normalize(pixels, self.encoder.size.pixel_normalization))


def shares(counts: np.ndarray, processes: int) -> list[np.ndarray]:
    """Divide rows over processes so that each has about equally many pairs: the numbers of its rows, ascending.

    Rows are dealt out from the one with most pairs to the one with fewest, there and back.

    counts (rows,): the number of pairs of each row.
    """
    order, place = np.argsort(-counts, kind="stable"), np.arange(len(counts))
    turn, seat = np.divmod(place, processes)
    process = np.where(turn % 2, processes - 1 - seat, seat)
    return [np.sort(order[process == number]) for number in range(processes)]


def _by_row(rows: list[int], columns: list[np.ndarray], scores: Tensor) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each row with its columns and their scores, copied from the device."""
    ends = np.cumsum(list(map(len, columns)))[:-1]
    yield from zip(rows, columns, np.split(scores.float().cpu().numpy(), ends), strict=True)


def _gathered(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of all processes, as two arrays int32."""
    everything = gather_lists([tuple(part.astype(np.int32) for part in pair) for pair in pairs])
    if not everything:
        return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32)
    rows, columns = zip(*everything, strict=True)
    return np.concatenate(rows), np.concatenate(columns)
