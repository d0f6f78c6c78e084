"""TC-MGC's similarity in C++: float32 on CPU (``library.cpp`` lists the functions).

The source is compiled on first use, in a few seconds, into the user's cache folder.
Without a C++ compiler, or with ``TCMGC_NATIVE=0``, :func:`available` is False and torch's own
operations compute the same, more slowly.
"""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from tcmgc.config import GRAINS
from tcmgc.heads.native import structs
from tcmgc.heads.native.library import available, call, lanes, off
from tcmgc.heads.parts.attention import CollapsedVideos

__all__ = [
    "Contrasts",
    "Operands",
    "Rest",
    "Texts",
    "available",
    "lanes",
    "largest",
    "largest_backward",
    "off",
    "products",
    "scores",
    "scores_of_products",
    "together",
]


@dataclass(frozen=True)
class Contrasts:
    """How products become the contrasts' scores: the sizes and options of :class:`tcmgc.heads.TcMgc`."""

    grains: tuple[str, ...]
    kept_words: int
    kept_frames: int
    whole: int
    """Column of the products used by the video-sentence contrast."""
    local: int
    """First column of the products used by the frame-word contrast."""
    modes: Mapping[str, str]
    """Reorganisation of ``video_word``, ``sentence_frame``, ``frame_word_words``, ``frame_word_frames``."""
    masked: bool
    temperature: float
    matrices: dict[str, Tensor]
    """Of the aggregations: ``video_word``, ``sentence_frame``, ``first_frames``, ``then_words``,
    ``first_words``, ``then_frames``; a plain softmax replaces a missing one."""


@dataclass(frozen=True)
class Texts:
    """The texts' side of the comparison."""

    queries: Float[Tensor, "texts queries dim"]
    columns: Float[Tensor, "texts columns dim"]
    constant_side: Float[Tensor, "texts columns"]
    bias_side: Float[Tensor, "texts columns"]


@dataclass(frozen=True)
class Rest:
    """Inputs of the block other than its two matrix products."""

    attended: Float[Tensor, "states states videos"]
    mixed: Float[Tensor, "states_1 states_1 videos"]
    output: Float[Tensor, "states_2 states_2 videos"]
    offset: Float[Tensor, "frames videos"]
    constant_side: Float[Tensor, "texts columns"]
    bias_side: Float[Tensor, "texts columns"]
    eps: tuple[float, float]


@dataclass(frozen=True)
class Operands:
    """The two matrix products, in groups of :func:`lanes` videos."""

    logits: Float[Tensor, "texts queries heads frames_x_videos"]
    sides: Float[Tensor, "texts columns states_x_videos"]


def products(operands: Operands, rest: Rest) -> Float[Tensor, "texts queries columns videos"]:
    """The result of :func:`tcmgc.heads.parts.collapsed.products` from its matrix products. Differentiable once.

    Raises:
        MemoryError: not enough memory for one text and a few videos.
    """
    found: Tensor = _Products.apply(*_tensors(operands), *_tensors(rest), rest.eps)
    return found


def scores(
    texts: Texts,
    record: CollapsedVideos,
    contrasts: Contrasts,
    word_mask: Bool[Tensor, "texts words"],
    heads: int,
    eps: tuple[float, float],
) -> Float[Tensor, "grains texts videos"]:
    """Compute scores of the contrasts without storing products in memory. Not differentiable.

    Records are read in place: as separate tensors, or as parts of rows in a mapped file
    (:meth:`tcmgc.heads.RecordLayout.record`).

    Args:
        texts: in float32.
        record: in float32 or float16.
        contrasts: how products become scores.
        word_mask: True for words, False for padding.
        heads: of the attention.
        eps: of the second and the third layer norm.

    Raises:
        MemoryError: not enough memory for one text and a few videos.
    """
    given = structs.Texts.to(**(kept := _named(texts)))
    where, also_kept = _record(record)
    count, queries, dim = texts.queries.shape
    videos, frames = record.frame_mask.shape
    sizes = structs.Sizes(
        *(count, queries, texts.columns.shape[1], heads, frames, videos, dim),
        *(torch.get_num_threads(), *eps),
    )
    found = texts.queries.new_empty(len(contrasts.grains), count, videos)
    call("tcmgc_scores", sizes, given, where, *_plan(contrasts, word_mask), found)
    del kept, also_kept
    return found


def scores_of_products(
    operands: Operands, rest: Rest, contrasts: Contrasts, word_mask: Bool[Tensor, "texts words"]
) -> Float[Tensor, "grains texts videos"]:
    """:func:`scores` from both products in bfloat16. Not differentiable.

    Raises:
        MemoryError: not enough memory for one text and a few videos.
    """
    given, others = _named(operands), _named(rest)
    sizes = _sizes(given["logits"], given["sides"], others["offset"], rest.eps)
    videos = rest.offset.shape[1]
    found = rest.offset.new_empty(len(contrasts.grains), len(word_mask), videos)
    call(
        *("tcmgc_scores_bf16", sizes, structs.Products.to(**given), structs.Rest.to(**others)),
        *(*_plan(contrasts, word_mask), found),
    )
    return found


def largest(
    values: Float[Tensor, "outer size inner"], kept: int
) -> Float[Tensor, "outer kept inner"]:
    """The largest values along the middle axis, in descending order. Not differentiable."""
    values = values.contiguous()
    top = values.new_empty(len(values), kept, values.shape[2])
    call("tcmgc_largest", *_shape(values, kept), values, top)
    return top


def largest_backward(
    values: Float[Tensor, "outer size inner"],
    top: Float[Tensor, "outer kept inner"],
    grad: Float[Tensor, "outer kept inner"],
) -> Float[Tensor, "outer size inner"]:
    """The gradient of :func:`largest`."""
    values, top, grad = values.contiguous(), top.contiguous(), grad.contiguous()
    into = torch.empty_like(values)
    call("tcmgc_largest_backward", *_shape(values, top.shape[1]), values, top, grad, into)
    return into


def _shape(values: Tensor, kept: int) -> list[ctypes.c_int64]:
    outer, size, inner = values.shape
    return [ctypes.c_int64(n) for n in (outer, size, kept, inner, torch.get_num_threads())]


def together(x: Float[Tensor, "videos states *rest"]) -> Float[Tensor, "states_x_videos *rest"]:
    """Reorder to the library's order: groups of :func:`lanes` videos, videos innermost in each."""
    full = len(x) // lanes() * lanes()
    rest = x[full:].transpose(0, 1).flatten(0, 1)
    if not full:
        return rest
    blocks = x[:full].unflatten(0, (-1, lanes())).transpose(1, 2).flatten(0, 2)
    return torch.cat([blocks, rest]) if len(rest) else blocks


def _apart(
    x: Float[Tensor, " states_x_videos"], states: int, videos: int
) -> Float[Tensor, "states videos"]:
    """Undo :func:`together`, with videos innermost."""
    full = videos // lanes() * lanes() * states
    blocks = x[:full].reshape(-1, states, lanes()).transpose(0, 1).flatten(1)
    return torch.cat([blocks, x[full:].reshape(states, -1)], 1)


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, eps = arguments
        ctx.save_for_backward(*tensors)
        ctx.eps = eps
        sizes, operands, rest = _Products.given(tensors, eps)
        logits, sides, offset = tensors[0], tensors[1], tensors[5]
        found = logits.new_empty(*logits.shape[:2], sides.shape[1], offset.shape[1])
        call("tcmgc_products", sizes, operands, rest, found)
        return found

    @staticmethod
    def given(tensors: list[Tensor], eps: tuple[float, float]) -> tuple[Any, Any, Any]:
        """Arguments that the forward and backward passes have in common."""
        rest = dict(zip((name for name, _ in structs.Rest._fields_), tensors[2:], strict=True))
        return (
            _sizes(tensors[0], tensors[1], rest["offset"], eps),
            structs.Products.to(logits=tensors[0], sides=tensors[1]),
            structs.Rest.to(**rest),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors = list(ctx.saved_tensors)
        logits, sides, attended, mixed, output, offset, constant, bias = tensors
        blocks = -(-offset.shape[1] // lanes())
        into = [torch.empty_like(tensor) for tensor in (logits, sides, attended, mixed, output)]
        into += [side.new_empty(blocks, *side.shape) for side in (constant, bias)]
        grown = dict(zip((name for name, _ in structs.Grown._fields_), into, strict=True))
        grad = grad.contiguous()
        given = _Products.given(tensors, ctx.eps)
        call("tcmgc_products_backward", *given, grad, structs.Grown.to(**grown))
        of_offset = None
        if ctx.needs_input_grad[5]:
            of_offset = _apart(into[0].sum((0, 1, 2)), *offset.shape)
        return *into[:5], of_offset, into[5].sum(0), into[6].sum(0), None


def _named(given: Texts | Operands | Rest) -> dict[str, Tensor]:
    """Its tensors by name, contiguous as the library needs them."""
    values = {field.name: getattr(given, field.name) for field in fields(given)}
    return {name: value.contiguous() for name, value in values.items() if isinstance(value, Tensor)}


def _tensors(given: Operands | Rest) -> list[Tensor]:
    return list(_named(given).values())


def _record(record: CollapsedVideos) -> tuple[structs.Record, list[Tensor]]:
    """A record's addresses, and the tensors that must be kept alive for them."""
    tensors = {
        "keys": record.keys,
        "bias": record.key_bias,
        "outputs": record.outputs,
        "attended": record.attended_root,
        "mixed": record.mixed_root,
        "output": record.output_root,
        "mask": record.frame_mask,
    }
    half = record.keys.dtype == torch.float16
    number = torch.float16 if half else torch.float32
    for name, tensor in tensors.items():
        tensor = tensor.to(torch.bool if name == "mask" else number)
        if len(tensor) and not tensor[0].is_contiguous():
            tensor = tensor.contiguous()
        tensors[name] = tensor
    pointers = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    apart = {f"{name}_apart": tensor.stride(0) for name, tensor in tensors.items()}
    return structs.Record(**pointers, **apart, half=half), list(tensors.values())


def _plan(contrasts: Contrasts, word_mask: Tensor) -> tuple[Any, ...]:
    """Contrasts, matrices and mask in the library's form."""
    modes = ("none", "remove", "fuse")
    plan = structs.Contrasts(
        words=word_mask.shape[1],
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
    matrices = {name: matrix.contiguous() for name, matrix in contrasts.matrices.items()}
    by = structs.Aggregations.to(**matrices)
    by.kept = matrices
    return plan, by, word_mask.contiguous()


def _sizes(
    logits: Tensor, sides: Tensor, offset: Tensor, eps: tuple[float, float]
) -> structs.Sizes:
    texts, queries, heads, _ = logits.shape
    frames, videos = offset.shape
    threads = torch.get_num_threads()
    return structs.Sizes(*(texts, queries, sides.shape[1], heads, frames, videos, 0, threads), *eps)
