"""The fields: frozen dataclasses, checked as a whole when they are created.

A recipe (:mod:`tcmgc.recipes`) is a function that returns a :class:`Config`; the command line
replaces single fields. The parts of a method (token operation, temporal encoder, head, loss) have
options in separate files; :func:`tcmgc.model.build` passes them unchanged to the modules.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from tcmgc.config.heads import HeadOptions, TcMgcHead
from tcmgc.config.losses import Loss
from tcmgc.config.options import require
from tcmgc.config.temporal import Temporal, TemporalOptions
from tcmgc.config.tokens import NoTokens, TokenOptions


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
    """Most frames taken from a video."""
    fps: float = 1.0
    """Frames taken per second, before they are thinned to `max_frames`."""
    sampler: Literal["uniform", "middle", "random"] = "uniform"
    """CLIP4Clip's one frame per second; X-Pool's segment middles; random instants in equal segments."""
    frame_format: Literal["raw", "jpeg"] = "raw"
    """How the cache stores frames: raw pixels are exact and fast, JPEG is small."""
    decode_timeout: float = 120.0
    """Seconds that decoding one video may take before it counts as unreadable."""
    val_videos: int = 0
    """Training videos set aside for validation; 0 if the benchmark has its own split."""
    max_unreadable: float = 0.01
    """Share of training videos that may be missing or unreadable; with more, training is refused."""
    augment: bool = False
    """Random resized crop and horizontal flip of whole videos, on the training device."""
    columns: str = ""
    """Names of a table's columns if they are not the default ones: video=path,caption=text."""
    outside_links: bool = False
    """Read links to files outside of the data root, as in a download cache that consists of links."""
    absolute_paths: bool = False
    """Let a table name its videos by absolute paths or URIs."""
    allow_unfit: bool = False
    """Train although `check_data.py` says NOT fit: videos in two splits, an incomplete test split."""

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
class Optim:
    """Optimiser and schedule."""

    kind: Literal["adam", "adamw", "hf_adamw"] = "adam"
    """`adam`: BertAdam, as CLIP4Clip and those that build on it: without bias correction, decay added to
    the update; `adamw`: PyTorch's, as CenterCLIP; `hf_adamw`: transformers', as X-Pool: eps before the bias
    correction, decay after the step."""
    lr_clip: float = 1e-7
    """Learning rate of CLIP's own weights and the logit scale. 1e-7 assumes float16 weights; see tcmgc/recipes."""
    lr_new: float = 1e-4
    """Learning rate of all other weights."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay rates of Adam's two averages."""
    eps: float = 1e-6
    """Added to the root of Adam's second average."""
    weight_decay: float = 0.2
    """Share of a weight, times the learning rate, that a step subtracts."""
    decay: Literal["matrices", "all_but_biases", "all"] = "all_but_biases"
    """Which weights decay. `all_but_biases`: all but those with "bias" in their names, so layer norms, embeddings
    and the logit scale do (CLIP4Clip, CenterCLIP); `all` (X-Pool); `matrices`: those with two axes or more."""
    clip_norm: float = 1.0
    """Largest norm of all gradients together; larger ones are clipped."""
    warmup: float = 0.1
    """Share of all steps over which the learning rates rise."""
    schedule: Literal["cosine", "warmup_cosine", "hf_cosine", "centerclip"] = "warmup_cosine"
    """How the rates rise and fall. `warmup_cosine` (CLIP4Clip): from 0 at the first step, then the cosine over all
    steps, which the warm-up enters at .976; `hf_cosine` (X-Pool): from 0, then a cosine over the remaining
    steps; `centerclip`: the same from 1e-8, which is also the minimum; `cosine`: the same, but no step has rate 0."""

    def __post_init__(self) -> None:
        require(
            self.lr_clip >= 0 and self.lr_new >= 0,
            f"optim.lr_clip and optim.lr_new must not be negative; got {self.lr_clip} and {self.lr_new}",
        )
        require(
            0 <= self.warmup < 1,
            f"optim.warmup is a share of the steps in [0, 1); got {self.warmup}",
        )
        require(
            all(0 <= beta < 1 for beta in self.betas),
            f"optim.betas must lie in [0, 1); got {self.betas[0]} and {self.betas[1]}",
        )
        require(self.eps > 0, f"optim.eps must be above 0; got {self.eps}")
        require(self.clip_norm > 0, f"optim.clip_norm must be above 0; got {self.clip_norm}")


@dataclass(frozen=True, kw_only=True)
class Train:
    """The run: how long, on how many workers, with which seed."""

    epochs: int = 5
    """Times that training goes through all pairs of caption and video."""
    batch_size: int = 128
    """Pairs per step over all workers together: the result does not depend on their number."""
    chunk_size: int = 0
    """Pairs embedded at a time (gradient caching); 0 embeds a worker's whole share at once."""
    pieces: int = 0
    """Compute a batch in this many pieces (a power of two), which are summed in a fixed order: losses are
    bit-identical on any number of workers that divides it. With 0, rounding depends on the number of workers;
    also while an elastic number of workers does not divide the pieces."""
    separate_captions: bool = False
    """Put captions of one video into different batches, as far as their numbers allow; in the same batch,
    each would have its own video as a negative."""
    seed: int = 0
    """Decides initial weights, the order of pairs, augmentation and the validation videos."""
    precision: Literal["float32", "bf16"] = "float32"
    """Arithmetic of the towers; weights, head and loss stay float32."""
    workers: int = 1
    """Processes that train; with GPUs, one on each."""
    min_workers: int = 0
    """Fewest workers to continue with when nodes leave; 0 keeps their number fixed."""
    gpus: Literal["auto", "always", "never"] = "auto"
    """One GPU per worker: if the cluster has GPUs; always, refusing a cluster without; or never."""
    checkpoint_steps: int = 0
    """Write a checkpoint after this many steps, in addition to one per epoch; 0: epochs only."""
    checkpoint_minutes: float = 0.0
    """Write a checkpoint when this many minutes have passed since the last one; 0: no such limit."""
    keep_checkpoints: int = 2
    """Checkpoints kept by validation score, in addition to the last one."""
    profile_steps: int = 0
    """Profile this many steps: a trace and a table of a step's parts, in the run's folder and in MLflow."""
    max_failures: int = 3
    """How often a run may lose workers and continue from its last checkpoint; -1: no limit."""

    def on(self, workers: int) -> "Train":
        """A copy with exactly this many workers."""
        return replace(self, workers=workers, min_workers=0, pieces=self.pieces_of(workers))

    def pieces_of(self, workers: int) -> int:
        """`pieces`, or 0 if this number of workers does not divide it."""
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
            self.profile_steps >= 0,
            f"train.profile_steps must not be negative; got {self.profile_steps}",
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
            0 <= self.seed < 2**32,
            f"train.seed must lie in [0, 2**32); got {self.seed}",
        )
        require(
            self.max_failures >= -1,
            f"train.max_failures must be at least -1 (no limit); got {self.max_failures}",
        )
        require(
            self.keep_checkpoints >= 1,
            f"train.keep_checkpoints must be at least 1; got {self.keep_checkpoints}",
        )


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Placement on a cluster with several kinds of node."""

    decode_workers: int = 0
    """Decoding processes; 0 takes all CPUs of the cluster."""
    decode_node: str | None = None
    """Value of the label `node-role` that decode nodes carry; None: any node."""
    train_node: str | None = None
    """Value of the label `node-role` that training nodes carry; None: any node."""
    cpus_per_worker: float = 0.0
    """CPUs per training worker; 0 divides them evenly, or uses up to 4 with a GPU."""

    def __post_init__(self) -> None:
        for name in ("decode_workers", "cpus_per_worker"):
            value = getattr(self, name)
            require(value >= 0, f"cluster.{name} must not be negative; got {value}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment."""

    data: Data
    towers: Towers = field(default_factory=Towers)
    tokens: TokenOptions = field(default_factory=NoTokens)
    temporal: TemporalOptions = field(default_factory=Temporal)
    head: HeadOptions = field(default_factory=TcMgcHead)
    loss: Loss = field(default_factory=Loss)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    cluster: Cluster = field(default_factory=Cluster)

    def __post_init__(self) -> None:
        frames = self.tokens.frames_after(self.data.max_frames)
        self.head.check(self.data.max_words, frames)
        for part in (self.temporal, self.head):
            missing = {"patches"} & set(part.needs) - set(self.tokens.gives)
            require(
                not missing,
                f"{type(part).__name__} needs patches, which a tower with {type(self.tokens).__name__} does not give; "
                "take a token operation that gives them, such as ShiftSelect",
            )
        self.temporal.check(self.tokens.patches_given)
        self.loss.term.check(self.head)
        require(
            not self.loss.alpha or self.head.scores > 1,
            f"loss.alpha is {self.loss.alpha}, but {type(self.head).__name__} has one score: "
            "nothing to decorrelate; set it to 0",
        )
