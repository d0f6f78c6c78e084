"""The order of training pairs: a function of the seed and the epoch alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def epoch_order(pairs: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of the pairs, the same on every machine and for any number of workers."""
    return _generator(seed, epoch).permutation(pairs)


def separated_order(
    videos: NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> NDArray[np.int64]:
    """A permutation of the pairs that puts captions of one video into different batches.

    If a video has no more captions than the epoch has batches, all of them are in different
    batches; otherwise every batch gets the same number or one more. Each video is assigned the
    batches with the most free places, at random among equals, so the combination of videos in a
    batch is as random as these counts allow.

    Args:
        videos: The number of each pair's video.
        batch_size: Pairs per batch.
        seed: The run's seed.
        epoch: Counted from 0.

    Returns:
        The pairs' numbers, batch after batch; those that fill no batch are last.
    """
    chance = _generator(seed, epoch)
    order = chance.permutation(len(videos))
    steps = len(videos) // batch_size
    taken, left = order[: steps * batch_size], order[steps * batch_size :]
    _, video, counts = np.unique(videos[taken], return_inverse=True, return_counts=True)
    if steps < 2 or counts.max() == 1:
        return order
    members = np.argsort(video, kind="stable")
    starts = np.cumsum(counts) - counts
    batch = np.empty(len(taken), dtype=np.int64)
    room = np.full(steps, batch_size)
    several = np.flatnonzero(counts > 1)
    several = several[np.lexsort((chance.random(len(several)), -counts[several]))]
    for one in several:
        whole, rest = divmod(int(counts[one]), steps)
        chosen = np.argsort(-room + chance.random(steps))[:rest]
        room -= whole
        room[chosen] -= 1
        places = np.concatenate([np.tile(np.arange(steps), whole), chosen])
        batch[members[starts[one] : starts[one] + counts[one]]] = places
    single = members[starts[counts == 1]]
    batch[single] = chance.permutation(np.repeat(np.arange(steps), room))
    mixed = chance.permutation(len(taken))
    return np.concatenate([taken[mixed[np.argsort(batch[mixed], kind="stable")]], left])


def share_with_own_video_as_negative(
    videos: NDArray[np.int64], order: NDArray[np.int64], batch_size: int
) -> float:
    """Share of an epoch's pairs whose batch has another caption of the same video.

    The loss treats the own video of such a pair as a negative.

    Args:
        videos: The number of each pair's video.
        order: The pairs' numbers, batch after batch.
        batch_size: Pairs per batch.
    """
    steps = len(order) // batch_size
    if not steps:
        return 0.0
    rows = np.sort(videos[order[: steps * batch_size]].reshape(steps, batch_size), axis=1)
    same = rows[:, 1:] == rows[:, :-1]
    twice = np.zeros(rows.shape, dtype=bool)
    twice[:, 1:] |= same
    twice[:, :-1] |= same
    return float(twice.mean())


def of_epoch(
    videos: NDArray[np.int64], batch_size: int, seed: int, epoch: int, *, separate: bool
) -> NDArray[np.int64]:
    """The epoch's order of pairs: :func:`separated_order` or :func:`epoch_order`."""
    if separate:
        return separated_order(videos, batch_size, seed, epoch)
    return epoch_order(len(videos), seed, epoch)


def owners(captions: Sequence[int]) -> NDArray[np.int64]:
    """The number of each pair's video, from the number of captions of each video."""
    return np.repeat(np.arange(len(captions)), captions)


def steps_per_epoch(pairs: int, batch_size: int) -> int:
    """Complete batches in an epoch; the remaining pairs, different in each epoch, are dropped.

    Raises:
        ValueError: fewer pairs than one batch.
    """
    if pairs < batch_size:
        raise ValueError(
            f"train.batch_size is {batch_size}, but training has {pairs} pairs of caption and video; "
            f"lower it to at most {pairs}"
        )
    return pairs // batch_size


def batch_of(order: NDArray[np.int64], step: int, batch_size: int) -> NDArray[np.int64]:
    """The pairs of one step of the epoch, over all workers."""
    return order[step * batch_size : (step + 1) * batch_size]


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, epoch]))
