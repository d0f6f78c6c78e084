import itertools
import math

import pytest
import torch
from torch import nn

from tcmgc.config import Optim
from tcmgc.training import optim


def test_bert_adam_follows_its_equations():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(3, 2, dtype=torch.float64))
    expected, m, v = weight.detach().clone(), torch.zeros(3, 2), torch.zeros(3, 2)
    optimiser = optim.BertAdam([weight], lr=0.1, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2)
    for _ in range(5):
        grad = torch.randn(3, 2, dtype=torch.float64)
        weight.grad = grad.clone()
        optimiser.step()
        m = 0.9 * m + 0.1 * grad
        v = 0.98 * v + 0.02 * grad**2
        expected = expected - 0.1 * (m / (v.sqrt() + 1e-6) + 0.2 * expected)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-12, atol=1e-12)


def test_bert_adam_leaves_what_has_no_gradient():
    weight = nn.Parameter(torch.ones(2))
    optim.BertAdam([weight], lr=0.1).step()
    assert torch.equal(weight.detach(), torch.ones(2))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.text = nn.Linear(2, 2)
        self.head = nn.Linear(2, 2)
        self.head.bias.requires_grad_(False)


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_groups_by_place_and_decay(kind):
    optimiser = optim.build_optimiser(Two(), Optim(kind=kind))
    found = {
        group["name"]: (group["lr"], group["weight_decay"]) for group in optimiser.param_groups
    }
    assert found == {"clip": (1e-7, 0.2), "clip, no decay": (1e-7, 0.0), "new": (1e-4, 0.2)}


def test_nothing_to_train():
    with pytest.raises(ValueError, match="every weight is frozen"):
        optim.build_optimiser(nn.Identity(), Optim())


def test_the_rate_rises_then_falls_as_a_cosine():
    rates = [optim.rate(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == [pytest.approx((i + 1) / 11) for i in range(10)]
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert all(a > b > 0 for a, b in itertools.pairwise(rates[10:]))
    assert optim.rate(0, 100, 0.0) == 1.0


def test_rates_are_set_from_where_they_started():
    weight = nn.Parameter(torch.ones(1))
    optimiser = optim.BertAdam([{"params": [weight], "lr": 0.5}], lr=1.0)
    for factor in (0.1, 0.2):
        optim.set_rate(optimiser, factor)
        assert math.isclose(optimiser.param_groups[0]["lr"], 0.5 * factor)
