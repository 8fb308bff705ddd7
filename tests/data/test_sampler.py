"""Who gets which sample."""

import numpy as np
import pytest

from vlc.data.sampler import EvalSampler, EvalSamplers, Position, TrainSampler


def _samples(sampler) -> list[int]:
    return [key.sample for batch in sampler for key in batch]


def _all_samples(samplers: list) -> list[int]:
    return [sample for sampler in samplers for sample in _samples(sampler)]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_samples", [3, 4, 7, 12, 24])
def test_evaluation_deals_every_sample_once(num_samples, world_size):
    samplers = [EvalSampler(num_samples, 4, rank=rank, world_size=world_size) for rank in range(world_size)]
    counted = [key.sample for sampler in samplers for batch in sampler for key in batch if not key.again]
    assert sorted(counted) == list(range(num_samples))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_samples", [1, 2, 3, 13, 25])
def test_evaluation_has_the_same_batches_counted_once_and_equally_many_for_each_process(num_samples, world_size):
    """Also with fewer batches, or samples, than processes."""
    alone = list(EvalSampler(num_samples, 4))
    shared = [list(EvalSampler(num_samples, 4, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert {len(batches) for batches in shared} == {-(-len(alone) // world_size)}
    assert {len(EvalSampler(num_samples, 4, rank=rank, world_size=world_size)) for rank in range(world_size)} == {
        len(shared[0])
    }
    counted = [batch for batches in shared for batch in batches if not batch[0].again]
    assert sorted(counted) == alone
    again = [[key._replace(again=False) for key in batch] for batches in shared for batch in batches if batch[0].again]
    assert all(batch in alone for batch in again)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("num_samples", [7, 11, 17, 23])
def test_training_batches_are_as_large_on_every_process(num_samples, world_size):
    samplers = [TrainSampler([num_samples], 4, seed=1, rank=rank, world_size=world_size) for rank in range(world_size)]
    for batches in zip(*samplers, strict=True):
        assert len({len(batch) for batch in batches}) == 1
    assert len(_all_samples(samplers)) == num_samples // world_size * world_size


@pytest.mark.parametrize("num_samples", [7, 9, 12])
def test_training_processes_see_disjoint_samples_and_equally_many_batches(num_samples):
    samplers = [TrainSampler([num_samples], 2, seed=1, rank=rank, world_size=2) for rank in range(2)]
    seen = _all_samples(samplers)
    assert len(seen) == len(set(seen))
    assert len(seen) >= num_samples - 1
    assert len(list(samplers[0])) == len(list(samplers[1])) == len(samplers[0])


def test_global_batches_are_those_of_one_process():
    alone = [{key.sample for key in batch} for batch in TrainSampler([12], 4, seed=3)]
    halves = zip(*(TrainSampler([12], 2, seed=3, rank=rank, world_size=2) for rank in range(2)), strict=True)
    assert alone == [{key.sample for half in batch for key in half} for batch in halves]


def test_epochs_are_shuffled_anew_and_repeatably():
    first, again = TrainSampler([20], 4, seed=0), TrainSampler([20], 4, seed=0)
    assert _samples(first) == _samples(again)
    again.set_epoch(1)
    assert _samples(first) != _samples(again)
    assert {key.epoch for batch in again for key in batch} == {1}


def test_a_position_is_continued_in_its_epoch_only():
    sampler, whole = TrainSampler([20], 4, seed=0, start=Position(2, 3)), TrainSampler([20], 4, seed=0)
    whole.set_epoch(2)
    assert list(sampler) == list(whole)[3:], "before Lightning sets the epoch, as loader processes read ahead"
    sampler.set_epoch(2)
    assert list(sampler) == list(whole)[3:]
    sampler.set_epoch(3)
    assert len(list(sampler)) == 5


def test_nothing_follows_a_position_at_the_end_of_an_epoch():
    assert list(TrainSampler([20], 4, seed=0, start=Position(2, 5))) == []


class TestWeights:
    SIZES = (40, 6, 30)

    def _epoch(self, epoch: int = 0, weights=(2, 1, 1), **options) -> list[int]:
        sampler = TrainSampler(self.SIZES, 4, seed=3, weights=weights, **options)
        sampler.set_epoch(epoch)
        return _samples(sampler)

    def test_an_epoch_has_the_shares_asked_for_and_uses_up_one_data_set(self):
        counts = np.histogram(self._epoch(), bins=[0, 40, 46, 76])[0]
        assert counts.tolist() == [12, 6, 6]

    def test_no_sample_comes_twice_in_an_epoch_and_all_come_in_time(self):
        seen = set()
        for epoch in range(40):
            samples = self._epoch(epoch)
            assert len(samples) == len(set(samples))
            seen.update(samples)
        assert seen == set(range(76))

    def test_data_sets_are_mixed_within_the_epoch(self):
        first = self._epoch()[:12]
        assert len({int(np.searchsorted([40, 46], sample, side="right")) for sample in first}) == 3

    def test_drawing_repeats_itself_by_seed_and_epoch(self):
        assert self._epoch(5) == self._epoch(5)
        assert self._epoch(5) != self._epoch(6)

    def test_processes_share_what_one_would_see(self):
        shared = [self._epoch(2, rank=rank, world_size=2) for rank in range(2)]
        alone = TrainSampler(self.SIZES, 8, seed=3, weights=(2, 1, 1))
        alone.set_epoch(2)
        assert sorted(shared[0] + shared[1]) == sorted(_samples(alone))

    def test_weights_like_the_sizes_change_nothing(self):
        assert self._epoch(weights=self.SIZES) == self._epoch(weights=None)

    def test_a_position_is_continued(self):
        options = {"seed": 3, "weights": (1, 1, 1)}
        resumed, whole = (TrainSampler(self.SIZES, 4, **options, **start) for start in ({"start": Position(1, 2)}, {}))
        whole.set_epoch(1)
        assert list(resumed) == list(whole)[2:]


def test_data_sets_share_a_loader_and_the_first_batch_of_each_comes_first():
    due: list[str] | None = None
    samplers = EvalSamplers({name: EvalSampler(size, 4) for name, size in (("a", 10), ("b", 3))}, lambda: due)
    found = [(name, [key.sample for key in keys]) for name, keys in samplers]
    assert found == [("a", [0, 1, 2, 3]), ("b", [0, 1, 2]), ("a", [4, 5, 6, 7]), ("a", [8, 9])]
    assert len(samplers) == 4
    due = ["b"]
    assert [name for name, _ in samplers] == ["b"]
    due = []
    assert list(samplers) == []
