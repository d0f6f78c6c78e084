"""TC-MGC's similarity in C++: float32 on CPU (``pairs.cpp``).

The source is compiled when it is first needed, in a few seconds, into the user's cache folder.
Without a C++ compiler, or with ``TCMGC_NATIVE=0``, :func:`available` is False and the same is
computed by torch's own operations, more slowly.
"""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from tcmgc.config import GRAINS
from tcmgc.heads.native.library import available, lanes, library, off
from tcmgc.heads.parts.memory import room

__all__ = [
    "Contrasts",
    "Factors",
    "Operands",
    "Rest",
    "available",
    "lanes",
    "largest_backward",
    "off",
    "products",
    "scores",
    "together",
]

_AGGREGATIONS = (
    *("video_word", "sentence_frame"),
    *("first_frames", "then_words", "first_words", "then_frames"),
)


class _Sizes(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in (
                "texts",
                "queries",
                "columns",
                "heads",
                "frames",
                "videos",
                "dim",
                "threads",
            )
        ),
        ("attended_eps", ctypes.c_float),
        ("mixed_eps", ctypes.c_float),
    ]


class _Contrasts(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in (
                *("words", "kept_words", "kept_frames", "whole", "local"),
                *("video_word", "sentence_frame", "frame_word_words", "frame_word_frames"),
                *("masked", "count"),
                *(f"to_{grain}" for grain in GRAINS),
            )
        ),
        ("temperature", ctypes.c_float),
    ]


@dataclass(frozen=True)
class Contrasts:
    """How products become the contrasts' scores: the sizes and choices of :class:`tcmgc.heads.TcMgc`."""

    grains: tuple[str, ...]
    kept_words: int
    kept_frames: int
    whole: int
    """Column of the products that the video-sentence contrast reads."""
    local: int
    """First column of those that the frame-word contrast reads."""
    modes: Mapping[str, str]
    """Reorganisation of ``video_word``, ``sentence_frame``, ``frame_word_words``, ``frame_word_frames``."""
    masked: bool
    temperature: float
    matrices: dict[str, Tensor]
    """Of the aggregations: ``video_word``, ``sentence_frame``, ``first_frames``, ``then_words``,
    ``first_words``, ``then_frames``; a plain softmax where one is missing."""


@dataclass(frozen=True)
class Rest:
    """What the block needs besides its two matrix products."""

    attended_root: Float[Tensor, "states states videos"]
    mixed_root: Float[Tensor, "states_1 states_1 videos"]
    output_root: Float[Tensor, "states_2 states_2 videos"]
    offset: Float[Tensor, "frames videos"]
    constant_side: Float[Tensor, "texts columns"]
    bias_side: Float[Tensor, "texts columns"]
    eps: tuple[float, float]


@dataclass(frozen=True)
class Operands:
    """The two matrix products, with :func:`lanes` videos after the other."""

    logits: Float[Tensor, "texts queries heads frames_x_videos"]
    sides: Float[Tensor, "texts columns states_x_videos"]


@dataclass(frozen=True)
class Factors:
    """What they are the products of."""

    queries: Float[Tensor, "texts queries dim"]
    columns: Float[Tensor, "texts columns dim"]
    keys: Float[Tensor, "heads frames_x_videos head_dim"]
    outputs: Float[Tensor, "states_x_videos dim"]


def products(operands: Operands, rest: Rest) -> Float[Tensor, "texts queries columns videos"]:
    """What :func:`tcmgc.heads.parts.collapsed.products` gives after its matrix products. Differentiable once.

    Raises:
        MemoryError: no room for one text and a few videos.
    """
    found: Tensor = _Products.apply(*_tensors(operands), *_tensors(rest), rest.eps)
    return found


def scores(
    given: Factors | Operands,
    rest: Rest,
    contrasts: Contrasts,
    word_mask: Bool[Tensor, "texts words"],
) -> Float[Tensor, "grains texts videos"]:
    """Scores of the contrasts, without the normalised products ever in memory. Not differentiable.

    Args:
        given: Float32 factors, whose products then never are in memory either, or both products in
            bfloat16.
        rest: In float32.
        contrasts: What to make of them.
        word_mask: True for words, False for padding.

    Raises:
        MemoryError: no room for one text and a few videos.
    """
    texts, words = word_mask.shape
    modes = ("none", "remove", "fuse")
    record = _Contrasts(
        words=words,
        kept_words=contrasts.kept_words,
        kept_frames=contrasts.kept_frames,
        whole=contrasts.whole,
        local=contrasts.local,
        **{name: modes.index(mode) for name, mode in contrasts.modes.items()},
        masked=contrasts.masked,
        count=len(contrasts.grains),
        **{
            f"to_{grain}": contrasts.grains.index(grain) if grain in contrasts.grains else -1
            for grain in GRAINS
        },
        temperature=contrasts.temperature,
    )
    matrices = [contrasts.matrices.get(name) for name in _AGGREGATIONS]
    matrices = [None if matrix is None else matrix.contiguous() for matrix in matrices]
    mask = word_mask.contiguous()
    tensors, others = _tensors(given), _tensors(rest)
    videos = rest.offset.shape[1]
    if isinstance(given, Factors):
        name, heads, queries = "pairs_scores", len(given.keys), given.queries
        # Keys and outputs once more, as the products take them.
        padded = -(-videos // lanes()) * lanes() * queries.shape[2]
        states = rest.offset.shape[0] + rest.attended_root.shape[0]
        tensors.append(room("panels", rest.offset, padded * states))
    else:
        name, heads, queries = "pairs_scores_bf16", given.logits.shape[2], given.logits
    sizes = _sizes(queries.shape[1], heads, others, rest.eps, dim=queries.shape[-1])
    found = rest.offset.new_empty(len(contrasts.grains), texts, videos)
    _call(
        *(name, sizes, _pointers(tensors), _pointers(others)),
        *(ctypes.byref(record), _pointers(matrices), mask, found),
    )
    return found


def largest_backward(
    values: Float[Tensor, "outer size inner"],
    top: Float[Tensor, "outer kept inner"],
    grad: Float[Tensor, "outer kept inner"],
) -> Float[Tensor, "outer size inner"]:
    """The gradient of :func:`tcmgc.heads.parts.lanes.largest` along the middle axis."""
    values, top, grad = values.contiguous(), top.contiguous(), grad.contiguous()
    into = torch.empty_like(values)
    found = library()
    assert found is not None
    sizes = (*values.shape[:2], top.shape[1], values.shape[2], torch.get_num_threads())
    found.largest_backward(
        *(ctypes.c_int64(size) for size in sizes),
        *(ctypes.c_void_p(tensor.data_ptr()) for tensor in (values, top, grad, into)),
    )
    return into


def together(x: Float[Tensor, "videos states *rest"]) -> Float[Tensor, "states_x_videos *rest"]:
    """All states of the first :func:`lanes` videos, videos innermost, then of the next: the library's order."""
    full = len(x) // lanes() * lanes()
    rest = x[full:].transpose(0, 1).flatten(0, 1)
    if not full:
        return rest
    blocks = x[:full].unflatten(0, (-1, lanes())).transpose(1, 2).flatten(0, 2)
    return torch.cat([blocks, rest]) if len(rest) else blocks


def _apart(
    x: Float[Tensor, " states_x_videos"], states: int, videos: int
) -> Float[Tensor, "states videos"]:
    """What :func:`together` was given, videos innermost."""
    full = videos // lanes() * lanes() * states
    blocks = x[:full].reshape(-1, states, lanes()).transpose(0, 1).flatten(1)
    return torch.cat([blocks, x[full:].reshape(states, -1)], 1)


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, eps = arguments
        ctx.save_for_backward(*tensors)
        (logits, sides), rest = tensors[:2], tensors[2:]
        texts, queries, heads, _ = logits.shape
        ctx.sizes = _sizes(queries, heads, rest, eps)
        found = logits.new_empty(texts, queries, sides.shape[1], rest[3].shape[1])
        _call("pairs_forward", ctx.sizes, _pointers(tensors[:2]), _pointers(rest), found)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, sides, *rest = ctx.saved_tensors
        attended, mixed, output, offset, constant, bias = rest
        blocks = -(-offset.shape[1] // lanes())
        into = [torch.empty_like(tensor) for tensor in (logits, sides, attended, mixed, output)]
        into += [side.new_empty(blocks, *side.shape) for side in (constant, bias)]
        given = _pointers([logits, sides]), _pointers(rest)
        _call("pairs_backward", ctx.sizes, *given, grad.contiguous(), _pointers(into))
        of_offset = None
        if ctx.needs_input_grad[5]:
            of_offset = _apart(into[0].sum((0, 1, 2)), *offset.shape)
        return *into[:5], of_offset, into[5].sum(0), into[6].sum(0), None


def _tensors(given: Factors | Operands | Rest) -> list[Tensor]:
    """Its tensors as the library takes them: contiguous, in their order."""
    values = [getattr(given, field.name) for field in fields(given)]
    return [value.contiguous() for value in values if isinstance(value, Tensor)]


def _sizes(
    queries: int, heads: int, rest: Sequence[Tensor], eps: tuple[float, float], dim: int = 0
) -> Any:
    offset, constant = rest[3], rest[4]
    frames, videos = offset.shape
    threads = torch.get_num_threads()
    return ctypes.byref(
        _Sizes(
            *(len(constant), queries, constant.shape[1], heads, frames, videos, dim, threads), *eps
        )
    )


def _pointers(tensors: Sequence[Tensor | None]) -> Any:
    """A C struct of pointers."""
    return (ctypes.c_void_p * len(tensors))(
        *(None if tensor is None else tensor.data_ptr() for tensor in tensors)
    )


def _call(name: str, *arguments: Any) -> None:
    given = [
        ctypes.c_void_p(argument.data_ptr()) if isinstance(argument, Tensor) else argument
        for argument in arguments
    ]
    if getattr(library(), name)(*given):
        raise MemoryError("no memory left for TC-MGC's similarity of a text and a few videos")
