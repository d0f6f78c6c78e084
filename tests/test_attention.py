"""The language-video attention block and its collapse."""

import pytest
import torch
import torch.nn.functional as F

from tcmgc.config import Attention
from tcmgc.heads.parts.attention import LanguageVideoAttention, _root
from tcmgc.heads.parts.collapsed import collapse_texts, lay_out, products

DIM = 8


def block(**options: object) -> LanguageVideoAttention:
    generator = torch.Generator().manual_seed(0)
    attention = LanguageVideoAttention(Attention(**options), DIM).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).double()
    return attention


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_literal_block_by_hand() -> None:
    attention = block(heads=2)
    queries, frames = draw(1, 1, DIM), draw(1, 3, DIM) + 1
    mask = torch.tensor([[True, False, True]])
    q = attention.query(attention.norm_inputs(queries[0, 0]))
    seen = attention.norm_inputs(frames[0, [0, 2]])
    k, v = attention.key(seen), attention.value(seen)
    parts = []
    for h in (slice(0, 4), slice(4, 8)):
        weights = (k[:, h] @ q[h] / 2.0).softmax(0)
        parts.append(weights @ v[:, h])
    attended = attention.norm_attended(attention.out(torch.cat(parts)))
    expected = attention.norm_output(attention.linear(attended) + attended)
    assert torch.allclose(attention(queries, frames, mask)[0, 0, 0], expected)


def test_an_untrained_block_passes_features_on() -> None:
    attention = LanguageVideoAttention(Attention(), DIM).double()
    frame = F.layer_norm(draw(1, 1, DIM), (DIM,))
    found = attention(draw(1, 1, DIM), frame, torch.ones(1, 1, dtype=torch.bool))
    assert torch.allclose(found[0, 0], frame[0], atol=1e-4)


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("projections", [True, False])
def test_collapsed_products_equal_literal_ones(
    heads: int, residual: bool, projections: bool
) -> None:
    attention = block(heads=heads, residual=residual, projections=projections)
    queries, frames, columns = draw(3, 4, DIM), draw(2, 5, DIM), draw(3, 6, DIM)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    seen = F.normalize(attention(queries, frames, mask), dim=-1)
    expected = torch.einsum("tqvd,tcd->tqcv", seen, columns)
    found = products(
        collapse_texts(attention, queries, columns),
        lay_out(attention.collapse(frames, mask), heads),
        attention.eps,
    )
    assert (found - expected).abs().max() < 1e-10


def test_gradcheck_of_the_collapse() -> None:
    attention = block()
    mask = torch.tensor([[True, True, True], [True, False, True]])
    queries, frames = draw(2, 2, DIM).requires_grad_(), draw(2, 3, DIM).requires_grad_()

    def function(queries: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        texts = collapse_texts(attention, queries, F.normalize(queries, dim=-1))
        return products(texts, lay_out(attention.collapse(frames, mask), 1), attention.eps)

    assert torch.autograd.gradcheck(function, (queries, frames))


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_roots_keep_lengths_and_their_gradients_at_any_rank(rank: int) -> None:
    vectors = (draw(2, 5, rank) @ draw(2, rank, DIM)).requires_grad_()
    weights = draw(2, 1, 5)
    exact = (weights @ vectors).square().sum()
    root = _root(vectors)
    found = (weights @ root).square().sum()
    assert torch.allclose(found, exact, rtol=1e-10)
    (expected,) = torch.autograd.grad(exact, vectors)
    (gradient,) = torch.autograd.grad(found, vectors)
    assert (gradient - expected).abs().max() < 1e-6 * expected.abs().max()
    assert root.triu(1).abs().max() < 1e-6 * root.abs().max()


def test_a_length_that_cancels_is_small_and_not_negative() -> None:
    vectors = draw(1, 1, DIM).float() * torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1)
    length = (torch.tensor([0.5, 0.5, 0.0]) @ _root(vectors)[0]).square().sum()
    assert 0 <= length < 1e-12


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="must divide the width 8; got heads=3"):
        LanguageVideoAttention(Attention(heads=3), 8)
