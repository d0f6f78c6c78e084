"""The collapsed form of the language-video attention block, for texts x videos at a time.

Everything after the two matrix products (queries x keys and columns x outputs) is arithmetic with
videos as the last axis. For a query's weights ``a`` over the states of one video and a text vector
``w`` (a column), with roots R from :class:`tcmgc.heads.parts.attention.CollapsedVideos`:

    1 / s² = |a R_attended|² + eps                                   LN2's variance (Eq. 6)
    1 / t² = |s a R_mixed + r_c|² + eps                              LN3's variance (Eq. 7)
    1 / l² = |s t a R_output + t r_c' + r_b|²                        the result's length
    z.w / |z| = l (s t a.(outputs w) + t (c g3).w + b3.w)
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tcmgc.heads import native
from tcmgc.heads.parts import memory
from tcmgc.heads.parts.attention import CollapsedVideos, LanguageVideoAttention
from tcmgc.heads.parts.compile import Run, eager
from tcmgc.heads.parts.lanes import contract
from tcmgc.towers.features import _Batched

_BLOCK = 16
"""Columns of a root that are processed together."""


@dataclass(frozen=True)
class CollapsedTexts(_Batched):
    """The text's side of the block: queries that attend, columns that results are compared with."""

    queries: Float[Tensor, "texts queries dim"]
    """Queries for the keys (Eq. 2, 8)."""
    columns: Float[Tensor, "texts columns dim"]
    constant: Float[Tensor, "texts columns"]
    """Products of the columns with the block's constant."""
    bias: Float[Tensor, "texts columns"]
    """Products of the columns with the last layer norm's bias."""
    seeds: Int[Tensor, "texts"] | None = None
    """Seeds of dropout, if dropout keeps the block from collapsing."""


@dataclass(frozen=True)
class Lanes:
    """Collapsed videos laid out for :func:`products`: videos innermost."""

    lanes: int
    """Videos per group in keys and outputs, for :mod:`tcmgc.heads.native`: all frames of the first
    group, then of the next. 0: all videos in one group, for torch."""
    keys: Float[Tensor, "heads frames_x_videos head_dim"]
    outputs: Float[Tensor, "states_x_videos dim"]
    attended_root: Float[Tensor, "states states videos"]
    mixed_root: Float[Tensor, "states_1 states_1 videos"]
    output_root: Float[Tensor, "states_2 states_2 videos"]
    offset: Float[Tensor, "frames videos"]
    """Added to the logits; -inf for masked frames."""


def collapse_texts(
    attention: LanguageVideoAttention,
    queries: Float[Tensor, "texts queries dim"],
    columns: Float[Tensor, "texts columns dim"],
) -> CollapsedTexts:
    """Compute the text's side, once per text. Differentiable."""
    gain, bias = attention.norm_output.weight, attention.norm_output.bias
    return CollapsedTexts(
        queries=attention.queries(queries),
        columns=columns,
        constant=columns @ (attention.mixed_constant() * gain),
        bias=columns @ bias,
    )


def lay_out(videos: CollapsedVideos, heads: int) -> Lanes:
    """Transpose a record so that videos are innermost."""

    def turn(x: Tensor) -> Tensor:
        return x.permute(1, 2, 0).contiguous()

    lanes = native.lanes() if native.available(videos.keys) else 0

    def together(x: Tensor) -> Tensor:
        return native.together(x) if lanes else x.transpose(0, 1).flatten(0, 1)

    return Lanes(
        lanes=lanes,
        keys=together(videos.keys.unflatten(-1, (heads, -1))).transpose(0, 1).contiguous(),
        outputs=together(videos.outputs),
        attended_root=turn(videos.attended_root),
        mixed_root=turn(videos.mixed_root),
        output_root=turn(videos.output_root),
        offset=videos.logit_offset().T.contiguous(),
    )


def rounded(prepared: Any) -> Any:
    """Texts or lanes with the operands of the two matrix products in bfloat16."""
    names = {"queries", "columns", "keys", "outputs"} & {f.name for f in fields(prepared)}
    return replace(prepared, **{name: getattr(prepared, name).bfloat16() for name in names})


def products(
    texts: CollapsedTexts, videos: Lanes, eps: tuple[float, float], run: Run = eager
) -> Float[Tensor, "texts queries columns videos"]:
    """Products of normalised results with columns, for every query and column of every pair.

    Args:
        texts: the text's side.
        videos: the video's side.
        eps: of the second and the third layer norm.
        run: how the parts are run, :func:`tcmgc.heads.parts.compile.eager` or ``compiled``.
    """
    given = operands(texts, videos)
    dtype = texts.constant.dtype
    logits, sides = given.logits.to(dtype), given.sides.to(dtype)
    if videos.lanes:
        return native.products(native.Operands(logits, sides), rest(texts, videos, eps))
    each = (-1, videos.offset.shape[1])
    weights = run(attention_weights, logits.unflatten(3, each), videos.offset)
    roots = videos.attended_root, videos.mixed_root, videos.output_root
    gain, constant, bias = run(norms, weights, *roots, *eps)
    sides = sides.unflatten(2, each)
    return run(combine, weights, sides, gain, constant, bias, texts.constant, texts.bias)


def operands(texts: CollapsedTexts, videos: Lanes) -> native.Operands:
    """The two matrix products, in the type of their factors."""
    return native.Operands(
        attention_logits(texts.queries, videos), projections(texts.columns, videos)
    )


def rest(texts: CollapsedTexts, videos: Lanes, eps: tuple[float, float]) -> native.Rest:
    """Inputs of the block other than the two matrix products."""
    return native.Rest(
        attended=videos.attended_root,
        mixed=videos.mixed_root,
        output=videos.output_root,
        offset=videos.offset,
        constant_side=texts.constant,
        bias_side=texts.bias,
        eps=eps,
    )


def attention_logits(
    queries: Float[Tensor, "texts queries dim"], videos: Lanes
) -> Float[Tensor, "texts queries heads frames_x_videos"]:
    """The first matrix product."""
    rows = queries.flatten(0, 1).unflatten(-1, (len(videos.keys), -1))
    return memory.products("logits", rows, videos.keys).unflatten(0, queries.shape[:2])


def projections(
    columns: Float[Tensor, "texts columns dim"], videos: Lanes
) -> Float[Tensor, "texts columns states_x_videos"]:
    """The second matrix product."""
    found = memory.products("sides", columns.flatten(0, 1)[:, None], videos.outputs[None])
    return found[:, 0].unflatten(0, columns.shape[:2])


def attention_weights(
    logits: Float[Tensor, "texts queries heads frames videos"],
    offset: Float[Tensor, "frames videos"],
) -> Float[Tensor, "texts queries states videos"]:
    """Eq. 5 and 9, with the heads' weights concatenated."""
    return (logits + offset).softmax(3).flatten(2, 3)


def norms(
    weights: Float[Tensor, "texts queries states videos"],
    attended_root: Float[Tensor, "states states videos"],
    mixed_root: Float[Tensor, "states_1 states_1 videos"],
    output_root: Float[Tensor, "states_2 states_2 videos"],
    attended_eps: float,
    mixed_eps: float,
) -> tuple[
    Float[Tensor, "texts queries videos"],
    Float[Tensor, "texts queries videos"],
    Float[Tensor, "texts queries videos"],
]:
    """Factors of weighted states, the constant and the last bias: s t l, t l and l."""
    rows = weights.flatten(0, 1)[None]
    shape = weights.shape[:2]

    def along(root: Tensor) -> Tensor:
        return _triangular(rows, root).unflatten(1, shape)[0]

    s = (along(attended_root).square().sum(2) + attended_eps).rsqrt()
    mixed = along(mixed_root[1:]) * s.unsqueeze(2) + mixed_root[0]
    t = (mixed.square().sum(2) + mixed_eps).rsqrt()
    output = along(output_root[2:]) * (s * t).unsqueeze(2)
    output = output + t.unsqueeze(2) * output_root[1] + output_root[0]
    length = output.square().sum(2).clamp_min(1e-24).rsqrt()
    return s * t * length, t * length, length


def combine(
    weights: Float[Tensor, "texts queries states videos"],
    sides: Float[Tensor, "texts columns states videos"],
    gain: Float[Tensor, "texts queries videos"],
    constant: Float[Tensor, "texts queries videos"],
    bias: Float[Tensor, "texts queries videos"],
    constant_side: Float[Tensor, "texts columns"],
    bias_side: Float[Tensor, "texts columns"],
) -> Float[Tensor, "texts queries columns videos"]:
    """``gain (weights . sides) + constant constant_side + bias bias_side``."""
    if torch.compiler.is_compiling():
        found = contract(weights, sides) * gain.unsqueeze(2)
        found = found + constant.unsqueeze(2) * constant_side[:, None, :, None]
        return found + bias.unsqueeze(2) * bias_side[:, None, :, None]
    # One contraction over two more states is cheaper than two more passes over its result.
    scaled = torch.cat([weights * gain.unsqueeze(2), constant.unsqueeze(2), bias.unsqueeze(2)], 2)
    extra = torch.stack([constant_side, bias_side], 2).unsqueeze(3)
    return contract(scaled, torch.cat([sides, extra.expand(-1, -1, -1, sides.shape[3])], 2))


def _triangular(
    rows: Float[Tensor, "1 rows states videos"], root: Float[Tensor, "states columns videos"]
) -> Float[Tensor, "1 rows columns videos"]:
    """``rows root`` for every video.

    Roots are lower triangular up to rounding. Without gradients, large ones are therefore multiplied
    in blocks of columns that skip the upper triangle. (Its gradient is not zero.)
    """
    states, columns = root.shape[:2]
    if torch.is_grad_enabled() or states <= _BLOCK:
        return contract(rows, root.transpose(0, 1)[None])
    parts = []
    for start in range(0, columns, _BLOCK):
        first = max(0, start - (columns - states))
        part = root[first:, start : start + _BLOCK].transpose(0, 1)[None]
        parts.append(contract(rows[:, :, first:], part))
    return torch.cat(parts, 2)
