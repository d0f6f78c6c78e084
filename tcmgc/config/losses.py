"""Options of the training loss (Eq. 33-37), and of terms that look at features."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from tcmgc.config.options import Kind, require


class TermOptions(Kind):
    """Options of a term that sees the whole batch's features; ``module`` is built as ``Module(options)``."""

    default: ClassVar[str] = "NoTerm"


@dataclass(frozen=True, kw_only=True)
class NoTerm(TermOptions):
    """No such term."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A contrastive loss on scores, similarity decorrelation, and a term on features."""

    contrast: Literal["info_nce", "sigmoid"] = "info_nce"
    """Symmetric InfoNCE (Eq. 33-35), or SigLIP's sigmoid loss over all pairs of the batch."""
    alpha: float = 0.5
    """Weight of SDR; 0 leaves it out."""
    sdr_pairs: Literal["positives", "negatives", "all"] = "positives"
    """Pairs whose similarities are decorrelated (Table A.1)."""
    sdr_biased: bool = False
    """Variance divided by n instead of n - 1."""
    sdr_on_logits: bool = False
    """Decorrelate similarities after the logit scale, as the released code does."""
    directions: Literal["sum", "mean"] = "sum"
    """Add up both directions of InfoNCE, as the paper, or take their mean."""
    mask_same_video: bool = False
    """Leave a pair's own video out of its negatives, where the batch holds it several times."""
    scale: float = 100.0
    """lambda, or its start where it is learnt."""
    learn_scale: bool = False
    """Learn the scale instead of keeping it."""
    max_scale: float = 100.0
    """A learnt scale is clamped here after every step."""
    bias: float = 0.0
    """Start of the learnt number that the sigmoid loss adds to logits; SigLIP starts at -10."""
    term: TermOptions = field(default_factory=NoTerm)

    def __post_init__(self) -> None:
        require(self.alpha >= 0, f"loss.alpha must not be negative; got {self.alpha}")
        require(self.scale > 0, f"loss.scale must be above 0; got {self.scale}")
        require(
            not self.learn_scale or self.scale <= self.max_scale,
            f"loss.scale ({self.scale}) starts above loss.max_scale ({self.max_scale})",
        )
