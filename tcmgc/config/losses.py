"""Options of the training loss (Eq. 33-37), and of terms on features."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from tcmgc.config.heads import HeadOptions
from tcmgc.config.options import Kind, require


class TermOptions(Kind):
    """Options of a term that sees the whole batch's features; ``module`` is built as ``Module(options)``."""

    default: ClassVar[str] = "NoTerm"

    def check(self, head: HeadOptions) -> None:
        """Raise a ValueError if the term does not fit the head."""

    def small(self) -> "TermOptions":
        """The term for small towers that start from random weights: the same."""
        return self


@dataclass(frozen=True, kw_only=True)
class NoTerm(TermOptions):
    """No such term."""


@dataclass(frozen=True, kw_only=True)
class ChannelDecorrelation(TermOptions):
    """DRL's term: channels of matching text and video features correlate with themselves, not each other."""

    module: ClassVar[str] = "tcmgc.training.decorrelation:ChannelDecorrelation"

    of: Literal["weighted_tokens", "tokens", "pooled"] = "weighted_tokens"
    """Which features: each real word with its best frame and each real frame with its best word, weighted as in the
    head (`cdcr` 3 of the authors' code) or equally (2); or sentences with means of frames (1)."""
    weight: float = 0.001
    """Weight of the term in the loss; `cdcr_lambda`."""
    diagonal: float = 0.16
    """Weight of the difference between a channel's own correlation and 1; `cdcr_alpha1`."""
    rest: float = 0.0
    """Weight of all other correlations; `cdcr_alpha2`."""
    as_published: bool = False
    """The best frame or word may be padding, whose products count as 0, as in the authors' code;
    the default searches real ones only."""

    def __post_init__(self) -> None:
        for name in ("weight", "diagonal", "rest"):
            value = getattr(self, name)
            require(value >= 0, f"loss.term.{name} must not be negative; got {value}")

    def small(self) -> "ChannelDecorrelation":
        """A ten-thousandth of the weight: from random weights, more of it keeps DRL from learning.

        On the demo, DRL's R@1 on the validation split after an epoch is 39 % with it, 44 % without the
        term, 2 % with a thousandth and 1 % with the whole weight.
        """
        return replace(self, weight=self.weight / 10_000)

    def check(self, head: HeadOptions) -> None:
        """Raise a ValueError if the term needs weights of tokens and the head has none."""
        require(
            self.of != "weighted_tokens" or head.weighs_tokens,
            f"loss.term.of is weighted_tokens, and {type(head).__name__} weighs no tokens; set it to tokens or pooled",
        )


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A contrastive loss on scores, similarity decorrelation, and a term on features."""

    contrast: Literal["info_nce", "sigmoid"] = "info_nce"
    """Symmetric InfoNCE (Equations 33-35), or SigLIP's sigmoid loss over all pairs of the batch."""
    each_score: bool = False
    """Contrast each of the head's scores separately and add the losses, instead of contrasting the similarity: with
    the sigmoid loss only (Video-ColBERT's dual sigmoid loss)."""
    alpha: float = 0.5
    """Weight of SDR; 0 disables it."""
    sdr_pairs: Literal["positives", "negatives", "all"] = "positives"
    """Pairs whose similarities are decorrelated (Table A.1)."""
    sdr_biased: bool = False
    """Variance divided by n instead of n - 1."""
    sdr_on_logits: bool = False
    """Decorrelate similarities after the logit scale, as the released code does."""
    directions: Literal["sum", "mean"] = "sum"
    """Add up both directions of InfoNCE, as the paper, or take their mean."""
    mask_same_video: bool = False
    """Exclude a pair's own video from its negatives if the batch contains it several times."""
    scale: float = 100.0
    """lambda, or its initial value if it is learnt."""
    learn_scale: bool = False
    """Learn the scale instead of keeping it."""
    max_scale: float = 100.0
    """A learnt scale is clamped here after every step."""
    bias: float = 0.0
    """Initial value of the learnt bias that the sigmoid loss adds to logits; SigLIP starts at -10."""
    term: TermOptions = field(default_factory=NoTerm)

    def __post_init__(self) -> None:
        require(self.alpha >= 0, f"loss.alpha must not be negative; got {self.alpha}")
        require(
            not self.each_score or self.contrast == "sigmoid",
            "loss.each_score goes with loss.contrast sigmoid; got info_nce",
        )
        require(self.scale > 0, f"loss.scale must be above 0; got {self.scale}")
        require(
            not self.learn_scale or self.scale <= self.max_scale,
            f"loss.scale ({self.scale}) starts above loss.max_scale ({self.max_scale})",
        )

    def small(self) -> "Loss":
        """The loss for small towers that start from random weights, and small batches.

        A bias starts at -3 at the lowest: about the log-odds that a pair of a batch of 32 matches.
        """
        return replace(self, bias=max(self.bias, -3.0), term=self.term.small())
