import numpy as np
import pytest

from tcmgc.training.order import (
    batch_of,
    epoch_order,
    of_epoch,
    owners,
    separated_order,
    share_with_own_video_as_negative,
    steps_per_epoch,
)


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


def captions_of_videos(*counts):
    return owners(counts)


@pytest.mark.parametrize(
    ("counts", "size"),
    [([5] * 90, 30), ([20] * 64, 64), ([1, 2, 3, 4] * 25, 25), ([7] + [1] * 93, 10)],
)
def test_captions_of_one_video_lie_in_different_batches(counts, size):
    videos = captions_of_videos(*counts)
    order = separated_order(videos, size, seed=3, epoch=2)
    assert sorted(order) == list(range(len(videos)))
    steps = steps_per_epoch(len(videos), size)
    for step in range(steps):
        batch = videos[batch_of(order, step, size)]
        assert len(set(batch)) == size
    assert share_with_own_video_as_negative(videos, order, size) == 0
    assert np.array_equal(order, separated_order(videos, size, seed=3, epoch=2))
    assert not np.array_equal(order, separated_order(videos, size, seed=3, epoch=3))
    assert not np.array_equal(order, separated_order(videos, size, seed=4, epoch=2))


def test_of_a_video_with_more_captions_than_batches_each_batch_gets_as_many():
    videos = captions_of_videos(*[40] * 10)
    order = separated_order(videos, 64, seed=0, epoch=0)
    for step in range(6):
        _, counts = np.unique(videos[batch_of(order, step, 64)], return_counts=True)
        assert set(counts) <= {6, 7}
    assert share_with_own_video_as_negative(videos, order, 64) == 1


def test_which_videos_meet_is_left_to_chance():
    # Dealt out in turn, a video's 20 captions would meet the same neighbours 20 times.
    videos = captions_of_videos(*[20] * 300)
    order = separated_order(videos, 30, seed=0, epoch=0)
    batches = [set(videos[batch_of(order, step, 30)]) for step in range(200)]
    met = set().union(*(batch for batch in batches if 0 in batch)) - {0}
    # 20 batches of 29 others out of 299: 258 different ones are expected where all is chance.
    assert len(met) > 240


def test_the_share_of_pairs_with_their_own_video_among_the_negatives():
    videos = np.array([0, 0, 1, 2, 3, 3, 3, 4, 9, 9])
    order = np.arange(10)
    # Batches 0 0 1 2 | 3 3 3 4; the last two fill none.
    assert share_with_own_video_as_negative(videos, order, 4) == 5 / 8
    assert share_with_own_video_as_negative(videos, order, 11) == 0


def test_an_epoch_is_separated_where_it_is_asked_for():
    videos = captions_of_videos(*[5] * 20)
    assert np.array_equal(of_epoch(videos, 10, 1, 2, separate=False), epoch_order(100, 1, 2))
    assert np.array_equal(
        of_epoch(videos, 10, 1, 2, separate=True), separated_order(videos, 10, 1, 2)
    )
