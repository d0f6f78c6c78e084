"""Random numbers that are a function of seeds alone, for dropout and noise in training.

PyTorch's generators return numbers in the order of requests, so a pair's numbers would depend on
its worker, chunk or piece. Here every item has its own seed, and its n-th number is a hash of seed
and n, independent of where and with which other items it is computed. The hash is SplitMix64
(Steele, Lea, Flood 2014), in int64 arithmetic that wraps around.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

_GAMMA = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64: SplitMix64's step
_FIRST = -4658895280553007687  # 0xBF58476D1CE4E5B9
_SECOND = -7723592293110705685  # 0x94D049BB133111EB


def seeds(*parts: int | Int[Tensor, "*_"]) -> Int[Tensor, "*items"]:
    """One seed from several numbers; their order matters.

    ``seeds(run, step, torch.arange(4))`` are four items' seeds in a step, ``seeds(items, 1)``
    seeds of a second stream for the same items, ``seeds(texts[:, None], videos)`` seeds of pairs.

    Args:
        parts: Integers, or int64 tensors that broadcast; with integers only, the seed is on the CPU.
    """
    device = next((part.device for part in parts if isinstance(part, Tensor)), None)
    state = torch.zeros((), dtype=torch.int64, device=device)
    for part in parts:
        number = part if isinstance(part, Tensor) else torch.tensor(part, device=device)
        state = _mix((state + _GAMMA) ^ _mix(number.long() + _GAMMA))
    return state


def uniform(seeds: Int[Tensor, "*items"], *shape: int) -> Float[Tensor, "*items_and_shape"]:
    """Float32 numbers in [0, 1), multiples of 2^-24, bit-identical on every device.

    Args:
        seeds: One seed per item, of any shape (see :func:`seeds`).
        shape: Shape of the numbers of each item.

    Returns:
        A tensor of the seeds' shape followed by ``shape``.
    """
    bits = _hashes(seeds, math.prod(shape))
    numbers = _shift(bits, 40).to(torch.float32).mul_(2.0**-24)
    return numbers.view(*seeds.shape, *shape)


def normal(seeds: Int[Tensor, "*items"], *shape: int) -> Float[Tensor, "*items_and_shape"]:
    """Float32 numbers from the standard normal distribution, by Box and Muller; arguments as :func:`uniform`.

    The largest possible magnitude is 6.8. Devices differ in the rounding of their logarithm and
    cosine.
    """
    count = math.prod(shape)
    bits = _hashes(seeds, (count + 1) // 2)
    radius = _shift(bits, 32).to(torch.float32).add_(0.5).mul_(2.0**-32)
    radius = radius.log_().mul_(-2).sqrt_()
    angle = (bits & 0xFFFFFFFF).to(torch.float32).mul_(2 * math.pi * 2.0**-32)
    pairs = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1)
    return pairs.flatten(-2)[..., :count].reshape(*seeds.shape, *shape)


def dropout(x: Float[Tensor, "..."], rate: float, seeds: Int[Tensor, "*items"]) -> Tensor:
    """Set elements to zero with probability ``rate`` and divide the rest by ``1 - rate``.

    Args:
        x: Its first axes are those of ``seeds``.
        rate: In [0, 1).
        seeds: One seed per item.
    """
    kept = uniform(seeds, *x.shape[seeds.dim() :]) >= rate
    return x * kept.to(x.dtype).mul_(1 / (1 - rate))


def _hashes(seeds: Tensor, count: int) -> Tensor:
    steps = torch.arange(1, count + 1, device=seeds.device).mul_(_GAMMA)
    return _mix(seeds.long()[..., None] + steps)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _FIRST
    z = z.bitwise_xor_(_shift(z, 27)).mul_(_SECOND)
    return z.bitwise_xor_(_shift(z, 31))


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift; int64's own shift repeats the sign."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)
