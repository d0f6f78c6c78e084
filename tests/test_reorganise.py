"""SR along an axis, and the networks that choose the largest values."""

import pytest
import torch

from tcmgc.heads.parts.lanes import contract, largest, network
from tcmgc.heads.parts.reorganise import Slots, reorganise, slot_count


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("size", [1, 2, 5, 7, 8, 12, 16, 31, 32, 33, 64, 77])
def test_networks_equal_topk(size: int) -> None:
    values = draw(size, 40)
    values[:, 20:] = values[:, 20:].mul(2).round()  # ties
    for count in {1, 2, 3, 4, 5, 6, 9, 16, 28, size - 1, size} & set(range(1, size + 1)):
        found = torch.stack(network(list(values), count))
        assert torch.equal(found, values.topk(count, dim=0).values), count


@pytest.mark.parametrize("count", [1, 3, 6])
def test_gradient_goes_where_values_came_from(count: int) -> None:
    values = draw(2, 7, 3).requires_grad_()
    flow = draw(2, count, 3)
    (found,) = torch.autograd.grad(largest(values, count, -2), values, flow)
    (expected,) = torch.autograd.grad(values.topk(count, dim=-2).values, values, flow)
    assert torch.equal(found, expected)
    assert torch.autograd.gradcheck(lambda x: largest(x, count, -2), values)


def test_equal_values_share_the_gradient() -> None:
    values = torch.tensor([1.0, 3.0, 1.0, 1.0, 2.0]).requires_grad_()
    (found,) = torch.autograd.grad(largest(values, 3, -1).sum(), values)
    assert torch.allclose(found, torch.tensor([1 / 3, 1.0, 1 / 3, 1 / 3, 1.0]))


def test_contract_and_its_gradient() -> None:
    x, y = draw(2, 3, 4, 5).requires_grad_(), draw(2, 6, 4, 5).requires_grad_()
    expected = torch.einsum("tqfv,tcfv->tqcv", x, y)
    assert torch.allclose(contract(x, y), expected)
    with torch.no_grad():
        assert torch.allclose(contract(x, y), expected)
    assert torch.autograd.gradcheck(contract, (x, y))
    shared = y[:1].detach().requires_grad_()
    assert torch.allclose(contract(x, shared), torch.einsum("tqfv,cfv->tqcv", x, shared[0]))
    assert torch.autograd.gradcheck(contract, (x, shared))


@pytest.mark.parametrize("dim", [-2, -3])
def test_modes_as_in_the_algorithms(dim: int) -> None:
    values = draw(2, 6, 5, 3)
    size = values.shape[dim]
    top = values.topk(2, dim=dim).values
    rest = values.topk(size - 2, dim=dim, largest=False).values
    fused = (rest.softmax(dim) * rest).sum(dim, keepdim=True)
    expected = {"none": values, "remove": top, "fuse": torch.cat([top, fused], dim)}
    for mode, wanted in expected.items():
        found = reorganise(Slots(values, None), mode, 2, dim)
        assert torch.allclose(found.values, wanted)
        assert found.mask is None
        assert found.values.shape[dim] == slot_count(size, mode, 2)


def test_fusion_counts_ties_across_the_cut() -> None:
    values = torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0]).double()[:, None]
    rest = torch.tensor([1.0, 1.0, 0.0]).double()
    expected = (rest.softmax(0) * rest).sum()
    found = reorganise(Slots(values, None), "fuse", 2, -2).values
    assert torch.allclose(found[:, 0], torch.stack([values[0, 0], values[1, 0], expected]))
    equal = reorganise(Slots(torch.ones(4, 1), None), "fuse", 2, -2).values
    assert torch.equal(equal, torch.ones(3, 1))


def test_fusion_of_values_far_below_the_cut_does_not_underflow() -> None:
    values = torch.tensor([500.0, 3.0, 2.0])[:, None].requires_grad_()
    fused = reorganise(Slots(values, None), "fuse", 1, -2).values[1, 0]
    rest = torch.tensor([3.0, 2.0])
    assert torch.allclose(fused, (rest.softmax(0) * rest).sum())
    assert torch.autograd.grad(fused, values)[0].isfinite().all()


def test_gradcheck_of_fusion() -> None:
    values = draw(2, 6, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: reorganise(Slots(x, None), "fuse", 2, -2).values, values
    )
    mask = torch.arange(6)[:, None] < torch.tensor([4, 2])[:, None, None]
    assert torch.autograd.gradcheck(
        lambda x: reorganise(Slots(x, mask), "fuse", 3, -2).values, values
    )


def test_nothing_left_fuses_to_zero() -> None:
    found = reorganise(Slots(draw(3, 2), None), "fuse", 3, -2).values
    assert found.shape == (4, 2)
    assert (found[3] == 0).all()


def test_masked_values_are_not_chosen() -> None:
    values = draw(4, 6, 2)
    counts = torch.tensor([6, 4, 3, 1])
    mask = torch.arange(6)[:, None] < counts[:, None, None]
    for mode in ("remove", "fuse"):
        found = reorganise(Slots(values, mask), mode, 3, -2)
        for text, count in enumerate(counts.tolist()):
            kept = min(3, count)
            alone = reorganise(Slots(values[text, :count], None), mode, kept, -2).values
            slots = found.mask[text, :, 0].nonzero().flatten().tolist()
            expected = list(range(kept)) + ([3] if mode == "fuse" and count > 3 else [])
            assert slots == expected
            assert torch.allclose(found.values[text, slots], alone[: len(slots)])
            assert (found.values[text, ~found.mask[text, :, 0]] == 0).all()
