"""Interactions of words and frames: pair by pair, in torch, and in C++."""

import itertools

import pytest
import torch
from torch import Tensor

from tcmgc.heads import native
from tcmgc.heads.parts.interactions import (
    Padding,
    attended_products,
    bidirectional,
    in_cache,
    max_interaction,
)

needs_compiler = pytest.mark.skipif(
    not native.available(torch.empty(0)), reason="needs a C++ compiler"
)
WAYS = ["torch", pytest.param("native", marks=needs_compiler)]


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator) / shape[-1] ** 0.25


def masks(items: int, size: int) -> Tensor:
    """Of several lengths, one with a gap."""
    lengths = torch.arange(items) % size + 1
    mask = torch.arange(size) < lengths[:, None]
    mask[-1, 0] = size == 1
    mask[-1, -1] = True
    return mask


def run(way: str, function, *arguments, **options):
    if way == "torch":
        return function(*arguments, **options)
    with torch.no_grad():
        low = [
            x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in arguments
        ]
        assert in_cache(low[0])
        return function(*low, **options)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("padding", ["excluded", "zero"])
@pytest.mark.parametrize("masked", [(), ("words",), ("frames",), ("words", "frames")])
@pytest.mark.parametrize("size", [(2, 7, 19, 5, 24), (5, 10, 33, 4, 16), (5, 1, 3, 6, 7)])
def test_max_interaction(
    way: str, padding: Padding, masked: tuple[str, ...], size: tuple[int, ...]
) -> None:
    t, w, v, f, dim = size
    words, frames = draw(t, w, dim), draw(v, f, dim, seed=1)
    # Lower, so that a zero of padding may be a maximum.
    words[..., 0], frames[..., 0] = 1.0, -1.5
    word_mask = masks(t, w) if "words" in masked else None
    frame_mask = masks(v, f) if "frames" in masked else None
    word_weights, frame_weights = draw(t, w).softmax(1), draw(v, f).softmax(1)
    if word_mask is not None:
        word_weights = word_weights * word_mask
    if frame_mask is not None:
        frame_weights = frame_weights * frame_mask
    found = run(
        way, max_interaction, words, word_weights, frames, frame_weights, word_mask, frame_mask,
        padding=padding,
    )  # fmt: skip
    expected = torch.zeros(2, t, v, dtype=torch.float64)
    for i, j in itertools.product(range(t), range(v)):
        inside = [
            [
                (word_mask is None or bool(word_mask[i, a]))
                and (frame_mask is None or bool(frame_mask[j, b]))
                for b in range(f)
            ]
            for a in range(w)
        ]
        outside = 0.0 if padding == "zero" else float("-inf")
        x = [
            [float(words[i, a] @ frames[j, b]) if inside[a][b] else outside for b in range(f)]
            for a in range(w)
        ]
        for a in range(w):
            if word_mask is None or word_mask[i, a]:
                expected[0, i, j] += word_weights[i, a] * max(x[a])
        for b in range(f):
            if frame_mask is None or frame_mask[j, b]:
                expected[1, i, j] += frame_weights[j, b] * max(row[b] for row in x)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < (1e-12 if way == "torch" else 2e-6)
    one = run(
        way, max_interaction, words, word_weights, frames, None, word_mask, frame_mask,
        padding=padding,
    )  # fmt: skip
    assert torch.equal(one, found[:1])


def attended(x: Tensor, matrix: Tensor, temperature: float, again: bool) -> Tensor:
    """Of one vector."""
    weights = torch.stack([(x / temperature).softmax(0) @ column for column in matrix.T])
    if again:
        weights = (weights / temperature).softmax(0)
    return sum(weight * value for weight, value in zip(weights, x, strict=True))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("size", [(2, 7, 19, 5, 24), (5, 10, 33, 4, 16), (6, 3, 5, 1, 8)])
def test_bidirectional(way: str, again: bool, size: tuple[int, ...]) -> None:
    t, w, v, f, dim = size
    words, frames = draw(t, w, dim) / 3, draw(v, f, dim, seed=1) / 3
    matrices = [torch.eye(n) + 0.3 * draw(n, n, seed=n) for n in (w, f, f, w)]
    found = run(way, bidirectional, words, frames, *matrices, 0.3, again=again)
    first_words, then_frames, first_frames, then_words = matrices
    for i, j in itertools.product(range(t), range(v)):
        x = words[i] @ frames[j].T
        by_frame = torch.stack([attended(x[:, b], first_words, 0.3, again) for b in range(f)])
        by_word = torch.stack([attended(x[a], first_frames, 0.3, again) for a in range(w)])
        expected = (
            attended(by_frame, then_frames, 0.3, again) + attended(by_word, then_words, 0.3, again)
        ) / 2
        assert abs(found[i, j] - expected) < (1e-12 if way == "torch" else 3e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("size", [(2, 7, 19, 1), (9, 1, 21, 5), (30, 3, 4, 1)])
def test_attended_products(way: str, again: bool, size: tuple[int, ...]) -> None:
    t, w, v, f = size
    rows, columns = draw(t, w, 12) / 3, draw(v, f, 12, seed=1) / 3
    matrix = draw(w * f, w * f)
    found = run(way, attended_products, rows, columns, matrix, 0.2, again=again)
    for i, j in itertools.product(range(t), range(v)):
        expected = attended((rows[i] @ columns[j].T).flatten(), matrix, 0.2, again)
        assert abs(found[i, j] - expected) < (1e-12 if way == "torch" else 3e-6)
    with pytest.raises(ValueError, match="one of the two must be 1"):
        attended_products(draw(2, 3, 4), draw(2, 3, 4), matrix, 0.2)


@needs_compiler
@pytest.mark.parametrize("texts", [2, 20])
def test_frames_in_float16_and_as_parts_of_rows(texts: int) -> None:
    rows = draw(40, 100).half()
    frames = rows[:, 10:80].unflatten(1, (5, 14))
    words, weights = draw(texts, 8, 14).float(), torch.full((texts, 8), 0.125)
    matrices = [draw(n, n).float() for n in (8, 5, 5, 8)]
    with torch.no_grad():
        found = (
            max_interaction(words, weights, frames),
            bidirectional(words, frames, *matrices, 0.5),
        )
        with native.off():
            expected = (
                max_interaction(words, weights, frames),
                bidirectional(words, frames, *matrices, 0.5),
            )
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < 1e-5 * other.abs().max()


def test_gradients_flow_through_both() -> None:
    words, frames = draw(3, 4, 6).requires_grad_(), draw(2, 5, 6, seed=1).requires_grad_()
    weights = draw(3, 4).softmax(1).requires_grad_()
    matrices = [draw(n, n).requires_grad_() for n in (4, 5, 5, 4)]
    mask = masks(3, 4)
    assert torch.autograd.gradcheck(
        lambda a, b, c: max_interaction(a, b, c, draw(2, 5), mask), (words, weights, frames)
    )
    assert torch.autograd.gradcheck(
        lambda *given: bidirectional(*given, 0.5, again=True), (words, frames, *matrices)
    )
