"""Random numbers by seed: their distribution, and that nothing but the seed decides them."""

import pytest
import torch

from tcmgc.towers import draws

MASK = (1 << 64) - 1


def splitmix(state: int, count: int) -> list[int]:
    """SplitMix64 with Python's integers."""
    numbers = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        numbers.append(z ^ (z >> 31))
    return numbers


def test_uniform_is_splitmix64() -> None:
    # The first number of state 1234567 is SplitMix64's published test value.
    assert splitmix(1234567, 1) == [6457827717110365317]
    for state in (0, 1234567, -5):
        expected = [number >> 40 for number in splitmix(state & MASK, 5)]
        drawn = draws.uniform(torch.tensor([state]), 5)[0] * 2**24
        assert drawn.tolist() == expected


def test_moments() -> None:
    seeds = draws.seeds(3, torch.arange(400))
    uniform = draws.uniform(seeds, 1000).double()
    assert uniform.min() >= 0
    assert uniform.max() < 1
    # 400,000 numbers: five standard errors.
    assert abs(uniform.mean() - 0.5) < 5 * (1 / 12) ** 0.5 / 632
    assert abs(uniform.var() - 1 / 12) < 5 * 0.0745 / 632
    normal = draws.normal(seeds, 1000).double()
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(normal.pow(power).mean() - moment) < 5 * spread**0.5 / 632
    below = (normal < torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])[:, None, None]).double()
    expected = torch.special.ndtr(torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]))
    assert torch.allclose(below.mean((1, 2)), expected.double(), atol=5 * 0.5 / 632)


@pytest.mark.parametrize("draw", [draws.uniform, draws.normal])
def test_neighbours_are_uncorrelated(draw) -> None:
    """Along an item's numbers, across items with neighbouring seeds, across streams of one item."""
    numbers = draw(torch.arange(300), 300).double()
    numbers = (numbers - numbers.mean()) / numbers.std()
    other = draw(draws.seeds(torch.arange(300), 1), 300).double()
    other = (other - other.mean()) / other.std()
    pairs = (
        (numbers[:, 1:], numbers[:, :-1]),
        (numbers[1:], numbers[:-1]),
        (numbers[:, 2:], numbers[:, :-2]),
        (numbers, other),
        (numbers.square() - 1, other.square() - 1),
    )
    for a, b in pairs:
        assert abs((a * b).mean()) < 5 * 2 / 300


@pytest.mark.parametrize("draw", [draws.uniform, draws.normal])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 5)])
def test_an_item_draws_the_same_in_any_batch(draw, shape: tuple[int, ...]) -> None:
    seeds = draws.seeds(7, 12, torch.arange(10))
    whole = draw(seeds, *shape)
    assert whole.shape == (10, *shape)
    order = torch.tensor([9, 0, 4])
    assert torch.equal(draw(seeds[order], *shape), whole[order])
    assert torch.equal(draw(seeds.view(2, 5), *shape), whole.view(2, 5, *shape))


def test_seeds_depend_on_every_part_and_their_order() -> None:
    many = draws.seeds(torch.arange(20)[:, None, None], torch.arange(20)[:, None], torch.arange(20))
    assert len(many.unique()) == 8000
    assert draws.seeds(1, 2).item() == draws.seeds(torch.tensor([1]), 2).item()
    assert torch.equal(draws.seeds(5, 6, torch.arange(3)), many.new_tensor([
        draws.seeds(5, 6, index).item() for index in range(3)
    ]))  # fmt: skip
    assert draws.seeds(-1).item() != draws.seeds(1).item()


def test_dropout_keeps_the_mean_and_the_share() -> None:
    x = torch.ones(200, 500)
    out = draws.dropout(x, 0.3, torch.arange(200))
    assert abs((out == 0).double().mean() - 0.3) < 5 * 0.46 / 316
    assert torch.allclose(out[out != 0], torch.tensor(1 / 0.7))
    assert torch.equal(draws.dropout(x, 0.0, torch.arange(200)), x)
    assert torch.equal(draws.dropout(x[3:5], 0.3, torch.arange(3, 5)), out[3:5])


def test_no_generator_of_torch_is_touched() -> None:
    before = torch.get_rng_state()
    draws.normal(draws.seeds(1, torch.arange(3)), 4)
    assert torch.equal(torch.get_rng_state(), before)
