"""The C++ side of :mod:`tcmgc.heads.parts.interactions`, which documents what is computed."""

import ctypes

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tcmgc.heads.native import structs
from tcmgc.heads.native.library import call


def max_interaction(
    words: Float[Tensor, "texts words dim"],
    word_weights: Float[Tensor, "texts words"],
    frames: Float[Tensor, "videos frames dim"],
    frame_weights: Float[Tensor, "videos frames"] | None,
    word_mask: Bool[Tensor, "texts words"] | None,
    frame_mask: Bool[Tensor, "videos frames"] | None,
    zero: bool,
) -> Float[Tensor, "sides texts videos"]:
    """Not differentiable; words and weights in float32, frames in float32 or float16."""
    words, frames = words.contiguous(), _rows(frames)
    pairs = _pairs(words, frames)
    weights = [None if x is None else x.float().contiguous() for x in (word_weights, frame_weights)]
    masks = [None if x is None else x.contiguous() for x in (word_mask, frame_mask)]
    given = structs.MaxInteraction.to(
        words=words,
        frames=frames,
        word_weights=weights[0],
        frame_weights=weights[1],
        word_mask=masks[0],
        frame_mask=masks[1],
    )
    scores = words.new_empty(1 if frame_weights is None else 2, len(words), len(frames))
    call("tcmgc_max_interaction", pairs, given, ctypes.c_int64(zero), scores)
    return scores


def attended_products(
    words: Float[Tensor, "texts words dim"],
    frames: Float[Tensor, "videos frames dim"],
    matrices: tuple[Tensor, ...],
    temperature: float,
    again: bool,
) -> Float[Tensor, "texts videos"]:
    """Not differentiable; in float32, frames also in float16.

    Args:
        words: of each text.
        frames: of each video.
        matrices: along words, then frames, and along frames, then words; or a single one, if only
            one axis has more than one entry.
        temperature: of the softmaxes.
        again: a second softmax after each matrix.
    """
    words, frames = words.contiguous(), _rows(frames)
    turned = [matrix.T.contiguous() for matrix in matrices]
    names = ("first_words", "then_frames", "first_frames", "then_words")
    given = structs.ProductAttention.to(
        words=words, frames=frames, **dict(zip(names, turned, strict=False))
    )
    scores = words.new_empty(len(words), len(frames))
    call(
        *("tcmgc_attended_products", _pairs(words, frames), given),
        *(ctypes.c_float(temperature), ctypes.c_int64(again), scores),
    )
    return scores


def _rows(frames: Tensor) -> Tensor:
    """Frames without a copy, if each video's are contiguous and of a type that the library reads."""
    if frames.dtype not in (torch.float32, torch.float16):
        frames = frames.float()
    return frames if not len(frames) or frames[0].is_contiguous() else frames.contiguous()


def _pairs(words: Tensor, frames: Tensor) -> structs.Pairs:
    return structs.Pairs(
        *(*words.shape[:2], *frames.shape, torch.get_num_threads(), frames.stride(0)),
        frames.dtype == torch.float16,
    )
