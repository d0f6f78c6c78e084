"""Run a function directly or compiled; it is compiled on first use."""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

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

    Warn once if it does not.
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
    """Allow one function to be compiled for more shapes than torch's default of 8."""
    with torch._dynamo.config.patch(recompile_limit=64):
        yield
