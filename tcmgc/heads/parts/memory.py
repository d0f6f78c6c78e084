"""Memory for large intermediate results that is reused from tile to tile."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor


class _Kept(threading.local):
    results: dict[str, Tensor] | None = None


_kept = _Kept()


@contextmanager
def same_memory() -> Iterator[None]:
    """Inside this context, :func:`room` returns the same memory for the same name, in this thread.

    For short-lived results of many megabytes in every tile: newly allocated memory comes from
    the system page by page, which can cost a fifth of the time of the computation itself.
    """
    before, _kept.results = _kept.results, {}
    try:
        yield
    finally:
        _kept.results = before


def room(name: str, like: Tensor, size: int) -> Tensor:
    """Uninitialised memory for `size` numbers; see :func:`same_memory`."""
    if _kept.results is None:
        return like.new_empty(size)
    kept = _kept.results.get(name)
    if kept is None or len(kept) < size or kept.dtype != like.dtype or kept.device != like.device:
        kept = _kept.results[name] = like.new_empty(size)
    return kept[:size]


def products(
    name: str, rows: Float[Tensor, "rows heads dim"], columns: Float[Tensor, "heads columns dim"]
) -> Float[Tensor, "rows heads columns"]:
    """``rows columns^T`` of each head."""
    if torch.is_grad_enabled():
        if len(columns) == 1:
            return (rows[:, 0] @ columns[0].T).unsqueeze(1)
        return (rows.transpose(0, 1) @ columns.mT).transpose(0, 1)
    shape = (len(rows), *columns.shape[:2])
    result = room(name, rows, shape[0] * shape[1] * shape[2]).view(shape)
    for head, keys in enumerate(columns):
        torch.mm(rows[:, head], keys.T, out=result[:, head])
    return result
