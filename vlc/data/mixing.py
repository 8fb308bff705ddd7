"""The order of the training batches of several tasks: a pure function of the seed and of a stretch of rounds."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from vlc.data.keys import Key
from vlc.data.sampler import Position, TrainSampler


class Turn(NamedTuple):
    """The place of a batch in its round.

    share: the factor of its loss; the batches of one visit of a task have 1 together.
    ends_step: whether an optimiser step follows it.
    ends_round: whether it is the last one of its round.
    """

    share: float = 1.0
    ends_step: bool = True
    ends_round: bool = True


@dataclass(frozen=True)
class Stretch:
    """The rounds from one validation to the next. Lightning takes it for an epoch.

    number: the number of stretches before it.
    first, end: the numbers of its first round, and of the round after its last one.
    visits: how often each task was visited before, in the order of the tasks.
    stopped: the tasks that are left out, but for each gap-th round.
    """

    number: int = 0
    first: int = 0
    end: int = 0
    visits: tuple[int, ...] = ()
    stopped: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Mixing:
    """How rounds are made of tasks.

    batches: by task, the batches of a visit, whose gradients accumulate.
    chances: by task, how probable each visit is; None: a round visits all tasks in their order.
    gap: stopped tasks take part in rounds whose number is a multiple of it; 0 or less: in none.
    step_for_each_task: an optimiser step follows each visit, not each round.
    """

    batches: Mapping[str, int]
    chances: Mapping[str, float] | None = None
    gap: int = 4
    step_for_each_task: bool = True
    seed: int = 0

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.batches)

    def visits(self, stretch: Stretch) -> tuple[np.ndarray, np.ndarray]:
        """The rounds and the tasks' numbers of all visits of a stretch, in their order."""
        rounds, count = np.arange(stretch.first, stretch.end), len(self.tasks)
        if self.chances is not None:
            chances = np.cumsum([self.chances[name] for name in self.tasks])
            bits = np.random.PCG64(self.seed).advance(
                stretch.first * count
            )  # a step for each number: rounds keep theirs
            drawn = np.random.Generator(bits).random(len(rounds) * count) * chances[-1]
            return np.repeat(rounds, count), np.searchsorted(chances, drawn, side="right")
        stopped = np.array([name in stretch.stopped for name in self.tasks])
        runs = np.broadcast_to(~stopped, (len(rounds), count)).copy()
        if self.gap > 0:
            runs |= (rounds % self.gap == 0)[:, None]
        places, tasks = np.nonzero(runs)
        return rounds[places], tasks

    def following(self, stretch: Stretch, end: int, stopped: frozenset[str]) -> Stretch:
        """The stretch after one, up to the round `end`."""
        counts = np.bincount(self.visits(stretch)[1], minlength=len(self.tasks))
        before = stretch.visits or (0,) * len(self.tasks)
        visits = tuple(number + int(count) for number, count in zip(before, counts, strict=True))
        return Stretch(stretch.number + 1, stretch.end, end, visits, stopped)

    def turns(self, stretch: Stretch) -> "Turns":
        """The batches of a stretch."""
        rounds, tasks = self.visits(stretch)
        counts = np.array(list(self.batches.values()))[tasks]
        ends_visit = np.zeros(int(counts.sum()), bool)
        ends_visit[np.cumsum(counts) - 1] = True
        ends_round = ends_visit.copy()
        ends_round[ends_visit] = np.append(rounds[1:] != rounds[:-1], True)[: len(rounds)]
        return Turns(
            np.repeat(tasks, counts),
            np.repeat(1 / counts, counts),
            ends_visit if self.step_for_each_task else ends_round,
            ends_round,
        )


class Turns(NamedTuple):
    """The batches of a stretch: arrays (N,) of the tasks' numbers, and of the fields of `Turn`."""

    tasks: np.ndarray
    shares: np.ndarray
    ends_step: np.ndarray
    ends_round: np.ndarray


class MixedSampler(Sampler):
    """Whole batches of one task each.

    A task whose samples are used up begins its next epoch. The stretch and the number of a batch decide its task and its
    samples, so a run can resume anywhere, and all processes visit the same task at once.

    tasks: the samplers of the tasks, by name.
    stretch: returns the stretch of a number.
    start: where the first stretch is taken up; its epoch is the stretch's number.

    Yields the name of the task, the keys of its samples, and the turn.
    """

    def __init__(
        self,
        tasks: Mapping[str, TrainSampler],
        mixing: Mixing,
        stretch: Callable[[int], Stretch],
        *,
        start: Position = Position(0, 0),  # noqa: B008  it is immutable
    ):
        self.tasks, self.mixing, self.stretch = tasks, mixing, stretch
        self.epoch, self.start = start

    def __len__(self) -> int:
        return len(self.mixing.turns(self.stretch(self.epoch)).tasks)

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each stretch; a place to start from holds for its own stretch only."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __iter__(self) -> Iterator[tuple[str, list[Key], Turn]]:
        stretch, names = self.stretch(self.epoch), self.mixing.tasks
        turns = self.mixing.turns(stretch)
        before = np.bincount(turns.tasks[: self.start], minlength=len(names))
        visits = stretch.visits or (0,) * len(names)
        streams = [
            _endless(self.tasks[name], visits[number] * self.mixing.batches[name] + int(before[number]))
            for number, name in enumerate(names)
        ]
        for number in range(self.start, len(turns.tasks)):
            task, *turn = (column[number].item() for column in turns)
            yield names[task], next(streams[task]), Turn(*turn)


def _endless(sampler: TrainSampler, number: int) -> Iterator[list[Key]]:
    """The batches of a task from the given one on, epoch after epoch."""
    while True:
        sampler.epoch, sampler.start = divmod(number, len(sampler))
        for batch in sampler:
            yield batch
            number += 1
