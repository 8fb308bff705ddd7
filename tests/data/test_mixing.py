"""Batches of several tasks: turns, continued anywhere, alike on all processes."""

from collections import Counter

import numpy as np
import pytest

from vlc.data.mixing import MixedSampler, Mixing, Stretch, Turn
from vlc.data.sampler import Position, TrainSampler

SIZES = {"a": 12, "b": 4}


def _sampler(mixing: Mixing, stretch: Stretch, number: int = 0, **own) -> MixedSampler:
    samplers = {name: TrainSampler([size], 4, seed=0, **own) for name, size in SIZES.items()}
    start = Position(stretch.number, number)
    return MixedSampler(samplers, mixing, lambda number: stretch, start=start)


EVEN = Mixing({"a": 1, "b": 1})
THREE_ROUNDS = Stretch(0, 0, 3, (0, 0))
MIXINGS = {
    "in turn": EVEN,
    "accumulating": Mixing({"a": 1, "b": 3}),
    "a step for each round": Mixing({"a": 2, "b": 1}, step_for_each_task=False),
    "drawn": Mixing({"a": 1, "b": 2}, {"a": 3.0, "b": 1.0}, seed=1),
}


def test_tasks_take_turns_and_the_smaller_one_begins_again():
    batches = list(_sampler(EVEN, THREE_ROUNDS))
    assert [task for task, _, _ in batches] == ["a", "b"] * 3
    assert sorted(key.sample for task, keys, _ in batches for key in keys if task == "a") == list(range(12))
    assert [{key.epoch for key in keys} for task, keys, _ in batches if task == "b"] == [{0}, {1}, {2}]
    assert [turn for _, _, turn in batches] == [Turn(1.0, True, False), Turn(1.0, True, True)] * 3


@pytest.mark.parametrize("name", MIXINGS)
def test_turns_go_on_from_any_batch_of_any_stretch(name):
    mixing, stretch = MIXINGS[name], THREE_ROUNDS
    for _ in range(3):
        batches = list(_sampler(mixing, stretch))
        assert len(batches) == len(_sampler(mixing, stretch))
        for number in range(len(batches)):
            assert list(_sampler(mixing, stretch, number)) == batches[number:]
        stretch = mixing.following(stretch, stretch.end + 3, frozenset())


@pytest.mark.parametrize("name", MIXINGS)
def test_stretches_together_are_one_long_stretch(name):
    """Where validations lie changes no batch."""
    mixing = MIXINGS[name]
    parts, stretch = [], Stretch(0, 0, 1, (0, 0))
    for end in (2, 5, 6):
        parts += list(_sampler(mixing, stretch))
        stretch = mixing.following(stretch, end, frozenset())
    parts += list(_sampler(mixing, stretch))
    assert parts == list(_sampler(mixing, Stretch(0, 0, 6, (0, 0))))


def test_all_processes_visit_the_same_task_with_other_samples():
    for mixing in MIXINGS.values():
        first, second = (list(_sampler(mixing, THREE_ROUNDS, world_size=2, rank=rank)) for rank in (0, 1))
        assert [(task, turn) for task, _, turn in first] == [(task, turn) for task, _, turn in second]
        assert all(not set(one) & set(other) for (_, one, _), (_, other, _) in zip(first, second, strict=True))


def test_batches_of_a_visit_share_a_step():
    turns = [(task, turn) for task, _, turn in _sampler(MIXINGS["accumulating"], Stretch(0, 0, 1, (0, 0)))]
    third = 1 / 3
    assert turns == [
        *[("a", Turn(1.0, True, False)), ("b", Turn(third, False, False)), ("b", Turn(third, False, False))],
        ("b", Turn(third, True, True)),
    ]
    steps = [turn.ends_step for _, _, turn in _sampler(MIXINGS["a step for each round"], THREE_ROUNDS)]
    assert steps == [False, False, True] * 3


def test_a_stopped_task_takes_part_in_each_gap_th_round():
    for gap, rounds in ((4, [0, 4, 8]), (1, list(range(10))), (0, []), (-1, [])):
        mixing = Mixing({"a": 1, "b": 1}, gap=gap)
        found, tasks = mixing.visits(Stretch(0, 0, 10, (0, 0), frozenset("b")))
        assert found[tasks == 1].tolist() == rounds
        assert found[tasks == 0].tolist() == list(range(10))


def test_tasks_are_drawn_in_proportion_to_their_chances():
    mixing = Mixing({"a": 1, "b": 1, "c": 1}, {"a": 5.0, "b": 4.0, "c": 1.0}, seed=3)
    rounds, tasks = mixing.visits(Stretch(0, 100, 3100, (0, 0, 0)))
    assert Counter(rounds.tolist()) == dict.fromkeys(range(100, 3100), 3)
    shares = np.bincount(tasks) / len(tasks)
    assert np.abs(shares - [0.5, 0.4, 0.1]).max() < 0.02
    assert not np.array_equal(tasks, mixing.visits(Stretch(0, 200, 3200, (0, 0, 0)))[1])


def test_a_long_stretch_is_planned_at_once():
    mixing = Mixing(dict.fromkeys("abcdefghijkl", 2))
    assert len(mixing.turns(Stretch(0, 0, 50_000)).tasks) == 50_000 * 24
