"""Options of token operations, which a method applies to tokens inside the visual tower."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from tcmgc.config.options import Kind, require


class TokenOptions(Kind):
    """Options of an operation on tokens inside the visual tower.

    ``module`` is built as ``Module(options, visual, frames, dim)``, with open_clip's image encoder,
    the frames of a video and the width of the joint space.
    """

    default: ClassVar[str] = "NoTokens"
    gives: ClassVar[tuple[str, ...]] = ()
    """Features that the tower then gives in addition to frames: ``patches``."""
    learns: ClassVar[bool] = False
    """Whether the operation has weights of its own, initialised at random."""

    @property
    def patches_given(self) -> int:
        """Patch features of each frame that the tower gives."""
        return 0

    def frames_after(self, frames: int) -> int:
        """Number of frames after the tower, for a video of this many frames."""
        return frames

    def small(self) -> "TokenOptions":
        """The same kind at the size of the demo's towers, for smoke runs."""
        return self


@dataclass(frozen=True, kw_only=True)
class NoTokens(TokenOptions):
    """The unchanged tower: a frame's feature is that of its class token."""


@dataclass(frozen=True, kw_only=True)
class Patch3d(TokenOptions):
    """CLIP4Clip's ``linear_patch 3d``: the patch convolution spans three frames."""

    module: ClassVar[str] = "tcmgc.towers.tokens.patch3d:Patch3d"


@dataclass(frozen=True, kw_only=True)
class ShiftSelect(TokenOptions):
    """TS2-Net's token shift between frames and its selection of patches, as UCoFiA uses them too."""

    module: ClassVar[str] = "tcmgc.towers.tokens.selection:ShiftSelect"
    gives: ClassVar[tuple[str, ...]] = ("patches",)
    learns: ClassVar[bool] = True

    blocks: tuple[int, ...] = (-2, -1)
    """Blocks with the shift, counted from 0; negative numbers count from the end. With no blocks, any tower
    works, because patches are taken after it."""
    patches: int = 3
    """Soft mixtures of patches that are selected in each frame."""
    selector: Literal["frame", "video"] = "frame"
    """What a patch is compared with: its frame's class token; or the sum of the video's class tokens,
    in the network of UCoFiA's tree for text-to-video evaluation."""
    samples: int = 500
    """Noisy top-k selections that a training step averages."""
    sigma: float = 0.05
    """Standard deviation of that noise."""
    as_published: bool = False
    """Padded frames take part in the shift (and in the sum over a video), and noise is drawn at evaluation,
    too, the same for every video, so results are reproducible. The default shifts between real frames only
    and selects the patches with the highest scores at evaluation; on the goldens' random models, noise changes
    similarities by 6 to 8 % of the largest one."""

    def __post_init__(self) -> None:
        require(self.patches >= 1, f"tokens.patches must be at least 1; got {self.patches}")
        require(self.samples >= 1, f"tokens.samples must be at least 1; got {self.samples}")
        require(self.sigma > 0, f"tokens.sigma must be above 0; got {self.sigma}")

    @property
    def patches_given(self) -> int:
        """The number of selected patches."""
        return self.patches


@dataclass(frozen=True, kw_only=True)
class ChannelShift(TokenOptions):
    """CenterCLIP's shift of an eighth of the channels to each neighbouring frame."""

    module: ClassVar[str] = "tcmgc.towers.tokens.shift:ChannelShift"

    of: Literal["patches", "class"] = "patches"
    """`patches`: its `temporal_shift`; `class`: its `token_shift`, repeated before the feed-forward layer."""
    blocks: tuple[int, ...] = (6,)
    """Blocks at whose start tokens are shifted, counted from 0; negative numbers count from the end."""
    as_published: bool = False
    """Padded frames take part; the default shifts between real frames only."""

    def small(self) -> "ChannelShift":
        """In the last block."""
        return replace(self, blocks=(-1,))


@dataclass(frozen=True, kw_only=True)
class Cluster(TokenOptions):
    """CenterCLIP's token clustering: neighbouring frames become a segment with fewer patches.

    ``blocks``, ``segments`` and ``clusters`` have one entry per clustering, in order.
    """

    module: ClassVar[str] = "tcmgc.towers.tokens.cluster:Cluster"

    algorithm: Literal["kmedoids", "spectral", "pooling", "sparse_sampling"] = "kmedoids"
    """How patches are reduced: k-medoids with KKZ initialisation; the same on a spectral embedding; the mean over
    the segment's frames; tokens at regular positions (random ones in training)."""
    blocks: tuple[int, ...] = (6,)
    """Blocks before which clustering is applied, from 0 (CenterCLIP's block 7 is 6); negative: from the end."""
    segments: tuple[int, ...] = (6,)
    """Segments of a video afterwards."""
    clusters: tuple[int, ...] = (49,)
    """Patches of a segment afterwards."""
    aggregation: Literal["medoid", "mean"] = "medoid"
    """What represents a cluster: the medoid's token, or the mean of the members."""
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """Distance between tokens."""
    p: float = 2.0
    """Order of the distance's norm."""
    normalise: bool = False
    """Cluster L2-normalised copies of the tokens (k-medoids)."""
    threshold: float = 1e-6
    """Movement of a segment's medoids below which clustering ends."""
    iterations: int = 100
    """Most iterations of clustering."""
    cluster_embedding: bool = False
    """Add a learnt vector to each cluster, initialised from the tower's position embeddings."""
    graph: Literal["heat", "knn"] = "knn"
    """Spectral: affinities of all pairs, or of near ones."""
    sigma: float = 2.0
    """Spectral: width of the affinities' kernel."""
    neighbours: int = 0
    """Spectral: nearest tokens that are joined; 0: five per frame of the segment, and five more with 100 patches or more."""
    spatial_temporal: bool = False
    """Spectral: join tokens only within 9 places (19 with 100 patches or more) and 7 frames."""
    as_published: bool = False
    """Padded frames are clustered with the others, and a segment counts as real if its last frame is: for a video of
    3 frames in segments of 2, only the first segment. The default clusters real frames only, and keeps every
    segment that has one."""

    def __post_init__(self) -> None:
        lengths = {len(self.blocks), len(self.segments), len(self.clusters)}
        require(
            len(lengths) == 1 and lengths != {0},
            "tokens.blocks, tokens.segments and tokens.clusters must name as many clusterings each, at least one; "
            f"got {len(self.blocks)}, {len(self.segments)} and {len(self.clusters)}",
        )
        require(min(self.segments) >= 1, f"tokens.segments must be at least 1; got {self.segments}")
        require(min(self.clusters) >= 2, f"tokens.clusters must be at least 2; got {self.clusters}")
        require(
            self.p > 0 and self.sigma > 0,
            f"tokens.p and tokens.sigma must be above 0; got {self.p} and {self.sigma}",
        )
        require(
            self.iterations >= 1, f"tokens.iterations must be at least 1; got {self.iterations}"
        )
        require(
            self.neighbours >= 0, f"tokens.neighbours must not be negative; got {self.neighbours}"
        )

    def frames_after(self, frames: int) -> int:
        """The segments."""
        return self.segments[-1]

    def small(self) -> "Cluster":
        """One clustering in the last block, to two segments of four patches."""
        return replace(self, blocks=(-1,), segments=(2,), clusters=(4,))
