"""Arithmetic over many videos side by side: every tensor here has videos as its last axis.

A pair's matrices are tiny (33 x 12, 33 x 33), too small for matrix products one pair at a time.
With videos innermost, every step is plain arithmetic over contiguous memory for any sizes.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tcmgc.heads import native

_CACHED = 2**17
"""Accumulated numbers that fit in a core's cache."""


def contract(
    x: Float[Tensor, "texts rows inner videos"], y: Float[Tensor, "texts2 columns inner videos"]
) -> Float[Tensor, "texts rows columns videos"]:
    """One small matrix product ``x y^T`` for every text and video.

    `y` may have one text only, shared by all of `x`.
    """
    return _Contract.apply(x, y) if torch.is_grad_enabled() else _contract(x, y)


def _contract(x: Tensor, y: Tensor) -> Tensor:
    left, right = x.unsqueeze(2), y.unsqueeze(1)
    if torch.compiler.is_compiling():
        return (left * right).sum(3)
    shape = torch.broadcast_shapes(left.shape, right.shape)
    out = x.new_empty(*shape[:3], shape[4])
    # Some rows at a time, so that their partial sums stay in cache.
    step = max(1, _CACHED // max(1, shape[2] * shape[4]))
    for text in range(shape[0]):
        columns = right[min(text, len(right) - 1)].unbind(2)
        for start in range(0, shape[1], step):
            part = out[text, start : start + step]
            rows = left[text, start : start + step].unbind(2)
            torch.mul(rows[0], columns[0], out=part)
            for row, column in zip(rows[1:], columns[1:], strict=True):
                part.addcmul_(row, column)
    return out


class _Contract(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return _contract(x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, y = ctx.saved_tensors
        into_x = _contract(grad, y.transpose(1, 2)) if ctx.needs_input_grad[0] else None
        into_y = None
        if ctx.needs_input_grad[1]:
            if len(y) == 1:
                # A long sum into a small result: one matrix product per video.
                into_y = torch.einsum("tqcv,tqfv->cfv", grad, x)[None]
            else:
                into_y = _contract(grad.transpose(1, 2), x.transpose(1, 2))
        return into_x, into_y


def largest(x: Tensor, count: int, dim: int) -> Tensor:
    """The `count` largest values along `dim`, in descending order.

    Values pass a fixed network of minima and maxima, so there are no indices. The gradient of a
    kept value goes to its source; equal values share it evenly.

    Args:
        x: any shape; -inf means "masked".
        count: at least 1, at most the size of `dim`.
        dim: the axis to choose along.
    """
    if torch.is_grad_enabled():
        return _Largest.apply(x, count, dim)
    return _largest(x, count, dim)


def _largest(x: Tensor, count: int, dim: int) -> Tensor:
    dim = dim % x.ndim
    if native.available(x) and dim < x.ndim - 1 and not torch.compiler.is_compiling():
        kept = native.largest(_middle(x, dim), count)
        return kept.view(*x.shape[:dim], count, *x.shape[dim + 1 :])
    return torch.stack(network(list(x.unbind(dim)), count), dim)


def _middle(x: Tensor, dim: int) -> Float[Tensor, "outer size inner"]:
    """Merge all axes before `dim` into one, and all axes after it."""
    return x.reshape(math.prod(x.shape[:dim]), x.shape[dim], math.prod(x.shape[dim + 1 :]))


class _Largest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int, dim: int) -> Tensor:
        kept = _largest(x, count, dim)
        ctx.dim = dim
        ctx.save_for_backward(x, kept)
        return kept

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, kept = ctx.saved_tensors
        dim = ctx.dim % x.ndim
        if native.available(x) and dim < x.ndim - 1:
            parts = (_middle(part, dim) for part in (x, kept, grad))
            return native.largest_backward(*parts).view(x.shape), None, None
        into = torch.zeros_like(x)
        for value, flow in zip(kept.split(1, dim), grad.split(1, dim), strict=True):
            same = (x == value).to(x.dtype)
            into += same * (flow / same.sum(dim, keepdim=True))
        return into, None, None


def network(values: list[Tensor], count: int) -> list[Tensor]:
    """The `count` largest of `values`, element by element, in descending order.

    Small counts use an insertion network (2 count - 1 operations per value); larger ones sort blocks
    by Batcher's odd-even merge sort and merge the blocks' tops bitonically.
    """
    if count <= 4 or len(values) < 8:
        return _insertion(values, count)
    block = 1 << (count - 1).bit_length()
    top: list[Tensor] = []
    for start in range(0, len(values), block):
        ordered = _sorted_block(values[start : start + block])
        top = _merge_tops(top, ordered, block) if top else ordered
    return top[:count]


def _insertion(values: list[Tensor], count: int) -> list[Tensor]:
    top: list[Tensor] = []
    for value in values:
        for i, kept in enumerate(top):
            if i == count - 1:
                top[i] = torch.maximum(kept, value)
                break
            top[i], value = torch.maximum(kept, value), torch.minimum(kept, value)
        else:
            if len(top) < count:
                top.append(value)
    return top


def _order(values: list[Tensor], high: int, low: int) -> None:
    """Put the larger of two values first; positions past the end count as -inf."""
    if max(high, low) < len(values):
        a, b = values[high], values[low]
        values[high], values[low] = torch.maximum(a, b), torch.minimum(a, b)


def _sorted_block(values: list[Tensor]) -> list[Tensor]:
    """Batcher's odd-even merge sort in descending order, for any length."""
    values = list(values)
    size = len(values)
    levels = max(1, math.ceil(math.log2(size))) if size > 1 else 0
    p = 1
    for _ in range(levels):
        k = p
        while k >= 1:
            for j in range(k % p, size - k, 2 * k):
                for i in range(min(k, size - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        _order(values, i + j, i + j + k)
            k //= 2
        p *= 2
    return values


def _merge_tops(first: list[Tensor], second: list[Tensor], block: int) -> list[Tensor]:
    """The `block` largest of two descending lists, in descending order; the first list is full."""
    merged = [
        torch.maximum(value, second[block - 1 - i]) if block - 1 - i < len(second) else value
        for i, value in enumerate(first)
    ]
    half = block // 2
    while half:
        for start in range(0, block, 2 * half):
            for i in range(start, start + half):
                _order(merged, i, i + half)
        half //= 2
    return merged
