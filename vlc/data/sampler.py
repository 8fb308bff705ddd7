"""Which samples make which batch, on which process.

Both samplers yield whole batches (lists of keys) and work on the global order of samples, so the number of processes
changes who handles a sample, never whether or how often it is handled.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from vlc.data.keys import Key


class Position(NamedTuple):
    """A place in training: after num_batches batches of an epoch."""

    epoch: int
    num_batches: int


class TrainSampler(Sampler):
    """Batches of a seeded permutation, a new one each epoch. No sample comes twice in an epoch.

    All processes get the same number of batches. The last global batch may be smaller, but is as large in each process:
    samples that do not divide by the processes wait for another epoch.

    sizes: numbers of samples of the joined data sets.
    batch_size: samples in a batch of one process.
    weights: None: an epoch has all samples. Otherwise each data set supplies samples in proportion to its weight. The epoch
        ends when the first data set is exhausted, and the others supply a new random subset every epoch.
    start: where the first epoch is taken up. Loader processes read ahead as soon as they exist, so it is known here.
    whole_steps: batches that make an optimiser step. An epoch then has whole steps alone, with full batches; samples that
        are left over wait for another epoch, as in MAE's loop.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch_size: int,
        *,
        seed: int,
        weights: Sequence[float] | None = None,
        rank: int = 0,
        world_size: int = 1,
        start: Position = Position(0, 0),  # noqa: B008  it is immutable
        whole_steps: int | None = None,
    ):
        self.sizes, self.seed = tuple(sizes), seed
        self.drawn = self.sizes if weights is None else _shares(self.sizes, weights)  # from each data set in an epoch
        self.rank, self.world_size = rank, world_size
        self.global_batch = batch_size * world_size
        self.epoch, self.start = start
        self.whole_steps = whole_steps

    @property
    def num_samples(self) -> int:
        """Samples of an epoch, over all processes."""
        return sum(self.drawn)

    def __len__(self) -> int:
        full, rest = divmod(self.num_samples, self.global_batch)
        if self.whole_steps is not None:
            return full // self.whole_steps * self.whole_steps
        return full + (rest >= self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch; a place to start from holds for its own epoch only."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __iter__(self) -> Iterator[list[Key]]:
        # Equal parts: objectives that look across processes compare as many samples of each, and DDP weighs them alike.
        order = self._order()[: self.num_samples // self.world_size * self.world_size]
        for number in range(self.start, len(self)):
            batch = order[number * self.global_batch : (number + 1) * self.global_batch]
            yield [Key(self.epoch, int(sample)) for sample in batch[self.rank :: self.world_size]]

    def _order(self) -> np.ndarray:
        """The samples of the current epoch, of all processes together, shuffled."""
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.drawn == self.sizes:
            return rng.permutation(self.num_samples)
        starts = np.cumsum([0, *self.sizes[:-1]])
        drawn = zip(starts, self.sizes, self.drawn, strict=True)
        return rng.permutation(np.concatenate([start + rng.permutation(size)[:count] for start, size, count in drawn]))


def _shares(sizes: tuple[int, ...], weights: Sequence[float]) -> tuple[int, ...]:
    """Samples of each data set in proportion to its weight, until the first data set is used up."""
    scale = min(size / weight for size, weight in zip(sizes, weights, strict=True))
    return tuple(min(size, round(weight * scale)) for size, weight in zip(sizes, weights, strict=True))


class EvalSampler(Sampler):
    """Whole batches in order, dealt out to the processes. Metrics across a batch do not depend on the number of processes.

    All processes get the same number of batches, because sharded models need all processes for every pass. Where the
    batches do not divide by the processes, the last ones come `again`: they are computed, but not counted.
    """

    def __init__(self, num_samples: int, batch_size: int, *, rank: int = 0, world_size: int = 1):
        self.num_samples, self.batch_size = num_samples, batch_size
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return -(-self._num_batches // self.world_size)

    @property
    def _num_batches(self) -> int:
        return -(-self.num_samples // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        for number in range(self.rank, len(self) * self.world_size, self.world_size):
            again, first = number >= self._num_batches, number % self._num_batches * self.batch_size
            yield [Key(0, sample, again) for sample in range(first, min(first + self.batch_size, self.num_samples))]


class EvalSamplers(Sampler):
    """The batches of several evaluated data sets, with their names, for one loader.

    The first batch of each comes first, so that a trial of a few batches has seen all data sets.

    due: returns the names of the data sets that are evaluated at present; None: all.
    """

    def __init__(self, samplers: Mapping[str, EvalSampler], due: Callable[[], Collection[str] | None] = lambda: None):
        self.samplers, self.due = samplers, due

    def __len__(self) -> int:
        return sum(map(len, self.samplers.values()))

    def __iter__(self) -> Iterator[tuple[str, list[Key]]]:
        due = self.due()
        batches = {name: iter(sampler) for name, sampler in self.samplers.items() if due is None or name in due}
        for name, own in batches.items():
            yield from ((name, keys) for keys in islice(own, 1))
        for name, own in batches.items():
            yield from ((name, keys) for keys in own)
