"""Methods: a function from config to config each, on any data recipe.

A method is a row of parts (token operation, temporal encoder, head, loss). As a function it puts
them into a recipe's config together with what its authors published for that data set: lengths,
batch, epochs, rates, optimiser, what is frozen. Where they published nothing for it, the nearest of
what they did; on the demo corpus and on your own videos, for which nobody published anything, the
recipe's own settings stay. :func:`note` says which it is. :func:`applied` with ``fair=True`` leaves all
settings as the recipe has them, so that methods differ by their parts alone.

Settings are those of each system's published scripts. Not repeated are float16 weights (see
:mod:`tcmgc.recipes.data` on rates), and the choice of the best epoch on the test split, which most make.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from tcmgc import config as fields
from tcmgc.config import (
    Aggregate,
    Attention,
    ChannelDecorrelation,
    Config,
    HeadOptions,
    Loss,
    Lstm,
    MeanHead,
    MeanMaxHead,
    NoTokens,
    Optim,
    Patch3d,
    PatchTransformer,
    ShiftSelect,
    TcMgcHead,
    Temporal,
    TemporalOptions,
    TightHead,
    TokenOptions,
    TokenSelectionHead,
    UcofiaHead,
    WtiHead,
    XClipHead,
    XPoolHead,
)
from tcmgc.config.tokens import ChannelShift, Cluster


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What authors published for one data set. The defaults are CLIP4Clip's for short clips."""

    words: int = 32
    frames: int = 12
    epochs: int = 5
    batch: int = 128
    optim: Optim = field(default_factory=Optim)
    freeze: Literal["none", "embeddings"] = "embeddings"
    more: Mapping[str, Any] = field(default_factory=dict)
    """Other fields, by dotted path."""
    b16: Mapping[str, Any] = field(default_factory=dict)
    """Fields that differ on ViT-B/16, by dotted path."""

    def on(self, config: Config) -> Config:
        """A method's config with these settings."""
        changed = replace(
            config,
            data=replace(config.data, max_words=self.words, max_frames=self.frames),
            towers=replace(config.towers, freeze=self.freeze),
            optim=self.optim,
            train=replace(config.train, epochs=self.epochs, batch_size=self.batch),
        )
        more = {**self.more, **(self.b16 if "B-16" in config.towers.name else {})}
        return fields.replace(changed, more) if more else changed


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of parts, and its authors' settings by data set."""

    title: str
    """Its name, as papers write it."""
    line: str
    """What it is, in a line."""
    tokens: TokenOptions = field(default_factory=NoTokens)
    temporal: TemporalOptions = field(default_factory=lambda: Temporal(layers=0))
    head: HeadOptions
    loss: Loss = field(default_factory=lambda: Loss(alpha=0.0, directions="mean", learn_scale=True))
    published: Mapping[str, Settings] = field(default_factory=dict)
    """By data set: msrvtt, msvd, lsmdc, vatex, didemo, activitynet."""

    def parts(self, config: Config) -> Config:
        """The recipe's config with this method's parts; on the demo's small towers, small ones."""
        small = config.towers.name == "demo"
        loss = self.loss
        if loss.scale == Loss().scale:  # where the method does not say, the recipe does
            loss = replace(loss, scale=config.loss.scale)
        return replace(
            config,
            tokens=self.tokens.small() if small else self.tokens,
            temporal=self.temporal.small() if small else self.temporal,
            head=self.head.small() if small else self.head,
            loss=loss.small() if small else loss,
        )

    def __call__(self, config: Config) -> Config:
        """The recipe's config with this method's parts and its authors' settings."""
        source, config = self.source(config), self.parts(config)
        return config if source is None else self.published[source].on(config)

    def source(self, config: Config) -> str | None:
        """The data set whose published settings are taken; None: the recipe's own stay."""
        wanted = _set_of(config)
        if wanted is None or not self.published:
            return None
        near = [wanted, *_NEAR[wanted], *self.published]
        return next(name for name in near if name in self.published)


_NEAR = {
    "msrvtt": (),
    "msvd": ("msrvtt",),
    "lsmdc": ("msrvtt",),
    "vatex": ("msrvtt",),
    "didemo": ("activitynet",),
    "activitynet": ("didemo",),
}
"""Where to look next: short clips at MSR-VTT, paragraphs at each other."""


def _set_of(config: Config) -> str | None:
    """The data set's name without its split; None for the demo corpus and one's own videos."""
    name = config.data.dataset.removesuffix("_9k").removesuffix("_7k")
    return name if name in _NEAR else None


def find(name: str) -> Method:
    """The method of this name.

    Raises:
        ValueError: there is none; names near ones.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=3)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise ValueError(f"there is no method {name!r}{hint}; known are {', '.join(METHODS)}")
    return METHODS[name]


def title(config: Config) -> str:
    """The name of a config's method: of the one whose parts it has, or parts of the same kinds.

    The head's name where no method has such parts.
    """

    def parts(of: Config) -> tuple[Any, ...]:
        return of.tokens, of.temporal, of.head

    mine, kinds = parts(config), tuple(map(type, parts(config)))
    rows = [(one, one.parts(config)) for one in METHODS.values()]
    same = [(one, theirs) for one, theirs in rows if parts(theirs) == mine]
    for one, theirs in same:
        if replace(theirs.loss, scale=config.loss.scale) == config.loss:
            return one.title
    alike = [(one, theirs) for one, theirs in rows if tuple(map(type, parts(theirs))) == kinds]
    for one, _ in (*same, *alike):
        return one.title
    return type(config.head).__name__.removesuffix("Head")


def applied(config: Config, name: str, *, fair: bool = False) -> Config:
    """A recipe's config with a method.

    Args:
        config: Data and towers, and the settings that stay where ``fair`` or nothing was published.
        name: One of :data:`METHODS`.
        fair: The same batch, epochs, rates, optimiser, lengths and frozen weights for all methods: the config's.

    Raises:
        ValueError: no such method, or one that these data or towers cannot carry.
    """
    method = find(name)
    return method.parts(config) if fair else method(config)


FAIR: Mapping[str, Mapping[str, Any]] = {"demo": {"optim.lr_new": 3e-4}}
"""By data set: fields of the recipe that are changed where methods are compared.

The demo recipe's rate for new weights, 1.5e-3, left X-Pool at 5.5 % R@1 on the test split after its four
epochs and tightTransf at 1.5 %. What this one gives after one epoch is in docs/log.md, 2026-11-26."""


def fair(config: Config) -> Config:
    """A data recipe with the settings that all methods get alike where they are compared."""
    changes = FAIR.get(config.data.dataset)
    return fields.replace(config, dict(changes)) if changes else config


def note(config: Config, name: str, *, fair: bool = False) -> str:
    """Whose settings :func:`applied` takes, in a sentence."""
    method, data = find(name), config.data.dataset
    source = method.source(config)
    if fair:
        return f"{name}: batch, epochs, rates and optimiser are the recipe's, as for every method"
    if source is None:
        return f"{name}: its authors published no settings for {data}; the recipe's own stay"
    if source == _set_of(config):
        return f"{name}: its authors' settings for {source}"
    return f"{name}: its authors published no settings for {data}; those for {source} are taken"


SHORT, LONG = Settings(), Settings(words=64, frames=64)
_CLIP4CLIP = {
    "msrvtt": SHORT,
    "msvd": SHORT,
    "lsmdc": SHORT,
    "didemo": LONG,
    "activitynet": LONG,
}
_UNFROZEN = {name: replace(one, freeze="none") for name, one in _CLIP4CLIP.items()}
"""With 3d patches a test in CLIP4Clip's code lets everything learn."""

SEQ_TRANSF = Temporal(layers=4, heads=0, residual=True, initialise_from_text=True, norm_eps=1e-12)
"""CLIP4Clip's."""

_XCLIP = {
    "msrvtt": replace(SHORT, batch=300, b16={"train.batch_size": 80}),
    "msvd": replace(SHORT, batch=300, b16={"train.batch_size": 80}),
    "lsmdc": replace(SHORT, batch=300, b16={"train.batch_size": 80}),
    "didemo": replace(LONG, batch=64, b16={"train.batch_size": 16}, epochs=20),
    "activitynet": replace(LONG, batch=112, b16={"train.batch_size": 32}, epochs=20),
}


def _xpool(rate: float, dropout: float) -> Settings:
    optim = Optim(
        kind="hf_adamw",
        lr_clip=1e-6,
        lr_new=rate,
        betas=(0.9, 0.999),
        decay="all",
        schedule="hf_cosine",
    )
    more = {"head.dropout": dropout, "data.sampler": "middle", "data.augment": True}
    return Settings(words=77, batch=32, optim=optim, freeze="none", more=more)


def _centerclip(
    rate: float = 5e-3,
    more: Mapping[str, Any] = MappingProxyType({}),
    b16: Mapping[str, Any] = MappingProxyType({}),
) -> Settings:
    optim = Optim(kind="adamw", lr_clip=1e-3 * rate, lr_new=rate, schedule="centerclip")
    # The authors' automatic mixed precision is float16's.
    more = {"train.precision": "bf16", "data.fps": 3.0, **more}
    return Settings(optim=optim, more=more, b16=b16)


_PARAGRAPHS: dict[str, Any] = {"words": 77, "frames": 60, "epochs": 8}
_CENTERCLIP = {
    "msrvtt": _centerclip(),
    "msvd": _centerclip(),
    "lsmdc": _centerclip(),
    "activitynet": replace(_centerclip(1e-2), **_PARAGRAPHS),
}
_160 = {"tokens.clusters": (160,)}
_CLUSTERED = {
    "msrvtt": _centerclip(more={"tokens.p": 1.0}, b16=_160),
    "msvd": _centerclip(more={"tokens.segments": (4,)}, b16=_160),
    "lsmdc": _centerclip(b16=_160),
    "activitynet": replace(
        _centerclip(1e-2, {"tokens.segments": (20,)}, {"tokens.segments": (15,), **_160}),
        **_PARAGRAPHS,
    ),
}
"""Of k-medoids, besides."""

_DRL = {"msrvtt": replace(SHORT, freeze="none")}
_UCOFIA = {"msrvtt": replace(SHORT, epochs=15), "vatex": replace(SHORT, epochs=15)}
_TCMGC = {
    "msrvtt": SHORT,
    "vatex": SHORT,
    "didemo": replace(LONG, epochs=20, batch=64),
}


def _drl_loss(of: Any) -> Loss:
    term = ChannelDecorrelation(of=of)
    return Loss(alpha=0.0, directions="mean", learn_scale=True, term=term)


METHODS: dict[str, Method] = {
    "clip4clip_meanp": Method(
        title="CLIP4Clip meanP",
        line="CLIP4Clip (2021): the sentence with the mean of frames",
        head=MeanHead(),
        published=_CLIP4CLIP,
    ),
    "clip4clip_seqlstm": Method(
        title="CLIP4Clip seqLSTM",
        line="CLIP4Clip with an LSTM over frames",
        temporal=Lstm(),
        head=MeanHead(),
        published=_CLIP4CLIP,
    ),
    "clip4clip_seqtransf": Method(
        title="CLIP4Clip seqTransf",
        line="CLIP4Clip with a transformer over frames",
        temporal=SEQ_TRANSF,
        head=MeanHead(),
        published=_CLIP4CLIP,
    ),
    "clip4clip_tighttransf": Method(
        title="CLIP4Clip tightTransf",
        line="CLIP4Clip with a transformer over the sentence and the frames of each pair",
        head=TightHead(),
        loss=Loss(alpha=0.0, directions="mean", scale=1.0),
        published=_CLIP4CLIP,
    ),
    "clip4clip_3d": Method(
        title="CLIP4Clip seqTransf, 3d patches",
        line="CLIP4Clip's seqTransf with patches that span three frames",
        tokens=Patch3d(),
        temporal=SEQ_TRANSF,
        head=MeanHead(),
        published=_UNFROZEN,
    ),
    "xpool": Method(
        title="X-Pool",
        line="X-Pool (2022): the video as the sentence attends to its frames",
        head=XPoolHead(),
        published={
            "msrvtt": _xpool(3e-5, 0.3),
            "msvd": _xpool(1e-5, 0.4),
            "lsmdc": _xpool(1e-5, 0.3),
        },
    ),
    "centerclip": Method(
        title="CenterCLIP",
        line="CenterCLIP (2022): patches of neighbouring frames clustered by k-medoids",
        tokens=Cluster(),
        head=MeanHead(),
        published=_CLUSTERED,
    ),
    "centerclip_spectral": Method(
        title="CenterCLIP, spectral",
        line="CenterCLIP with spectral clustering",
        tokens=Cluster(algorithm="spectral"),
        head=MeanHead(),
        published=_CENTERCLIP,
    ),
    "centerclip_pooling": Method(
        title="CenterCLIP, pooling",
        line="CenterCLIP's baseline: the mean over a segment's frames in place of clusters",
        tokens=Cluster(algorithm="pooling"),
        head=MeanHead(),
        published=_CENTERCLIP,
    ),
    "centerclip_sparse": Method(
        title="CenterCLIP, sparse sampling",
        line="CenterCLIP's baseline: patches at regular places in place of clusters",
        tokens=Cluster(algorithm="sparse_sampling"),
        head=MeanHead(),
        published=_CENTERCLIP,
    ),
    "centerclip_token_shift": Method(
        title="CenterCLIP, token shift",
        line="CenterCLIP's baseline: channels of class tokens shifted between frames",
        tokens=ChannelShift(of="class"),
        head=MeanHead(),
        published=_CENTERCLIP,
    ),
    "centerclip_temporal_shift": Method(
        title="CenterCLIP, temporal shift",
        line="CenterCLIP's baseline: channels of patches shifted between frames",
        tokens=ChannelShift(of="patches"),
        head=MeanHead(),
        published=_CENTERCLIP,
    ),
    "ts2net": Method(
        title="TS2-Net",
        line="TS2-Net (2022): tokens shifted between frames, and the best patches of each",
        tokens=ShiftSelect(),
        temporal=PatchTransformer(),
        head=TokenSelectionHead(),
        published={"msrvtt": SHORT, "vatex": SHORT},
    ),
    "xclip": Method(
        title="X-CLIP",
        line="X-CLIP (2022): four contrasts of sentence, words, video and frames",
        temporal=SEQ_TRANSF,
        head=XClipHead(),
        published=_XCLIP,
    ),
    "xclip_meanp": Method(
        title="X-CLIP meanP",
        line="X-CLIP without a temporal encoder",
        head=XClipHead(),
        published=_XCLIP,
    ),
    "drl": Method(
        title="DRL",
        line="DRL (2022): words with frames, weighed by learnt weights (WTI); channels decorrelated",
        temporal=SEQ_TRANSF,
        head=WtiHead(),
        loss=_drl_loss("weighted_tokens"),
        published=_DRL,
    ),
    "drl_ti": Method(
        title="DRL, TI",
        line="DRL with words and frames that all count the same (TI)",
        temporal=SEQ_TRANSF,
        head=WtiHead(weights="equal"),
        loss=_drl_loss("tokens"),
        published=_DRL,
    ),
    "drl_dp": Method(
        title="DRL, DP",
        line="DRL with one vector each (DP)",
        temporal=SEQ_TRANSF,
        head=MeanHead(),
        loss=_drl_loss("pooled"),
        published=_DRL,
    ),
    "ucofia": Method(
        title="UCoFiA",
        line="UCoFiA (2023): the sentence with video and frames, words with selected patches",
        tokens=ShiftSelect(),
        temporal=SEQ_TRANSF,
        head=UcofiaHead(),
        published=_UCOFIA,
    ),
    "ucofia_eval_t2v": Method(
        title="UCoFiA, text-to-video evaluation",
        line="UCoFiA by the formula and the selector of its authors' text-to-video evaluation",
        tokens=ShiftSelect(selector="video"),
        temporal=SEQ_TRANSF,
        head=UcofiaHead(tree="eval"),
        published=_UCOFIA,
    ),
    "ucofia_eval_v2t": Method(
        title="UCoFiA, video-to-text evaluation",
        line="UCoFiA by the formula of its authors' video-to-text evaluation",
        tokens=ShiftSelect(),
        temporal=SEQ_TRANSF,
        head=UcofiaHead(tree="eval"),
        published=_UCOFIA,
    ),
    "mean_max": Method(
        title="Video-ColBERT mean-max",
        line="Video-ColBERT (2025): each word's best frame, before and after the temporal encoder",
        temporal=SEQ_TRANSF,
        head=MeanMaxHead(),
        loss=Loss(
            contrast="sigmoid",
            each_score=True,
            alpha=0.0,
            scale=10.0,
            learn_scale=True,
            bias=-10.0,
        ),
    ),
    "tcmgc": Method(
        title="TC-MGC",
        line="TC-MGC as the paper's text has it",
        temporal=Temporal(),
        head=TcMgcHead(),
        loss=Loss(),
        published=_TCMGC,
    ),
    "tcmgc_released": Method(
        title="TC-MGC as released",
        line="TC-MGC as its authors' released code has it",
        temporal=SEQ_TRANSF,
        head=TcMgcHead(
            attention=Attention(
                projections=False, dropout=0.3, mask_frames=False, initialise="normal"
            ),
            aggregate=Aggregate(temperature=0.01, lsa_on_logits=True),
            learnt_products=True,
        ),
        loss=Loss(sdr_on_logits=True, directions="mean", learn_scale=True),
        published=_TCMGC,
    ),
}
"""Methods by name."""
