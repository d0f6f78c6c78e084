"""ISA, Bi-ISA, LSA and what stands in for them."""

import pytest
import torch

from tcmgc.heads.parts.aggregate import Bidirectional, Isa, ScoreAggregation, SoftmaxSum
from tcmgc.heads.parts.reorganise import Slots


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_linear_layers_start_as_identities_without_bias() -> None:
    for module in (Isa(4), ScoreAggregation(4)):
        assert [name for name, _ in module.named_parameters()] == ["weight"]
        assert torch.equal(module.weight, torch.eye(4))
    assert not list(SoftmaxSum(4).parameters())


@pytest.mark.parametrize("temperature", [1.0, 0.01])
def test_isa_by_hand(temperature: float) -> None:
    isa = Isa(3, temperature).double()
    with torch.no_grad():
        isa.weight += draw(3, 3)
    s = draw(3)
    weights = (isa.weight @ (s / temperature).softmax(0) / temperature).softmax(0)
    assert torch.allclose(isa(Slots(s[:, None], None), -2), weights @ s)
    assert torch.allclose(
        isa(Slots(s.view(1, 3, 1, 1).expand(2, 3, 4, 5), None), -3), (weights @ s).expand(2, 4, 5)
    )


def test_bi_isa_by_hand() -> None:
    both = Bidirectional(Isa, 2, 3).double()
    with torch.no_grad():
        for parameter in both.parameters():
            parameter += draw(*parameter.shape)
    matrix = draw(2, 3)

    def isa(step: Isa, s: torch.Tensor) -> torch.Tensor:
        return (step.weight @ s.softmax(0)).softmax(0) @ s

    words = torch.stack([isa(both.first_frames, column) for column in matrix.T])
    frames = torch.stack([isa(both.first_words, row) for row in matrix])
    expected = (isa(both.then_words, words) + isa(both.then_frames, frames)) / 2
    found = both(matrix.view(1, 2, 3, 1), None, None)
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("step", [Isa, SoftmaxSum])
def test_masked_slots_take_no_part(step: type) -> None:
    long, short = step(5).double(), step(3).double()
    s = draw(5, 2)
    mask = torch.tensor([True, True, True, False, False])[:, None]
    found = long(Slots(s.masked_fill(~mask, 0.0), mask), -2)
    assert torch.allclose(found, short(Slots(s[:3], None), -2))


def test_scores_to_one() -> None:
    s = draw(4, 2, 3)
    assert torch.allclose(ScoreAggregation(4, "mean")(s), s.mean(0))
    softmax = ScoreAggregation(4, "softmax")
    assert torch.allclose(softmax(s), (s.softmax(0) * s).sum(0))
    lsa = ScoreAggregation(4).double()
    with torch.no_grad():
        lsa.weight += draw(4, 4)
    weights = torch.einsum("ij,jtv->itv", lsa.weight, s).softmax(0)
    assert torch.allclose(lsa.weights(s, 7.0), weights)
    assert torch.allclose(lsa(s, 7.0), (weights * s).sum(0))
    on_logits = ScoreAggregation(4, on_logits=True).double()
    on_logits.load_state_dict(lsa.state_dict())
    assert torch.allclose(on_logits(s, 7.0) * 7.0, lsa(7.0 * s))


def test_gradcheck() -> None:
    both = Bidirectional(Isa, 2, 3, 0.5).double()
    assert torch.autograd.gradcheck(
        lambda x: both(x, None, None), draw(2, 2, 3, 2).requires_grad_()
    )
    lsa = ScoreAggregation(4, on_logits=True).double()
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lsa, (draw(4, 2, 2).requires_grad_(), scale))
