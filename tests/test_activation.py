import open_clip
import pytest
import torch
from torch import Tensor

from tcmgc.towers import backbone
from tcmgc.towers.activation import QuickGELU


def _value_and_gradient(function, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    value = function(x)
    (value * torch.arange(1.0, 1 + x.numel(), dtype=x.dtype).view_as(x)).sum().backward()
    assert x.grad is not None
    return value.detach(), x.grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_it_is_open_clips_function_as_exactly(dtype: torch.dtype):
    torch.manual_seed(0)
    x = torch.cat([10 * torch.randn(500), torch.tensor([0.0, 80.0, -80.0])]).to(dtype)
    theirs = open_clip.transformer.QuickGELU()
    true = _value_and_gradient(theirs, x.double())
    value, gradient = _value_and_gradient(QuickGELU(), x)
    other_value, other_gradient = _value_and_gradient(theirs, x)
    assert torch.equal(value, other_value)
    assert gradient.dtype == dtype
    error, usual = ((g - true[1]).abs().max() for g in (gradient, other_gradient))
    assert error <= 2 * usual + 1e-13  # float64 is its own measure


def test_the_formula_and_its_derivatives():
    torch.manual_seed(0)
    x = torch.randn(7, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(QuickGELU()(x), x * torch.sigmoid(1.702 * x))
    assert torch.autograd.gradcheck(QuickGELU(), (x,))


def test_the_towers_keep_half_as_much_of_it():
    saved: dict[str, int] = {}
    x = torch.randn(64, 64, requires_grad=True)
    for name, module in (("ours", QuickGELU()), ("theirs", open_clip.transformer.QuickGELU())):
        kept: dict[int, int] = {}

        def keep(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            module(x)
        saved[name] = sum(kept.values())
    assert saved["ours"] * 2 <= saved["theirs"]
    towers = backbone.load_towers("demo", None)[:2]
    kinds = {type(m) for tower in towers for m in tower.modules() if "GELU" in type(m).__name__}
    assert kinds == {QuickGELU}
