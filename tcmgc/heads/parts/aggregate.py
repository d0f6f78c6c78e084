"""Aggregation: ISA and Bi-ISA (Eq. 18-30), the softmax-weighted sum, LSA (Eq. 31-32).

Videos are the last axis of all vectors and matrices.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tcmgc.heads.parts.reorganise import Slots


class Isa(nn.Module):
    """Interactive similarity aggregation of one axis (Eq. 18-21).

    ``w = softmax(f(softmax(s / τ)) / τ)``, ``sum(w s)``, with f a linear layer without bias that
    starts as the identity; τ is 1 in the paper. Masked slots take no part.
    """

    def __init__(self, size: int, temperature: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(size))
        self.temperature = temperature

    def forward(self, slots: Slots, dim: int) -> Tensor:
        """Aggregate `dim` (counted from the end) away."""
        values, mask = slots
        relevance = _softmax(values / self.temperature, mask, dim)
        mixed = _linear(self.weight, relevance, dim)
        weights = _softmax(mixed / self.temperature, mask, dim)
        return (weights * values).sum(dim)


class SoftmaxSum(nn.Module):
    """Softmax-weighted sum of one axis (Table 4's aggregation): ``sum(softmax(s / τ) s)``."""

    def __init__(self, size: int, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, slots: Slots, dim: int) -> Tensor:
        """Aggregate `dim` (counted from the end) away."""
        values, mask = slots
        return (_softmax(values / self.temperature, mask, dim) * values).sum(dim)


class Bidirectional(nn.Module):
    """Aggregation of a frames x words matrix in both orders, averaged (Eq. 22-30).

    With :class:`Isa` this is Bi-ISA; each of the four steps has its own weights.
    """

    def __init__(
        self,
        step: type[Isa] | type[SoftmaxSum],
        frames: int,
        words: int,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.first_frames = step(frames, temperature)
        """f_l3"""
        self.then_words = step(words, temperature)
        """f_l4"""
        self.first_words = step(words, temperature)
        """f_l5"""
        self.then_frames = step(frames, temperature)
        """f_l6"""

    def forward(
        self,
        matrix: Float[Tensor, "texts frames words videos"],
        frame_mask: Tensor | None,
        word_mask: Tensor | None,
    ) -> Float[Tensor, "texts videos"]:
        """The score of each pair.

        Args:
            matrix: similarities.
            frame_mask: broadcasts to [texts, frames, 1, videos]; None: no frame is padding.
            word_mask: broadcasts to [texts, 1, words, videos]; None: no word is padding.
        """
        along_words = self.first_frames(Slots(matrix, frame_mask), -3)
        along_frames = self.first_words(Slots(matrix, word_mask), -2)
        words = None if word_mask is None else word_mask.squeeze(-3)
        frames = None if frame_mask is None else frame_mask.squeeze(-2)
        return 0.5 * (
            self.then_words(Slots(along_words, words), -2)
            + self.then_frames(Slots(along_frames, frames), -2)
        )


class ScoreAggregation(nn.Module):
    """Combine the scores of the contrasts into one (Section 3.6).

    ``lsa``: ``w = softmax(f(s))``, ``sum(w s)`` with f a linear layer without bias that starts as
    the identity (Eq. 31-32); ``softmax``: the same without f; ``mean``.

    Args:
        size: number of contrasts.
        kind: ``lsa``, ``softmax`` or ``mean``.
        on_logits: compute weights from similarities x logit scale, as TC-MGC's released code does.
    """

    def __init__(
        self,
        size: int,
        kind: Literal["lsa", "softmax", "mean"] = "lsa",
        on_logits: bool = False,
    ) -> None:
        super().__init__()
        self.kind, self.on_logits = kind, on_logits
        self.weight = nn.Parameter(torch.eye(size)) if kind == "lsa" else None

    def weights(
        self, scores: Float[Tensor, "grains *pairs"], scale: Tensor | float = 1.0
    ) -> Float[Tensor, "grains *pairs"]:
        """The weight of each contrast for each pair."""
        if self.kind == "mean":
            return torch.full_like(scores, 1 / len(scores))
        logits = scores * scale if self.on_logits else scores
        if self.weight is not None:
            logits = torch.tensordot(self.weight, logits, 1)
        return logits.softmax(0)

    def forward(
        self, scores: Float[Tensor, "grains *pairs"], scale: Tensor | float = 1.0
    ) -> Float[Tensor, "*pairs"]:
        """The similarity of each pair; `scale` matters with `on_logits` only."""
        return (self.weights(scores, scale) * scores).sum(0)


def _softmax(x: Tensor, mask: Tensor | None, dim: int) -> Tensor:
    if mask is None:
        return x.softmax(dim)
    return x.masked_fill(~mask, float("-inf")).softmax(dim)


def _linear(weight: Tensor, x: Tensor, dim: int) -> Tensor:
    """Apply a matrix along one axis."""
    if dim == -2:
        return weight @ x
    return torch.einsum("ij,tjwv->tiwv", weight, x)
