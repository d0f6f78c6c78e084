"""Which pairs a step sees: a function of the seed and the epoch alone."""

import numpy as np
from numpy.typing import NDArray


def epoch_order(pairs: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of the pairs, the same on every machine and for any number of workers."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(pairs)


def steps_per_epoch(pairs: int, batch_size: int) -> int:
    """Whole batches in an epoch; the rest is left out, another one each epoch.

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
