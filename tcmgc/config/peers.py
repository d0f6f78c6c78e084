"""Options of heads of systems other than TC-MGC: one dataclass per head, which names its module."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from tcmgc.config.heads import HeadOptions
from tcmgc.config.options import require


@dataclass(frozen=True, kw_only=True)
class MeanHead(HeadOptions):
    """CLIP4Clip's similarity of a sentence and the mean of frames, after any temporal encoder."""

    module: ClassVar[str] = "tcmgc.heads.mean:Mean"


@dataclass(frozen=True, kw_only=True)
class TightHead(HeadOptions):
    """CLIP4Clip's tightTransf: a transformer over the sentence and the frames of every pair gives its similarity.

    Its scores are already logits, so the loss's scale is 1 and not learnt.
    """

    module: ClassVar[str] = "tcmgc.heads.tight:Tight"

    layers: int = 4
    """Transformer layers."""
    heads: int = 0
    """Attention heads of each layer; 0: one for every 64 channels."""
    dropout: float = 0.1
    """Dropout rate on the transformer's input, in training."""
    initialise_from_text: bool = True
    """Start the blocks and the position table from CLIP's text tower."""
    norm_eps: float = 1e-12
    """Added to the variance by the layer norms."""

    def __post_init__(self) -> None:
        require(self.layers >= 1, f"head.layers must be at least 1; got {self.layers}")
        require(self.heads >= 0, f"head.heads must not be negative; got {self.heads}")
        require(0 <= self.dropout < 1, f"head.dropout must be in [0, 1); got {self.dropout}")
        require(self.norm_eps > 0, f"head.norm_eps must be above 0; got {self.norm_eps}")

    @property
    def starts_from_text(self) -> bool:
        """The option's value."""
        return self.initialise_from_text

    def small(self) -> "TightHead":
        """One layer of four heads, without dropout, with which so small a one learns nothing in a few epochs."""
        return replace(self, layers=1, heads=4, dropout=0.0)


@dataclass(frozen=True, kw_only=True)
class XPoolHead(HeadOptions):
    """X-Pool's similarity: the same attention block, with one query per text."""

    module: ClassVar[str] = "tcmgc.heads.xpool:XPool"

    heads: int = 1
    """Attention heads."""
    dropout: float = 0.3
    """Dropout rate on the fully connected branch, in training."""

    def __post_init__(self) -> None:
        require(self.heads >= 1, f"head.heads must be at least 1; got {self.heads}")
        require(0 <= self.dropout < 1, f"head.dropout must be in [0, 1); got {self.dropout}")


@dataclass(frozen=True, kw_only=True)
class XClipHead(HeadOptions):
    """X-CLIP's similarity: four contrasts and attention over the similarity matrix."""

    module: ClassVar[str] = "tcmgc.heads.xclip:XClip"
    needs: ClassVar[tuple[str, ...]] = ("words",)

    temperature: float = 0.01
    """Temperature of the attention over similarities."""

    def __post_init__(self) -> None:
        require(self.temperature > 0, f"head.temperature must be above 0; got {self.temperature}")

    @property
    def scores(self) -> int:
        """Video-sentence, video-word, sentence-frame, frame-word."""
        return 4

    @property
    def uses_padding(self) -> bool:
        """True: as in the authors' code, padded frames take part in every contrast with frames."""
        return True


@dataclass(frozen=True, kw_only=True)
class WtiHead(HeadOptions):
    """DRL's token-wise interaction: each word with its best frame, each frame with its best word."""

    module: ClassVar[str] = "tcmgc.heads.wti:Wti"
    needs: ClassVar[tuple[str, ...]] = ("words",)

    weights: Literal["learnt", "equal"] = "learnt"
    """Weights of words and frames: a softmax over a network's outputs (WTI), or equal (TI)."""
    layers: int = 2
    """Linear layers of each of the two networks; `wti_arch` of the authors' code."""
    as_published: bool = False
    """Products with padding count as 0 and take part in maxima, as in the authors' code: a word whose products with
    all real frames are negative then gets 0 if its video is shorter than `data.max_frames` (likewise a
    frame if the text is shorter). The default excludes padding from maxima."""

    def __post_init__(self) -> None:
        require(1 <= self.layers <= 3, f"head.layers must be 1, 2 or 3; got {self.layers}")

    @property
    def uses_padding(self) -> bool:
        """True as published: channel decorrelation may then pair a word with a padded frame."""
        return self.as_published

    @property
    def weighs_tokens(self) -> bool:
        """True, whether they are learnt or not."""
        return True


@dataclass(frozen=True, kw_only=True)
class TokenSelectionHead(HeadOptions):
    """TS2-Net's similarity: frames weighted by how well each fits the sentence."""

    module: ClassVar[str] = "tcmgc.heads.token_selection:TokenSelection"

    sharpness: float = 4.0
    """Factor on the weights' logits."""
    as_published: bool = False
    """Mask frames as the authors' code does, which repeats the frame mask end to end for class tokens and
    patches, and reads it at class tokens: with 12 frames and 3 patches, only the masks of frames 0, 4 and 8 are used.
    The default masks padded frames. Without padded frames both are the same."""


@dataclass(frozen=True, kw_only=True)
class UcofiaHead(HeadOptions):
    """UCoFiA's similarity: patches with words, frames with the sentence, the video with the sentence."""

    module: ClassVar[str] = "tcmgc.heads.ucofia:Ucofia"
    needs: ClassVar[tuple[str, ...]] = ("words", "patches")

    tree: Literal["train", "eval"] = "train"
    """Which of the authors' code trees the formula follows. `train`: patches pass a learnt dim x dim matrix; `eval`: both
    evaluation trees omit it, so a trained model is scored by a different formula than in training.
    The tree for text-to-video evaluation also has a different selector: `tokens.selector` "video"."""
    temperature: float = 0.01
    """Temperature of all softmaxes over similarities."""

    def __post_init__(self) -> None:
        require(self.temperature > 0, f"head.temperature must be above 0; got {self.temperature}")

    @property
    def scores(self) -> int:
        """Video-sentence, frame-sentence, patch-word."""
        return 3

    @property
    def uses_padding(self) -> bool:
        """True: as in the authors' code, padded frames take part in contrasts with frames and patches."""
        return True


@dataclass(frozen=True, kw_only=True)
class MeanMaxHead(HeadOptions):
    """Video-ColBERT's MeanMaxSim, with frames before and after the temporal encoder."""

    module: ClassVar[str] = "tcmgc.heads.mean_max:MeanMax"
    needs: ClassVar[tuple[str, ...]] = ("words",)

    @property
    def scores(self) -> int:
        """With frames before the temporal encoder, and after it."""
        return 2
