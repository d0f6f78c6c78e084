"""Score normalisation: similarities corrected for items that are near to every query.

Each function takes scores as queries x gallery: texts x videos for text-to-video, the transpose
for video-to-text. All of them use scores of other queries, so their metrics are reported under
their own names in addition to the plain ones, never instead of them: :func:`dual_softmax` uses all
test queries, the other two use a bank of training queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tcmgc.heads import Head

NORMALISATIONS = {
    "dsl": "dual softmax over all test queries (CAMoE, TS2-Net)",
    "qb": "QB-norm, dynamic inverted softmax with a bank of training queries",
    "sk": "Sinkhorn bias from a bank of training queries, per contrast (UCoFiA)",
}
"""Normalisations, by the name of their columns."""

NEED_BANK = ("qb", "sk")
"""Those that need scores of training queries."""


@dataclass(frozen=True)
class Bank:
    """The head's scores of training queries against the test gallery, by contrast."""

    texts: Float[Tensor, "grains bank_texts videos"]
    """Training texts against test videos: for text-to-video."""
    videos: Float[Tensor, "grains texts bank_videos"]
    """Test texts against training videos: for video-to-text."""


def check(names: Sequence[str], *, bank: bool) -> None:
    """Refuse normalisations that cannot be computed, before any work.

    Args:
        names: Requested normalisations.
        bank: Whether there are training queries.

    Raises:
        ValueError: an unknown name, a repeated one, or one that needs a bank if there is none.
    """
    unknown = [name for name in names if name not in NORMALISATIONS]
    if unknown:
        raise ValueError(
            f"there is no normalisation {unknown[0]!r}; known are {', '.join(NORMALISATIONS)}"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"a normalisation is named twice: {', '.join(names)}")
    needing = [name for name in names if name in NEED_BANK]
    if needing and not bank:
        raise ValueError(
            f"normalisation {needing[0]!r} needs a bank of training queries, and there is none: "
            "give a data set whose training videos are there, or leave it out ('dsl' needs none)"
        )


def normalised(
    name: str,
    head: Head,
    scores: Float[Tensor, "grains texts videos"],
    scale: Tensor | float,
    bank: Bank | None = None,
) -> tuple[Float[Tensor, "texts videos"], Float[Tensor, "texts videos"]]:
    """Similarities of a test set under one normalisation: for text-to-video and for video-to-text.

    ``dsl`` and ``qb`` act on the similarity, ``sk`` on the logits of each contrast before the head
    combines them.

    Args:
        name: One of :data:`NORMALISATIONS`.
        head: Combines contrasts.
        scores: The head's scores of every text and video, without the logit scale.
        scale: The logit scale.
        bank: Scores of training queries, which ``qb`` and ``sk`` need.

    Raises:
        ValueError: as :func:`check`, or a bank that does not fit.
    """
    check([name], bank=bank is not None)
    if name == "dsl":
        logits = head.combine(scores, scale) * scale
        return dual_softmax(logits), dual_softmax(logits.T).T
    assert bank is not None
    if name == "qb":
        similarity = head.combine(scores, scale)
        texts, videos = (head.combine(one, scale) for one in (bank.texts, bank.videos))
        return query_bank(similarity, texts), query_bank(similarity.T, videos.T).T
    factors = head.factors(scale)
    of_videos = _biases(list(bank.texts), factors)
    of_texts = _biases([grain.T for grain in bank.videos], factors)
    return (
        head.combine(scores + of_videos.unsqueeze(1), scale),
        head.combine(scores + of_texts.unsqueeze(2), scale),
    )


def _biases(
    banks: Sequence[Float[Tensor, "bank gallery"]], factors: Sequence[Tensor | float]
) -> Float[Tensor, "grains gallery"]:
    """Sinkhorn's biases of each contrast's logits, scaled for adding to its scores."""
    pairs = zip(banks, factors, strict=True)
    return torch.stack([sinkhorn_bias(bank * factor) / factor for bank, factor in pairs])


def dual_softmax(
    logits: Float[Tensor, "queries gallery"],
) -> Float[Tensor, "queries gallery"]:
    """Scores times the softmax, for each gallery item, over all queries.

    TS2-Net's ``sim * softmax(sim, dim=0)`` on similarities with their logit scale; its video-to-text
    column is computed from the same matrix, where this factor changes no ranking. Here the
    queries of video-to-text are the videos, as in CAMoE. The product assumes positive scores: a
    negative one becomes larger, not smaller, if its weight is small.

    Args:
        logits: Similarities times the logit scale.
    """
    return logits * logits.softmax(0)


def query_bank(
    similarity: Float[Tensor, "queries gallery"],
    bank: Float[Tensor, "bank items"],
    beta: float = 20.0,
    k: int = 1,
) -> Float[Tensor, "queries gallery"]:
    """QB-norm's dynamic inverted softmax (Bogolin et al., CVPR 2022), as logarithms.

    Gallery items among the ``k`` nearest of any bank query form the activation set. A query whose
    nearest item is in it gets ``beta s - log sum over the bank of exp(beta s)`` for each item,
    any other query ``beta s``. The published formula is the exponential of the former, and bare
    ``s`` for the latter; each row ranks the same.

    Args:
        similarity: Scores without the logit scale.
        bank: Scores of the bank's queries against the same gallery.
        beta: Inverse temperature, 20 in the paper.
        k: Nearest items of a bank query that count, 1 in the paper.

    Raises:
        ValueError: an empty bank, or one over another gallery.
    """
    _check_bank(bank, similarity.shape[1])
    gallery = similarity.shape[1]
    active = torch.zeros(gallery, dtype=torch.bool, device=bank.device)
    active[bank.topk(min(k, gallery), dim=1).indices.flatten()] = True
    affected = active[similarity.argmax(1)].unsqueeze(1)
    shift = (beta * bank).logsumexp(0)
    return beta * similarity - torch.where(affected, shift, torch.zeros_like(shift))


def sinkhorn_bias(
    bank: Float[Tensor, "bank gallery"], iterations: int = 4
) -> Float[Tensor, "gallery"]:
    """UCoFiA's bias per gallery item: Sinkhorn's algorithm lowers items near to many queries.

    With ``A = exp(X - max X)`` and ``b = 1 / column sums``, ``iterations`` times ``a = 1 / (A b)``,
    ``b = 1 / (a A)``; the bias is ``log_softmax(log b - max X)`` over the gallery. It is added to
    every query's logits. Computed with logarithms: the published form divides by 0 for a query whose
    logits are all some 100 below the largest.

    Args:
        bank: Logits of the bank's queries against the gallery.
        iterations: 4 in the published code.

    Raises:
        ValueError: an empty bank.
    """
    _check_bank(bank, bank.shape[1])
    logits = bank - bank.max()
    columns = -logits.logsumexp(0)
    for _ in range(iterations):
        rows = -(logits + columns).logsumexp(1)
        columns = -(logits + rows.unsqueeze(1)).logsumexp(0)
    return columns.log_softmax(0)


def _check_bank(bank: Tensor, gallery: int) -> None:
    if bank.shape[0] == 0:
        raise ValueError("the bank of training queries is empty: give it one query at least")
    if bank.shape[1] != gallery:
        raise ValueError(
            f"the bank's queries were scored against {bank.shape[1]} items, the test queries against "
            f"{gallery}: both need the same gallery"
        )
