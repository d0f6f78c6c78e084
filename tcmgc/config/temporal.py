"""Options of temporal encoders, which process the tower's frames before the head."""

from dataclasses import dataclass, replace
from typing import ClassVar

from tcmgc.config.options import Kind, require


class TemporalOptions(Kind):
    """Options of an encoder over frames; ``module`` is built as ``Module(options, dim, frames)``."""

    default: ClassVar[str] = "Temporal"
    needs: ClassVar[tuple[str, ...]] = ()
    """Features that the tower must give in addition to frames: ``patches``."""

    @property
    def absent(self) -> bool:
        """Whether frames stay unchanged."""
        return False

    @property
    def starts_from_text(self) -> bool:
        """Whether weights are initialised from the text tower."""
        return False

    def check(self, patches: int) -> None:
        """Raise a ValueError if the options do not fit a tower that gives this many patches per frame."""

    def small(self) -> "TemporalOptions":
        """The same kind at the size of the demo's towers, for smoke runs."""
        return self


@dataclass(frozen=True, kw_only=True)
class Temporal(TemporalOptions):
    """Transformer over frames (Equation 1); CLIP4Clip's seqTransf with 4 layers and the residual."""

    module: ClassVar[str] = "tcmgc.towers.temporal:TemporalEncoder"

    layers: int = 3
    """Transformer layers; 0 leaves CLIP's frames unchanged."""
    heads: int = 8
    """Attention heads of each layer; 0: one for every 64 channels, as CLIP4Clip."""
    residual: bool = False
    """Add the encoder's input to its output, as CLIP4Clip's seqTransf does."""
    initialise_from_text: bool = False
    """Start the blocks and the position table from CLIP's text tower."""
    norm_eps: float = 1e-5
    """Added to the variance by the layer norms; 1e-12 in CLIP4Clip's code."""

    def __post_init__(self) -> None:
        require(self.layers >= 0, f"temporal.layers must not be negative; got {self.layers}")
        _check(self)

    def small(self) -> "Temporal":
        """One layer at most, of four heads."""
        return replace(self, layers=min(self.layers, 1), heads=4)

    @property
    def absent(self) -> bool:
        """True without layers."""
        return not self.layers

    @property
    def starts_from_text(self) -> bool:
        """The option's value, if there are layers."""
        return self.initialise_from_text and not self.absent


@dataclass(frozen=True, kw_only=True)
class Lstm(TemporalOptions):
    """CLIP4Clip's seqLSTM: one LSTM layer over the frames, added to them."""

    module: ClassVar[str] = "tcmgc.towers.temporal:FrameLstm"


@dataclass(frozen=True, kw_only=True)
class PatchTransformer(TemporalOptions):
    """TS2-Net's transformer over each frame's feature and selected patches; the frames are kept."""

    module: ClassVar[str] = "tcmgc.towers.temporal:PatchTransformer"
    needs: ClassVar[tuple[str, ...]] = ("patches",)

    layers: int = 4
    """Transformer layers."""
    heads: int = 0
    """Attention heads of each layer; 0: one for every 64 channels."""
    residual: bool = True
    """Add the encoder's input to its output."""
    initialise_from_text: bool = True
    """Start the blocks and the position table from CLIP's text tower."""
    norm_eps: float = 1e-12
    """Added to the variance by the layer norms."""
    patches: int = 3
    """Patches of each frame; `tokens.patches`."""
    as_published: bool = False
    """Mask keys as TS2-Net's code does: the mask of F frames is repeated end to end for 4F tokens, so token
    j is masked as frame j mod F, and short videos lose real tokens and keep padded ones. The default masks
    exactly the tokens of padded frames. Without padded frames both are the same."""

    def __post_init__(self) -> None:
        require(self.layers >= 1, f"temporal.layers must be at least 1; got {self.layers}")
        require(self.patches >= 1, f"temporal.patches must be at least 1; got {self.patches}")
        _check(self)

    def check(self, patches: int) -> None:
        """Raise a ValueError if the position table does not have one row per patch."""
        require(
            patches == self.patches,
            f"temporal.patches is {self.patches}, but the tower gives {patches} patches a frame; set it to tokens.patches",
        )

    def small(self) -> "PatchTransformer":
        """One layer of four heads."""
        return replace(self, layers=1, heads=4)

    @property
    def starts_from_text(self) -> bool:
        """The option's value."""
        return self.initialise_from_text


def _check(options: Temporal | PatchTransformer) -> None:
    require(options.heads >= 0, f"temporal.heads must not be negative; got {options.heads}")
    require(options.norm_eps > 0, f"temporal.norm_eps must be above 0; got {options.norm_eps}")
