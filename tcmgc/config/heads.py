"""Options of heads in general and of TC-MGC's head; :mod:`tcmgc.config.peers` has the other systems'."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from tcmgc.config.options import Kind, require

GRAINS = ("video_sentence", "video_word", "sentence_frame", "frame_word")
"""The four contrasts, in the order of the paper's Eq. 12-15."""

Grain = Literal["video_sentence", "video_word", "sentence_frame", "frame_word"]
Reorganisation = Literal["none", "remove", "fuse"]


class HeadOptions(Kind):
    """Properties of a head that other modules may read before it is built."""

    default: ClassVar[str] = "TcMgcHead"
    needs: ClassVar[tuple[str, ...]] = ()
    """Features that towers must give in addition to sentence and frames: ``words``, ``patches``."""

    @property
    def scores(self) -> int:
        """Number of scores of a pair; similarity decorrelation needs at least two."""
        return 1

    @property
    def uses_padding(self) -> bool:
        """Whether padded frames take part in scores, so that a blank frame is encoded for them."""
        return False

    @property
    def weighs_tokens(self) -> bool:
        """Whether words and frames have weights: ``weights`` of prepared texts and of records."""
        return False

    @property
    def starts_from_text(self) -> bool:
        """Whether weights are initialised from the text tower, by the module's ``initialise_from``."""
        return False

    def small(self) -> "HeadOptions":
        """The same kind at the size of the demo's towers, for smoke runs."""
        return self

    def check(self, words: int, frames: int) -> None:
        """Raise a ValueError if the options do not fit captions of ``words`` and videos of ``frames``."""


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Language-video attention (Equations 2-11)."""

    heads: int = 1
    """Attention heads (Table 12)."""
    residual: bool = True
    """Keep the residual around the fully connected layer (Table 11)."""
    projections: bool = True
    """W_Q, W_K, W_V and W_O; without them attention runs on the normalised features themselves."""
    dropout: float = 0.0
    """Dropout rate on the fully connected branch, in training."""
    mask_frames: bool = True
    """Keep padded frames out of attention."""
    initialise: Literal["identity", "normal"] = "identity"
    """Initial weight of the fully connected layer: the identity, or N(0, 0.02) as in the released code."""

    def __post_init__(self) -> None:
        require(self.heads >= 1, f"head.attention.heads must be at least 1; got {self.heads}")
        require(
            0 <= self.dropout < 1, f"head.attention.dropout must be in [0, 1); got {self.dropout}"
        )


@dataclass(frozen=True, kw_only=True)
class Reorganise:
    """Similarity reorganisation, SR and Bi-SR (Section 3.4)."""

    keep_rate: float = 0.1
    """r: the k = floor(m r) largest similarities are kept."""
    video_word: Reorganisation = "remove"
    """Similarities below the kept ones, of the video-word vector: removed, or fused into one."""
    sentence_frame: Reorganisation = "fuse"
    """The same, for the sentence-frame vector."""
    frame_word_words: Reorganisation = "remove"
    """The same, for the frame-word matrix along words."""
    frame_word_frames: Reorganisation = "remove"
    """The same, for the frame-word matrix along frames, after the words."""

    def __post_init__(self) -> None:
        require(
            0 < self.keep_rate <= 1,
            f"head.reorganise.keep_rate must be in (0, 1]; got {self.keep_rate}",
        )


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """From vectors and matrices to four scores, from four scores to one (Sections 3.5 and 3.6)."""

    vectors: Literal["isa", "softmax"] = "isa"
    """ISA and Bi-ISA, or the softmax-weighted sum of Table 4."""
    temperature: float = 1.0
    """Temperature of both softmaxes of ISA; 1 in the paper's equations, 0.01 in UCoFiA's code."""
    scores: Literal["lsa", "softmax", "mean"] = "lsa"
    """LSA, a softmax-weighted sum, or the mean of the contrasts' scores."""
    lsa_on_logits: bool = False
    """Weight the scores after the logit scale, as the released code does."""

    def __post_init__(self) -> None:
        require(
            self.temperature > 0,
            f"head.aggregate.temperature must be above 0; got {self.temperature}",
        )


@dataclass(frozen=True, kw_only=True)
class TcMgcHead(HeadOptions):
    """TC-MGC's similarity, in every variant of the paper."""

    module: ClassVar[str] = "tcmgc.heads.tcmgc:TcMgc"
    needs: ClassVar[tuple[str, ...]] = ("words",)

    grains: tuple[Grain, ...] = GRAINS  # type: ignore[assignment]
    """Which of the four contrasts take part (Table 9)."""
    text_conditioned: bool = True
    """False: contrasts against plain frames and their mean (Table 4's baselines)."""
    attention: Attention = field(default_factory=Attention)
    reorganise: Reorganise = field(default_factory=Reorganise)
    aggregate: Aggregate = field(default_factory=Aggregate)
    mask_words: bool = False
    """Exclude padded words from top-k, fusion and aggregation; the paper includes them."""
    learnt_products: bool = False
    """Put a learnt dim x dim matrix, initialised as the identity, into two of the products."""

    def __post_init__(self) -> None:
        require(len(self.grains) > 0, f"head.grains must name at least one of {', '.join(GRAINS)}")
        unknown = [grain for grain in self.grains if grain not in GRAINS]
        require(not unknown, f"head.grains: unknown {unknown}; known are {', '.join(GRAINS)}")
        require(
            len(set(self.grains)) == len(self.grains), f"head.grains names one twice: {self.grains}"
        )
        object.__setattr__(self, "grains", tuple(grain for grain in GRAINS if grain in self.grains))

    @property
    def scores(self) -> int:
        """One per contrast."""
        return len(self.grains)

    @property
    def uses_padding(self) -> bool:
        """True if attention is not masked."""
        return not self.attention.mask_frames

    def check(self, words: int, frames: int) -> None:
        """Raise a ValueError if a keep rate keeps nothing."""
        rate = self.reorganise.keep_rate
        require(
            kept_count(words, rate) >= 1,
            f"head.reorganise.keep_rate {rate} keeps no word of data.max_words {words}; "
            f"raise it to at least {1 / words:.4f}",
        )


def kept_count(count: int, keep_rate: float) -> int:
    """k = floor(count x keep rate) in decimal arithmetic: 0.3 of 10 is 3, not 2.

    Binary floats only approximate most decimals (0.29 * 100 is 28.999...), so the product is
    rounded to 9 places before it is truncated.
    """
    return int(round(count * keep_rate, 9))
