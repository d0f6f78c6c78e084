"""InfoNCE and similarity decorrelation."""

import pytest
import torch

from tcmgc.config import Loss
from tcmgc.towers.features import Scores
from tcmgc.training.losses import Objective, info_nce, sigmoid, similarity_decorrelation


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_info_nce_by_hand() -> None:
    s = draw(4, 4)
    e = (s * 5.0).exp()
    to_video = -(e.diagonal() / e.sum(1)).log().mean()
    to_text = -(e.diagonal() / e.sum(0)).log().mean()
    found = info_nce(s, 5.0)
    assert torch.allclose(torch.stack(found), torch.stack([to_video, to_text]))
    for directions, weight in (("sum", 1.0), ("mean", 0.5)):
        objective = Objective(Loss(alpha=0.0, directions=directions))  # type: ignore[arg-type]
        terms = objective(Scores(s, {}), torch.tensor(5.0), slice(0, 4))
        assert torch.allclose(terms["loss"], weight * (to_video + to_text))


def test_sigmoid_by_hand() -> None:
    s, own = draw(3, 3), torch.eye(3, dtype=torch.bool)
    chance = torch.sigmoid(5.0 * s - 2.0)
    expected = -(chance[own].log().sum() + (1 - chance[~own]).log().sum()) / 3
    assert torch.allclose(sigmoid(s, 5.0, -2.0), expected)


def test_shares_of_workers_add_up_to_the_whole() -> None:
    grains = {name: draw(5, 5) * i for i, name in enumerate("abcd", 1)}
    similarity, scale = draw(5, 5), torch.tensor(7.0)
    for options in (
        Loss(alpha=0.3, sdr_pairs="negatives", sdr_on_logits=True),
        Loss(alpha=0.3, sdr_pairs="all", sdr_biased=True, directions="mean"),
        Loss(contrast="sigmoid", alpha=0.0),
    ):
        objective = Objective(options)
        whole = objective(Scores(similarity, grains), scale, slice(0, 5))
        shares = [
            objective(
                Scores(similarity[mine], {name: grain[mine] for name, grain in grains.items()}),
                scale,
                mine,
                columns=similarity[:, mine],
            )
            for mine in (slice(0, 2), slice(2, 5))
        ]
        for name, value in whole.items():
            assert torch.allclose(shares[0][name] + shares[1][name], value), name


def test_each_score_has_a_sigmoid_loss_of_its_own() -> None:
    grains = {"one": draw(3, 3), "other": 2 * draw(3, 3)}
    objective = Objective(Loss(contrast="sigmoid", each_score=True, alpha=0.0))
    terms = objective(Scores(draw(3, 3), grains), torch.tensor(5.0), slice(0, 3), bias=-2.0)
    each = [sigmoid(grain, 5.0, -2.0) for grain in grains.values()]
    assert terms.keys() == {"loss", "sigmoid_one", "sigmoid_other"}
    assert torch.allclose(terms["loss"], each[0] + each[1])
    assert torch.allclose(terms["sigmoid_other"], each[1])


def test_a_video_that_comes_twice_is_no_negative_of_itself() -> None:
    s = draw(3, 3)
    same = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
    found = info_nce(s, 5.0, same=same)
    e = (s * 5.0).exp() * ~same
    assert torch.allclose(found[0], -(e.diagonal() / e.sum(1)).log().mean())
    assert torch.allclose(found[1], -(e.diagonal() / e.sum(0)).log().mean())
    own = torch.eye(3, dtype=torch.bool)
    chance = torch.sigmoid(5.0 * s)
    expected = -(chance[own].log().sum() + (1 - chance[~own & ~same]).log().sum()) / 3
    assert torch.allclose(sigmoid(s, 5.0, same=same), expected)


def test_info_nce_does_not_overflow_and_learns_the_scale() -> None:
    scale = torch.tensor(1000.0, requires_grad=True)
    assert all(loss.isfinite() for loss in info_nce(10 * torch.eye(3), scale))
    (gradient,) = torch.autograd.grad(sum(info_nce(draw(3, 3), scale)), scale)
    assert gradient != 0


@pytest.mark.parametrize("biased", [False, True])
def test_decorrelation_by_hand(biased: bool) -> None:
    grains = {name: draw(3, 3) * i for i, name in enumerate("abcd", 1)}
    stacked = torch.stack(list(grains.values()))
    deviation = (stacked - stacked.mean(0)).square().sum(0) / (4 if biased else 3)
    own = torch.eye(3, dtype=torch.bool)
    expected = {"positives": deviation[own], "negatives": deviation[~own], "all": deviation}
    for pairs, values in expected.items():
        assert torch.allclose(similarity_decorrelation(grains, pairs, biased), values.mean())


def test_gradcheck() -> None:
    s = draw(3, 3).requires_grad_()
    other = draw(3, 3)
    assert torch.autograd.gradcheck(lambda x: sum(info_nce(x, 3.0)), s)
    for pairs in ("positives", "negatives", "all"):
        assert torch.autograd.gradcheck(
            lambda x, p=pairs: similarity_decorrelation({"a": x, "b": other * x}, p), s
        )


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"similarity must be square.*\(2, 3\)"):
        info_nce(draw(2, 3), 1.0)
    with pytest.raises(ValueError, match="at least two contrasts; got \\['a'\\]"):
        similarity_decorrelation({"a": draw(2, 2)})
    with pytest.raises(ValueError, match=r"b must be square"):
        similarity_decorrelation({"a": draw(2, 2), "b": draw(2, 3)})
    with pytest.raises(ValueError, match="at least two pairs"):
        similarity_decorrelation({"a": draw(1, 1), "b": draw(1, 1)}, "negatives")
