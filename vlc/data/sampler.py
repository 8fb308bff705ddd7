"""Which samples make which batch, on which process.

Both samplers yield whole batches (lists of keys) and work on the global order of samples, so the number of processes
changes who handles a sample, never whether or how often it is handled.
"""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from vlc.data.dataset import Key


class TrainSampler(Sampler):
    """Batches of a seeded permutation, a new one each epoch; every sample at most once an epoch.

    batch_size is that of one process. All processes get the same number of batches; the last global batch may be
    smaller, and is dropped where it has fewer samples than there are processes. `start` batches of the current epoch
    are skipped: that is how a run resumes.
    """

    def __init__(self, num_samples: int, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1):
        self.num_samples, self.seed = num_samples, seed
        self.rank, self.world_size = rank, world_size
        self.global_batch = batch_size * world_size
        self.epoch = self.start = 0

    def __len__(self) -> int:
        full, rest = divmod(self.num_samples, self.global_batch)
        return full + (rest >= self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch; a position to resume from holds for its own epoch only."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def resume(self, epoch: int, num_batches: int) -> None:
        """Continue after num_batches batches of an epoch."""
        if num_batches >= len(self):
            epoch, num_batches = epoch + 1, 0
        self.epoch, self.start = epoch, num_batches

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_samples)
        for number in range(self.start, len(self)):
            batch = order[number * self.global_batch : (number + 1) * self.global_batch]
            yield [Key(self.epoch, int(sample)) for sample in batch[self.rank :: self.world_size]]


class EvalSampler(Sampler):
    """Batches in order, dealt out to the processes whole: no sample is repeated, and batches do not depend on who
    handles them, so neither do metrics that look across a batch.
    """

    def __init__(self, num_samples: int, batch_size: int, *, rank: int = 0, world_size: int = 1):
        self.num_samples, self.batch_size = num_samples, batch_size
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return len(range(self.rank, self._num_batches, self.world_size))

    @property
    def _num_batches(self) -> int:
        return -(-self.num_samples // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        for number in range(self.rank, self._num_batches, self.world_size):
            first = number * self.batch_size
            yield [Key(0, sample) for sample in range(first, min(first + self.batch_size, self.num_samples))]
