"""Objectives on score matrices: InfoNCE (Eq. 33-35) and similarity decorrelation (Eq. 36)."""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def info_nce(
    similarity: Float[Tensor, "texts videos"],
    scale: Tensor | float,
    directions: Literal["sum", "mean"] = "sum",
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE over a batch whose i-th text belongs to its i-th video (Eq. 33-35).

    Args:
        similarity: texts x videos, unscaled.
        scale: lambda.
        directions: add the text-to-video and the video-to-text loss, or take their mean.
    """
    to_video, to_text = info_nce_directions(similarity, scale)
    total = to_video + to_text
    return total if directions == "sum" else total / 2


def info_nce_directions(
    similarity: Float[Tensor, "texts videos"], scale: Tensor | float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The text-to-video loss (Eq. 33) and the video-to-text loss (Eq. 34).

    Raises:
        ValueError: the matrix is not square.
    """
    _require_square(similarity, "similarity")
    logits = similarity * scale
    own = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, own), F.cross_entropy(logits.T, own)


def similarity_decorrelation(
    grains: Mapping[str, Float[Tensor, "texts videos"]],
    pairs: Literal["positives", "negatives", "all"] = "positives",
    biased: bool = False,
) -> Float[Tensor, ""]:
    """SDR: the variance over a pair's scores, averaged over pairs (Eq. 36, Table A.1).

    Args:
        grains: the scores of each contrast, texts x videos, the i-th text with the i-th video.
        pairs: matching pairs, all others, or both.
        biased: divide by the number of scores instead of that minus 1.

    Raises:
        ValueError: fewer than two contrasts, a matrix that is not square, or no pair of that kind.
    """
    if len(grains) < 2:
        raise ValueError(
            f"similarity decorrelation needs at least two contrasts; got {list(grains)}"
        )
    for name, scores in grains.items():
        _require_square(scores, name)
    variance = torch.stack(list(grains.values())).var(0, correction=0 if biased else 1)
    if pairs == "positives":
        return variance.diagonal().mean()
    if pairs == "all":
        return variance.mean()
    count = len(variance) * (len(variance) - 1)
    if count == 0:
        raise ValueError("similarity decorrelation of negatives needs at least two pairs; got 1")
    return (variance.sum() - variance.diagonal().sum()) / count


def _require_square(scores: Tensor, name: str) -> None:
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(
            f"{name} must be square, text i with video i; got shape {tuple(scores.shape)}"
        )
