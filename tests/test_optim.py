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
        grad = grad * min(1.0, 1 / (grad.norm() + 1e-6))
        m = 0.9 * m + 0.1 * grad
        v = 0.98 * v + 0.02 * grad**2
        expected = expected - 0.1 * (m / (v.sqrt() + 1e-6) + 0.2 * expected)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-12, atol=1e-12)


def test_bert_adam_leaves_what_has_no_gradient():
    weight = nn.Parameter(torch.ones(2))
    optim.BertAdam([weight], lr=0.1).step()
    assert torch.equal(weight.detach(), torch.ones(2))


class Added(nn.Module):
    added = True

    def __init__(self):
        super().__init__()
        self.score = nn.Linear(2, 1, bias=False)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.text = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        self.visual = Added()
        self.head = nn.Linear(2, 2)
        self.head.bias.requires_grad_(False)
        self.scale = nn.Module()
        self.scale.log = nn.Parameter(torch.tensor(4.0))
        self.scale.bias = nn.Parameter(torch.tensor(-1.0))


DECAYING = {
    "matrices": {"text.0.weight", "visual.score.weight", "head.weight"},
    "all_but_biases": {"text.0.weight", "text.1.weight", "visual.score.weight", "head.weight", "scale.log"},
    "all": {"text.0.weight", "text.0.bias", "text.1.weight", "text.1.bias", "visual.score.weight", "head.weight", "scale.log", "scale.bias"},
}  # fmt: skip


@pytest.mark.parametrize("decay", DECAYING)
@pytest.mark.parametrize("kind", ["adam", "adamw", "hf_adamw"])
def test_groups_by_place_and_decay(kind, decay):
    model = Model()
    optimiser = optim.build_optimiser(model, Optim(kind=kind, decay=decay))
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in optimiser.param_groups
        for parameter in group["params"]
    }
    assert set(found) == set(names.values()) - {"head.bias"}
    assert {name for name, (_, share) in found.items() if share == 0.2} == DECAYING[decay]
    assert {name for name, (_, share) in found.items() if share == 0} == set(found) - DECAYING[
        decay
    ]
    # What a method adds inside a tower is new; the logit scale is CLIP's.
    clip = {"text.0.weight", "text.0.bias", "text.1.weight", "text.1.bias", "scale.log"}
    assert {name for name, (lr, _) in found.items() if lr == 1e-7} == clip
    assert {name for name, (lr, _) in found.items() if lr == 1e-4} == set(found) - clip


def test_nothing_to_train():
    with pytest.raises(ValueError, match="every weight is frozen"):
        optim.build_optimiser(nn.Identity(), Optim())


def rates(schedule, steps=100, warmup=0.1, **options):
    chosen = Optim(schedule=schedule, warmup=warmup, **options)
    return [optim.rate(step, steps, chosen) for step in range(steps)]


def test_our_rate_rises_then_falls_as_a_cosine():
    found = rates("cosine")
    assert found[:10] == [pytest.approx((i + 1) / 11) for i in range(10)]
    assert found[10] == 1.0
    assert found[55] == pytest.approx(0.5)
    assert all(a > b > 0 for a, b in itertools.pairwise(found[10:]))
    assert rates("cosine", warmup=0.0)[0] == 1.0


def test_bert_adams_cosine_starts_at_the_first_step_and_is_not_stretched():
    found = rates("warmup_cosine")
    assert found[:10] == [pytest.approx(i / 10) for i in range(10)]
    assert found[10] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.1)))  # .976
    assert found[50] == pytest.approx(0.5)


def test_transformers_cosine_rounds_its_warmup_down():
    found = rates("hf_cosine", steps=25)  # 2.5 steps of warm-up
    assert found[:3] == [0, 0.5, 1]
    assert found[3] == pytest.approx(0.5 * (1 + math.cos(math.pi / 23)))
    assert rates("hf_cosine", warmup=0.0)[0] == 1.0


def test_centerclips_cosine_does_not_round_and_never_falls_to_zero():
    found = rates("centerclip", steps=25, lr_new=1e-3)
    assert found[0] == pytest.approx(1e-5)
    assert found[1] == pytest.approx((1 / 2.5) * (1 - 1e-5) + 1e-5)
    assert found[3] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.5 / 22.5)))
    assert min(rates("centerclip", steps=100_000, lr_new=1e-3)) == pytest.approx(1e-5)
    assert rates("centerclip", warmup=0.0, lr_new=1e-3)[0] == 1.0
    assert rates("centerclip", lr_new=0.0) == [0.0] * 100


def test_transformers_adamw_follows_its_equations_and_goes_on_after_a_pause():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(3, 2, dtype=torch.float64))
    expected, m, v = weight.detach().clone(), torch.zeros(3, 2), torch.zeros(3, 2)
    optimiser = optim.HfAdamW([weight], lr=0.1, betas=(0.9, 0.999), eps=1e-2, weight_decay=0.2)
    for step in range(1, 6):
        grad = torch.randn(3, 2, dtype=torch.float64)
        weight.grad = grad.clone()
        optimiser.step()
        m = 0.9 * m + 0.1 * grad
        v = 0.999 * v + 0.001 * grad**2
        factor = math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        expected = expected - 0.1 * factor * m / (v.sqrt() + 1e-2)
        expected = expected - 0.1 * 0.2 * expected
        if step == 3:
            kept = optimiser.state_dict()
            optimiser = optim.HfAdamW(
                [weight], lr=0.1, betas=(0.9, 0.999), eps=1e-2, weight_decay=0.2
            )
            optimiser.load_state_dict(kept)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-12, atol=1e-12)


def test_rates_are_set_from_where_they_started():
    weight = nn.Parameter(torch.ones(1))
    optimiser = optim.BertAdam([{"params": [weight], "lr": 0.5}], lr=1.0)
    for factor in (0.1, 0.2):
        optim.set_rate(optimiser, factor)
        assert math.isclose(optimiser.param_groups[0]["lr"], 0.5 * factor)
