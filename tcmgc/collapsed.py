"""The collapsed form of the language-video attention block, for texts x videos at a time.

Everything after the two matrix products (queries x keys and columns x outputs) is arithmetic with
videos as the last axis. For a query's weights ``a`` over the states of one video and a text vector
``w`` (a column), with roots R from :class:`tcmgc.attention.CollapsedVideos`:

    1 / s² = |a R_attended|² + eps                                   LN2's variance (Eq. 6)
    1 / t² = |s a R_mixed + r_c|² + eps                              LN3's variance (Eq. 7)
    1 / l² = |s t a R_output + t r_c' + r_b|²                        the result's length
    z.w / |z| = l (s t a.(outputs w) + t (c g3).w + b3.w)
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tcmgc.attention import CollapsedVideos, LanguageVideoAttention
from tcmgc.features import _Batched
from tcmgc.lanes import contract


@dataclass(frozen=True)
class CollapsedTexts(_Batched):
    """The text's side of the block: queries that attend, columns that results are compared with."""

    queries: Float[Tensor, "texts queries dim"]
    """Projected and scaled (Eq. 2, 8)."""
    columns: Float[Tensor, "texts columns dim"]
    constant: Float[Tensor, "texts columns"]
    """Products of the columns with the block's constant."""
    bias: Float[Tensor, "texts columns"]
    """Products of the columns with the last layer norm's bias."""


@dataclass(frozen=True)
class Lanes:
    """Collapsed videos laid out for :func:`products`: videos innermost."""

    keys: Float[Tensor, "heads head_dim frames_x_videos"]
    outputs: Float[Tensor, "dim states_x_videos"]
    attended_root: Float[Tensor, "states states videos"]
    mixed_root: Float[Tensor, "states_1 states_1 videos"]
    output_root: Float[Tensor, "states_2 states_2 videos"]
    absent: Bool[Tensor, "frames videos"]
    """True for frames that take no part."""


def collapse_texts(
    attention: LanguageVideoAttention,
    queries: Float[Tensor, "texts queries dim"],
    columns: Float[Tensor, "texts columns dim"],
) -> CollapsedTexts:
    """The text's side, once per text. Differentiable."""
    gain, bias = attention.norm_output.weight, attention.norm_output.bias
    return CollapsedTexts(
        queries=attention.project(queries),
        columns=columns,
        constant=columns @ (attention.mixed_constant() * gain),
        bias=columns @ bias,
    )


def lay_out(videos: CollapsedVideos, heads: int) -> Lanes:
    """Turn a record around: videos innermost."""

    def turn(x: Tensor) -> Tensor:
        return x.permute(1, 2, 0).contiguous()

    keys = videos.keys.unflatten(-1, (heads, -1)).permute(2, 3, 1, 0)
    return Lanes(
        keys=keys.flatten(2).contiguous(),
        outputs=videos.outputs.permute(2, 1, 0).flatten(1).contiguous(),
        attended_root=turn(videos.attended_root),
        mixed_root=turn(videos.mixed_root),
        output_root=turn(videos.output_root),
        absent=~videos.frame_mask.T,
    )


def products(
    texts: CollapsedTexts, videos: Lanes, eps: tuple[float, float]
) -> Float[Tensor, "texts queries columns videos"]:
    """Products of normalised results with columns, for every query and column of every pair.

    Args:
        texts: the text's side.
        videos: the video's side.
        eps: of the second and the third layer norm.
    """
    logits = attention_logits(texts.queries, videos)
    sides = projections(texts.columns, videos)
    weights, constant, bias = pooled(logits, videos, eps)
    found = contract(weights, sides)
    found = found + constant.unsqueeze(2) * texts.constant[:, None, :, None]
    return found + bias.unsqueeze(2) * texts.bias[:, None, :, None]


def attention_logits(
    queries: Float[Tensor, "texts queries dim"], videos: Lanes
) -> Float[Tensor, "texts queries heads frames videos"]:
    """The first matrix product."""
    heads, count = len(videos.keys), videos.absent.shape[1]
    rows = queries.flatten(0, 1)
    if heads == 1:
        logits = (rows @ videos.keys[0])[:, None]
    else:
        logits = (rows.unflatten(-1, (heads, -1)).transpose(0, 1) @ videos.keys).transpose(0, 1)
    return logits.unflatten(2, (-1, count)).unflatten(0, queries.shape[:2])


def projections(
    columns: Float[Tensor, "texts columns dim"], videos: Lanes
) -> Float[Tensor, "texts columns states videos"]:
    """The second matrix product."""
    found = columns.flatten(0, 1) @ videos.outputs
    return found.unflatten(1, (-1, videos.absent.shape[1])).unflatten(0, columns.shape[:2])


def pooled(
    logits: Float[Tensor, "texts queries heads frames videos"],
    videos: Lanes,
    eps: tuple[float, float],
) -> tuple[
    Float[Tensor, "texts queries states videos"],
    Float[Tensor, "texts queries videos"],
    Float[Tensor, "texts queries videos"],
]:
    """Attention weights with all norms taken in (s t l a), and what constant and bias count (t l, l)."""
    weights = logits.masked_fill(videos.absent, float("-inf")).softmax(3).flatten(2, 3)

    def along(root: Tensor, first: int) -> Tensor:
        rows = weights.flatten(0, 1)[None]
        return contract(rows, root[first:].transpose(0, 1)[None]).view(
            *weights.shape[:2], -1, weights.shape[3]
        )

    s = (along(videos.attended_root, 0).square().sum(2) + eps[0]).rsqrt()
    mixed = along(videos.mixed_root, 1) * s.unsqueeze(2) + videos.mixed_root[0]
    t = (mixed.square().sum(2) + eps[1]).rsqrt()
    output = along(videos.output_root, 2) * (s * t).unsqueeze(2)
    output = output + t.unsqueeze(2) * videos.output_root[1] + videos.output_root[0]
    length = output.square().sum(2).clamp_min(1e-24).rsqrt()
    return weights * (s * t * length).unsqueeze(2), t * length, length
