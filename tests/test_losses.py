"""InfoNCE and similarity decorrelation."""

import pytest
import torch

from tcmgc.training.losses import info_nce, info_nce_directions, similarity_decorrelation


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_info_nce_by_hand() -> None:
    s = draw(4, 4)
    e = (s * 5.0).exp()
    to_video = -(e.diagonal() / e.sum(1)).log().mean()
    to_text = -(e.diagonal() / e.sum(0)).log().mean()
    found = info_nce_directions(s, 5.0)
    assert torch.allclose(torch.stack(found), torch.stack([to_video, to_text]))
    assert torch.allclose(info_nce(s, 5.0), to_video + to_text)
    assert torch.allclose(info_nce(s, 5.0, "mean"), (to_video + to_text) / 2)


def test_info_nce_does_not_overflow_and_learns_the_scale() -> None:
    scale = torch.tensor(1000.0, requires_grad=True)
    loss = info_nce(10 * torch.eye(3), scale)
    assert loss.isfinite()
    (gradient,) = torch.autograd.grad(info_nce(draw(3, 3), scale), scale)
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
    assert torch.autograd.gradcheck(lambda x: info_nce(x, 3.0), s)
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
