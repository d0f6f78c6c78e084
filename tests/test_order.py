import numpy as np
import pytest

from tcmgc.training.order import batch_of, epoch_order, steps_per_epoch


def test_an_epoch_is_a_permutation_that_seed_and_epoch_decide():
    order = epoch_order(1000, seed=3, epoch=2)
    assert sorted(order) == list(range(1000))
    assert np.array_equal(order, epoch_order(1000, seed=3, epoch=2))
    assert not np.array_equal(order, epoch_order(1000, seed=3, epoch=3))
    assert not np.array_equal(order, epoch_order(1000, seed=4, epoch=2))


def test_steps_do_not_overlap():
    order = epoch_order(103, seed=0, epoch=0)
    batches = [batch_of(order, step, 10) for step in range(steps_per_epoch(103, 10))]
    assert [len(batch) for batch in batches] == [10] * 10
    assert len(set(np.concatenate(batches))) == 100


def test_fewer_pairs_than_a_batch():
    with pytest.raises(ValueError, match="batch_size is 64, but training has 50 pairs"):
        steps_per_epoch(50, 64)
