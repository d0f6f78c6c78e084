"""A pair's similarities from all products of its words and frames, which are never all in memory.

Without gradients, in float32 on a CPU, :mod:`tcmgc.heads.native` computes and uses the products of one
text and a few videos in the processor's cache; otherwise torch holds those of a tile.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tcmgc.heads.native import available
from tcmgc.heads.native import interactions as native

Padding = Literal["excluded", "zero"]


def in_cache(words: Tensor) -> bool:
    """Whether products with these words are computed and used in the processor's cache.

    If so, a head may process any number of videos together (:meth:`tcmgc.heads.Head.as_stored`), with
    frames in float32 or float16, and a pair needs no memory other than its scores.
    """
    return available(words) and not torch.is_grad_enabled()


def max_interaction(
    words: Float[Tensor, "texts words dim"],
    word_weights: Float[Tensor, "texts words"],
    frames: Float[Tensor, "videos frames dim"],
    frame_weights: Float[Tensor, "videos frames"] | None = None,
    word_mask: Bool[Tensor, "texts words"] | None = None,
    frame_mask: Bool[Tensor, "videos frames"] | None = None,
    padding: Padding = "excluded",
) -> Float[Tensor, "sides texts videos"]:
    """Each word with its best frame, and each frame with its best word. Differentiable.

    With ``x[w, f]`` the product of word w and frame f of a pair, the first side is
    ``sum over w of word_weights[w] max over f of x[w, f]``, the second
    ``sum over f of frame_weights[f] max over w of x[w, f]``. Weighted token-wise interaction (DRL)
    is the mean of both; MeanMaxSim (Video-ColBERT) is the first with equal weights.

    Args:
        words: as they are compared, usually L2-normalised.
        word_weights: of each word, 0 for padding.
        frames: as they are compared.
        frame_weights: of each frame, 0 for padding; None omits the second side.
        word_mask: True for words that take part; None: all do.
        frame_mask: True for frames that take part; None: all do.
        padding: ``excluded``: maxima ignore masked words and frames. ``zero``: products with
            masked ones are 0, also in a maximum (DRL's published code).

    Returns:
        One or two sides.
    """
    if in_cache(words):
        zero = padding == "zero"
        return native.max_interaction(
            words, word_weights, frames, frame_weights, word_mask, frame_mask, zero
        )
    products = _products(words, frames)
    inside = None
    if word_mask is not None:
        inside = word_mask[:, :, None, None]
    if frame_mask is not None:
        inside = frame_mask.T if inside is None else inside & frame_mask.T
    if inside is not None:
        products = products.masked_fill(~inside, 0.0 if padding == "zero" else float("-inf"))
    best_frame = products.amax(2)
    if word_mask is not None:
        # A masked word has weight 0, and its maximum may be -inf.
        best_frame = best_frame.masked_fill(~word_mask.unsqueeze(2), 0.0)
    sides = [torch.einsum("tw,twv->tv", word_weights, best_frame)]
    if frame_weights is not None:
        best_word = products.amax(1)
        if frame_mask is not None:
            best_word = best_word.masked_fill(~frame_mask.T, 0.0)
        sides.append(torch.einsum("vf,tfv->tv", frame_weights.to(words.dtype), best_word))
    return torch.stack(sides)


def bidirectional(
    words: Float[Tensor, "texts words dim"],
    frames: Float[Tensor, "videos frames dim"],
    first_words: Float[Tensor, "words words"],
    then_frames: Float[Tensor, "frames frames"],
    first_frames: Float[Tensor, "frames frames"],
    then_words: Float[Tensor, "words words"],
    temperature: float,
    *,
    again: bool = False,
) -> Float[Tensor, "texts videos"]:
    """Attention over the products of words and frames, along one axis and then the other. Differentiable.

    An axis of values ``x`` is reduced to ``sum(weights * x)``, ``weights = softmax(x / temperature) A``
    for a matrix ``A`` of the axis (row vector times matrix), or, with `again`,
    ``weights = softmax(softmax(x / temperature) A / temperature)``. The products of a pair are
    reduced along words and then frames, and along frames and then words; the results are averaged.
    This is X-CLIP's attention over the similarity matrix, and with `again` UCoFiA's.

    Padding takes part, as in both methods' published code.

    Args:
        words: as they are compared.
        frames: as they are compared; any tokens of a video.
        first_words: matrix along words, before frames.
        then_frames: matrix along frames, after words.
        first_frames: matrix along frames, before words.
        then_words: matrix along words, after frames.
        temperature: of the softmaxes.
        again: a second softmax, after the matrix.
    """
    if in_cache(words):
        matrices = (first_words, then_frames, first_frames, then_words)
        return native.attended_products(words, frames, matrices, temperature, again)
    products = _products(words, frames)
    by_frame = _attended(products, first_words, 1, temperature, again)
    by_word = _attended(products, first_frames, 2, temperature, again)
    one = _attended(by_frame, then_frames, 1, temperature, again)
    other = _attended(by_word, then_words, 1, temperature, again)
    return (one + other) / 2


def attended_products(
    rows: Float[Tensor, "texts words dim"],
    columns: Float[Tensor, "videos frames dim"],
    matrix: Float[Tensor, "size size"],
    temperature: float,
    *,
    again: bool = False,
) -> Float[Tensor, "texts videos"]:
    """The same along one axis: many words and one vector per video, or one vector per text and many frames.

    Args:
        rows: of each text; one if there are many `columns`.
        columns: of each video; one if there are many `rows`.
        matrix: of the axis with many entries.
        temperature: of the softmaxes.
        again: a second softmax, after the matrix.

    Raises:
        ValueError: many rows and many columns.
    """
    if 1 not in (rows.shape[1], columns.shape[1]):
        raise ValueError(
            f"attended_products got {rows.shape[1]} rows a text and {columns.shape[1]} columns a "
            "video; one of the two must be 1 (bidirectional takes many of both)"
        )
    if in_cache(rows):
        return native.attended_products(rows, columns, (matrix,), temperature, again)
    return _attended(_products(rows, columns).flatten(1, 2), matrix, 1, temperature, again)


def _products(
    words: Float[Tensor, "texts words dim"], frames: Float[Tensor, "videos frames dim"]
) -> Float[Tensor, "texts words frames videos"]:
    """Products with videos innermost, so that later steps are arithmetic over contiguous memory."""
    columns = frames.to(words.dtype).transpose(0, 1)
    products = words.flatten(0, 1) @ columns.flatten(0, 1).mT
    return products.unflatten(1, columns.shape[:2]).unflatten(0, words.shape[:2])


def _attended(
    x: Float[Tensor, "texts *axes videos"],
    matrix: Float[Tensor, "size size"],
    dim: int,
    temperature: float,
    again: bool,
) -> Float[Tensor, "texts *rest videos"]:
    """Reduce one axis."""
    weights = (x / temperature).softmax(dim)
    if dim == x.ndim - 2:
        weights = matrix.T @ weights
    else:
        weights = torch.einsum("ij,ti...->tj...", matrix, weights)
    if again:
        weights = (weights / temperature).softmax(dim)
    return (weights * x).sum(dim)
