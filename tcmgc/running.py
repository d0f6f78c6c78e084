"""How the pieces of a computation are run: as they are, or compiled when first used; and in whose memory."""

import ctypes
import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Run = Callable[..., Any]
"""Called with a function and its positional arguments."""


def eager(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the function."""
    return function(*arguments)


def compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the function's compiled form; compile it if these shapes are new."""
    return _compile(function)(*arguments)


@functools.lru_cache(maxsize=64)
def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    # Fused multiply-adds: half the instructions, and one rounding less.
    options: dict[str, str | int | bool | Callable[..., Any]] = {
        "cpp.enable_floating_point_contract_flag": "fast"
    }
    return torch.compile(function, dynamic=False, fullgraph=True, options=options)


@functools.cache
def can_compile(device: str) -> bool:
    """Whether torch.compile works here (it needs a C++ compiler, or Triton on a GPU).

    Where it does not, a warning says so, once.
    """
    try:
        torch.compile(torch.neg)(torch.ones(2, device=device))
    except Exception as error:
        warnings.warn(
            f"torch.compile does not work here ({type(error).__name__}), so scoring runs uncompiled: "
            "the same result, more slowly. A C++ compiler (g++) is what is usually missing.",
            stacklevel=2,
        )
        return False
    return True


@contextmanager
def many_shapes() -> Iterator[None]:
    """Let one function be compiled for more shapes than torch's default of 8."""
    with torch._dynamo.config.patch(recompile_limit=64):
        yield


class _Kept(threading.local):
    results: dict[str, Tensor] | None = None


_kept = _Kept()


@contextmanager
def same_memory() -> Iterator[None]:
    """Inside, each :func:`room` of a name is the same memory as the one before, in this thread.

    For results of many megabytes that are soon used up, tile after tile: memory that is asked for
    anew comes from the system page by page, which can cost a fifth of what is computed in it.
    """
    before, _kept.results = _kept.results, {}
    try:
        yield
    finally:
        _kept.results = before


def room(name: str, like: Tensor, size: int) -> Tensor:
    """Memory for `size` numbers, with anything in it; see :func:`same_memory`."""
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


def keep_freed_memory() -> None:
    """Let this process keep what it frees, instead of handing every large tensor back at once.

    glibc maps each allocation above 32 MB afresh, and the system fills it with zeros page by page.
    Where there is no glibc nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # of malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 * 2**20)
    # The arenas of other threads cannot hold a block above 64 MB; a worker's function is one.
    mallopt(arena_max, 1)
