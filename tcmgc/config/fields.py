"""The fields: frozen dataclasses, checked as a whole when they are made.

A recipe (:mod:`tcmgc.recipes`) is a function that returns a :class:`Config`; the command line
replaces single fields. Modules never see these classes: :func:`tcmgc.model.build` unpacks them.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

GRAINS = ("video_sentence", "video_word", "sentence_frame", "frame_word")
"""The four contrasts, in the order of the paper's Eq. 12-15."""

Grain = Literal["video_sentence", "video_word", "sentence_frame", "frame_word"]
Reorganisation = Literal["none", "remove", "fuse"]


def require(condition: bool, message: str) -> None:
    """Raise a ValueError unless the condition holds."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which videos and captions, and how frames are taken from them."""

    dataset: str
    """Name of a reader in `tcmgc.datasets`."""
    root: str
    """Folder or URI (s3://, gs://) that holds annotations and videos."""
    cache: str = "cache"
    """Folder or URI of the frame cache, shared by all runs."""
    max_words: int = 32
    """Token positions of a caption, start and end included; longer captions are cut."""
    max_frames: int = 12
    """Frames taken from a video at most."""
    fps: float = 1.0
    """Frames taken a second, before they are thinned to `max_frames`."""
    sampler: Literal["uniform", "middle", "random"] = "uniform"
    """CLIP4Clip's one frame a second; X-Pool's segment middles; random instants in equal segments."""
    frame_format: Literal["raw", "jpeg"] = "raw"
    """How the cache stores frames: raw pixels are exact and fast, JPEG is small."""
    decode_timeout: float = 120.0
    """Seconds that decoding one video may take before it counts as unreadable."""
    val_videos: int = 0
    """Training videos set aside for validation; 0 where the benchmark has its own split."""
    max_unreadable: float = 0.01
    """Share of training videos that may be missing or unreadable before training refuses."""
    augment: bool = False
    """Random resized crop and horizontal flip of whole videos, on the training device."""

    def __post_init__(self) -> None:
        require(
            self.max_words >= 3,
            f"data.max_words must be at least 3 (start, one word, end); got {self.max_words}",
        )
        require(self.max_frames >= 1, f"data.max_frames must be at least 1; got {self.max_frames}")
        require(self.fps > 0, f"data.fps must be above 0; got {self.fps}")
        require(
            self.decode_timeout > 0,
            f"data.decode_timeout must be above 0 seconds; got {self.decode_timeout}",
        )
        require(
            self.val_videos >= 0, f"data.val_videos must not be negative; got {self.val_videos}"
        )
        require(
            0 <= self.max_unreadable <= 1,
            f"data.max_unreadable is a share between 0 and 1; got {self.max_unreadable}",
        )


@dataclass(frozen=True, kw_only=True)
class Towers:
    """CLIP's two encoders, through open_clip."""

    name: str = "ViT-B-32-quickgelu"
    """An open_clip model name, one of `tcmgc/towers/models/*.json`, or a path to such a JSON."""
    pretrained: str | None = "openai"
    """An open_clip tag or a checkpoint file; None for random weights."""
    freeze: Literal["none", "embeddings", "all"] = "embeddings"
    """`embeddings`: patch convolution, class, position and token embeddings, first layer norm."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass: less memory, more time."""


@dataclass(frozen=True, kw_only=True)
class Temporal:
    """Encoder over frames (Eq. 1)."""

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


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Language-video attention (Eq. 2-11)."""

    heads: int = 1
    """Attention heads (Table 12)."""
    residual: bool = True
    """Keep the residual around the fully connected layer (Table 11)."""
    projections: bool = True
    """W_Q, W_K, W_V and W_O; without them attention runs on the normalised features themselves."""
    dropout: float = 0.0
    """On the fully connected branch, in training."""
    mask_frames: bool = True
    """Keep padded frames out of attention."""

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
    """The same for the sentence-frame vector."""
    frame_word_words: Reorganisation = "remove"
    """Frame-word matrix, along words."""
    frame_word_frames: Reorganisation = "remove"
    """Frame-word matrix, along frames, after the words."""

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
    """Inside both softmaxes of ISA; 1 in the paper's equations, 0.01 in UCoFiA's code."""
    scores: Literal["lsa", "softmax", "mean"] = "lsa"
    """LSA, a softmax-weighted sum, or the mean of the contrasts' scores."""
    lsa_on_logits: bool = False
    """Weigh the scores after the logit scale, as the released code does."""

    def __post_init__(self) -> None:
        require(
            self.temperature > 0,
            f"head.aggregate.temperature must be above 0; got {self.temperature}",
        )


@dataclass(frozen=True, kw_only=True)
class TcMgcHead:
    """TC-MGC's similarity."""

    grains: tuple[Grain, ...] = GRAINS  # type: ignore[assignment]
    """Which of the four contrasts take part (Table 9)."""
    text_conditioned: bool = True
    """False: contrasts against plain frames and their mean (Table 4's baselines)."""
    attention: Attention = field(default_factory=Attention)
    reorganise: Reorganise = field(default_factory=Reorganise)
    aggregate: Aggregate = field(default_factory=Aggregate)
    mask_words: bool = False
    """Keep padded words out of top-k, fusion and aggregation; the paper lets them in."""
    learnt_products: bool = False
    """Put a learnt dim x dim matrix, the identity at the start, into two of the products."""

    def __post_init__(self) -> None:
        require(len(self.grains) > 0, f"head.grains must name at least one of {', '.join(GRAINS)}")
        unknown = [grain for grain in self.grains if grain not in GRAINS]
        require(not unknown, f"head.grains: unknown {unknown}; known are {', '.join(GRAINS)}")
        require(
            len(set(self.grains)) == len(self.grains), f"head.grains names one twice: {self.grains}"
        )
        object.__setattr__(self, "grains", tuple(grain for grain in GRAINS if grain in self.grains))


@dataclass(frozen=True, kw_only=True)
class XPoolHead:
    """X-Pool's similarity: the same attention block, one query a text."""

    heads: int = 1
    """Attention heads."""
    dropout: float = 0.3
    """On the fully connected branch, in training."""

    def __post_init__(self) -> None:
        require(self.heads >= 1, f"head.heads must be at least 1; got {self.heads}")
        require(0 <= self.dropout < 1, f"head.dropout must be in [0, 1); got {self.dropout}")


@dataclass(frozen=True, kw_only=True)
class XClipHead:
    """X-CLIP's similarity: four contrasts and attention over the similarity matrix."""

    temperature: float = 0.01
    """Of the attention over similarities."""

    def __post_init__(self) -> None:
        require(self.temperature > 0, f"head.temperature must be above 0; got {self.temperature}")


Head = TcMgcHead | XPoolHead | XClipHead


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Symmetric InfoNCE and similarity decorrelation (Eq. 33-37)."""

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
    scale: float = 100.0
    """lambda, or its start where it is learnt."""
    learn_scale: bool = False
    """Learn the scale instead of keeping it."""
    max_scale: float = 100.0
    """A learnt scale is clamped here."""

    def __post_init__(self) -> None:
        require(self.alpha >= 0, f"loss.alpha must not be negative; got {self.alpha}")
        require(self.scale > 0, f"loss.scale must be above 0; got {self.scale}")
        require(
            not self.learn_scale or self.scale <= self.max_scale,
            f"loss.scale ({self.scale}) starts above loss.max_scale ({self.max_scale})",
        )


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Optimiser and schedule."""

    kind: Literal["adam", "adamw"] = "adam"
    """`adam`: CLIP4Clip's, without bias correction, decay added to the update; `adamw`: PyTorch's."""
    lr_clip: float = 1e-7
    """For CLIP's own weights. 1e-7 assumes float16 weights; see tcmgc/recipes."""
    lr_new: float = 1e-4
    """For every other weight."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay of Adam's two averages."""
    eps: float = 1e-6
    """Added to the root of Adam's second average."""
    weight_decay: float = 0.2
    """Of matrices; biases, layer norms and other vectors do not decay."""
    clip_norm: float = 1.0
    """Largest norm of all gradients together."""
    warmup: float = 0.1
    """Share of all steps over which the rates rise from 0; a cosine to 0 follows."""

    def __post_init__(self) -> None:
        require(
            self.lr_clip >= 0 and self.lr_new >= 0,
            f"optim.lr_clip and optim.lr_new must not be negative; got {self.lr_clip} and {self.lr_new}",
        )
        require(
            0 <= self.warmup < 1,
            f"optim.warmup is a share of the steps in [0, 1); got {self.warmup}",
        )
        require(self.clip_norm > 0, f"optim.clip_norm must be above 0; got {self.clip_norm}")


@dataclass(frozen=True, kw_only=True)
class Train:
    """The run: how long, on how many workers, with which seed."""

    epochs: int = 5
    """Times that training goes through all pairs of caption and video."""
    batch_size: int = 128
    """Pairs a step over all workers together: the result does not depend on their number."""
    chunk_size: int = 0
    """Pairs embedded at a time (gradient caching); 0 embeds a worker's whole share at once."""
    pieces: int = 0
    """Compute a batch in so many pieces (a power of two) of which sums are taken in one order: the same
    losses, to the bit, on any number of workers that divides it. 0 lets rounding depend on the workers;
    so does an elastic number while it does not divide the pieces."""
    separate_captions: bool = False
    """Put captions of one video into different batches, as far as their numbers allow; each shows the
    other its own video as a negative where they meet."""
    seed: int = 0
    """Decides starting weights, the order of pairs, augmentation and the validation videos."""
    precision: Literal["float32", "bf16"] = "float32"
    """Arithmetic of the towers; weights, head and loss stay float32."""
    workers: int = 1
    """Processes that train; with GPUs, one on each."""
    min_workers: int = 0
    """Fewest workers to go on with when nodes leave; 0 keeps their number fixed."""
    gpus: Literal["auto", "always", "never"] = "auto"
    """A GPU a worker: when the cluster has one; or refuse without; or stay on the CPU."""
    checkpoint_steps: int = 0
    """Write a checkpoint every so many steps as well as after every epoch; 0: epochs only."""
    checkpoint_minutes: float = 0.0
    """Write a checkpoint when so many minutes have passed since the last one; 0: no such limit."""
    keep_checkpoints: int = 2
    """Checkpoints kept by validation score; the last one is kept besides."""
    max_failures: int = 3
    """Times a run may lose workers and go on from its last checkpoint; -1 for ever."""

    def on(self, workers: int) -> "Train":
        """The same with so many workers, neither more nor fewer."""
        return replace(self, workers=workers, min_workers=0, pieces=self.pieces_of(workers))

    def pieces_of(self, workers: int) -> int:
        """`pieces`, or 0 where so many workers do not divide it."""
        return self.pieces if self.pieces % workers == 0 else 0

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"train.epochs must be at least 1; got {self.epochs}")
        require(self.workers >= 1, f"train.workers must be at least 1; got {self.workers}")
        require(
            0 <= self.min_workers <= self.workers,
            f"train.min_workers ({self.min_workers}) must lie between 0 and train.workers ({self.workers})",
        )
        require(
            self.batch_size >= 2,
            f"train.batch_size must be at least 2: a contrast needs a negative; got {self.batch_size}",
        )
        require(
            self.batch_size >= self.workers,
            f"train.batch_size ({self.batch_size}) must be at least train.workers ({self.workers}): "
            "each takes a pair or more of every step",
        )
        require(
            self.chunk_size >= 0, f"train.chunk_size must not be negative; got {self.chunk_size}"
        )
        require(
            self.pieces >= 0 and not self.pieces & (self.pieces - 1),
            f"train.pieces must be 0 or a power of two; got {self.pieces}",
        )
        if self.pieces:
            require(
                self.pieces % self.workers == 0 and self.batch_size % self.pieces == 0,
                f"train.pieces ({self.pieces}) must be a multiple of train.workers ({self.workers}) "
                f"and divide train.batch_size ({self.batch_size}): try a larger power of two, "
                "or 0, where losses depend on the workers to rounding",
            )
        require(
            self.checkpoint_steps >= 0 and self.checkpoint_minutes >= 0,
            "train.checkpoint_steps and train.checkpoint_minutes must not be negative; "
            f"got {self.checkpoint_steps} and {self.checkpoint_minutes}",
        )
        require(
            self.keep_checkpoints >= 1,
            f"train.keep_checkpoints must be at least 1; got {self.keep_checkpoints}",
        )


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where things run when there are several kinds of node."""

    decode_workers: int = 0
    """Decoding processes; 0 takes all CPUs of the cluster."""
    decode_node: str | None = None
    """Value of the label `node-role` that decode nodes carry; None: any node."""
    train_node: str | None = None
    """Value of the label `node-role` that training nodes carry; None: any node."""
    cpus_per_worker: float = 0.0
    """CPUs a training worker gets; 0 shares them out, or takes up to 4 beside a GPU."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment."""

    data: Data
    towers: Towers = field(default_factory=Towers)
    temporal: Temporal = field(default_factory=Temporal)
    head: Head = field(default_factory=TcMgcHead)
    loss: Loss = field(default_factory=Loss)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    cluster: Cluster = field(default_factory=Cluster)

    def __post_init__(self) -> None:
        if isinstance(self.head, TcMgcHead):
            kept = kept_count(self.data.max_words, self.head.reorganise.keep_rate)
            require(
                kept >= 1,
                f"head.reorganise.keep_rate {self.head.reorganise.keep_rate} keeps no word of data.max_words "
                f"{self.data.max_words}; raise it to at least {1 / self.data.max_words:.4f}",
            )
        single = isinstance(self.head, XPoolHead) or (
            isinstance(self.head, TcMgcHead) and len(self.head.grains) == 1
        )
        if self.loss.alpha:
            require(
                not single,
                f"loss.alpha is {self.loss.alpha}, but {type(self.head).__name__} has one score: nothing to decorrelate; set it to 0",
            )


def kept_count(count: int, keep_rate: float) -> int:
    """k = floor(count x keep rate) as decimals mean it: 0.3 of 10 is 3, not 2.

    Binary floats lie just beside most decimals (0.29 * 100 is 28.999...), so the product is
    rounded to 9 places before it is cut.
    """
    return int(round(count * keep_rate, 9))
