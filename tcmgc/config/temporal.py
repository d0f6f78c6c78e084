"""Options of the temporal encoders: what happens between the tower's frames and the head."""

from dataclasses import dataclass, replace
from typing import ClassVar

from tcmgc.config.options import Kind, require


class TemporalOptions(Kind):
    """Options of an encoder over frames; ``module`` is built as ``Module(options, dim, frames)``."""

    default: ClassVar[str] = "Temporal"

    @property
    def absent(self) -> bool:
        """Frames stay as the tower gave them."""
        return False

    @property
    def starts_from_text(self) -> bool:
        """Weights come from the text tower at the start."""
        return False

    def small(self) -> "TemporalOptions":
        """The same kind at the size of the demo's towers, for smoke runs."""
        return self


@dataclass(frozen=True, kw_only=True)
class Temporal(TemporalOptions):
    """Transformer over frames (Eq. 1); CLIP4Clip's seqTransf with 4 layers and the residual."""

    module: ClassVar[str] = "tcmgc.towers.temporal:TemporalEncoder"

    layers: int = 3
    """Transformer layers; 0 leaves the frames as CLIP gave them."""
    heads: int = 8
    """Attention heads of each layer."""
    residual: bool = False
    """Add the encoder's input to its output, as CLIP4Clip's seqTransf does."""
    initialise_from_text: bool = False
    """Start the blocks and the position table from CLIP's text tower."""

    def __post_init__(self) -> None:
        require(self.layers >= 0, f"temporal.layers must not be negative; got {self.layers}")
        require(self.heads >= 1, f"temporal.heads must be at least 1; got {self.heads}")

    def small(self) -> "Temporal":
        """One layer at most, of four heads."""
        return replace(self, layers=min(self.layers, 1), heads=4)

    @property
    def absent(self) -> bool:
        """Without layers."""
        return not self.layers

    @property
    def starts_from_text(self) -> bool:
        """As it is set, where there are layers."""
        return self.initialise_from_text and not self.absent
