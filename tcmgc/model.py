"""Towers, temporal encoder and head as one module, and the one place where config meets modules."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from tcmgc import config
from tcmgc.config import temporal as options
from tcmgc.heads import Head, TcMgc, XClip, XPool
from tcmgc.heads.parts.attention import LanguageVideoAttention
from tcmgc.towers import backbone
from tcmgc.towers.features import TextFeatures, VideoFeatures
from tcmgc.towers.temporal import TemporalEncoder
from tcmgc.training import optim
from tcmgc.training.objective import Objective


class LogitScale(nn.Module):
    """lambda of Eq. 33-34: a constant, or exp of a learnt parameter that is clamped."""

    log: Tensor

    def __init__(
        self, scale: float = 100.0, *, learnt: bool = False, maximum: float = 100.0
    ) -> None:
        super().__init__()
        self.maximum = maximum
        log = torch.tensor(scale).log()
        if learnt:
            self.log = nn.Parameter(log)
        else:
            self.register_buffer("log", log)
        self.learnt = learnt

    def forward(self) -> Float[Tensor, ""]:
        """The factor that turns similarities into logits."""
        return (
            self.log.clamp(max=torch.tensor(self.maximum).log().item()).exp()
            if self.learnt
            else self.log.exp()
        )


class Retriever(nn.Module):
    """A text tower, a visual tower, a frame encoder and a scoring rule.

    Args:
        text: Captions' tokens to sentence and words.
        visual: Frames' pixels to frame features.
        head: Has ``record(video)`` and ``score(text, record, scale)``.
        temporal: Frame encoder; None leaves frames as they are.
        scale: What similarities are multiplied by in the loss.
        encode_padding: Send padded frames through the towers too (see :class:`backbone.VisualTower`).
        autocast: Arithmetic of the towers; features come out as float32.
    """

    def __init__(
        self,
        text: backbone.TextTower,
        visual: backbone.VisualTower,
        head: Head,
        temporal: TemporalEncoder | None = None,
        *,
        scale: LogitScale | None = None,
        encode_padding: bool = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.text = text
        self.visual = visual
        self.temporal = temporal
        self.head = head
        self.scale = scale or LogitScale()
        self.encode_padding = encode_padding
        self.autocast = autocast

    @property
    def draws(self) -> bool:
        """Whether a training step draws random numbers (dropout)."""
        return any(
            module.dropout > 0
            for module in self.modules()
            if isinstance(module, LanguageVideoAttention)
        )

    @property
    def learnt(self) -> list[Tensor]:
        """What a step takes gradients of: all weights that are learnt, of a word embedding in use the used rows."""
        return self.learnt_in(self)

    def learnt_in(self, part: nn.Module) -> list[Tensor]:
        """Those of :attr:`learnt` that belong to a part of the model."""
        words = self.text.token_embedding
        return [
            words.used if weight is words.weight and words.used is not None else weight
            for weight in part.parameters()
            if weight.requires_grad
        ]

    def encode_text(self, tokens: Int[Tensor, "texts words"]) -> TextFeatures:
        """Sentence and word features of tokenised captions."""
        with self._arithmetic(tokens.device):
            sentence, words, mask = self.text(tokens)
        return TextFeatures(_full(sentence), _full(words), mask)

    def encode_video(
        self,
        pixels: UInt8[Tensor, "videos frames 3 size size"],
        frame_mask: Bool[Tensor, "videos frames"],
    ) -> VideoFeatures:
        """Frame features before and after the temporal encoder."""
        with self._arithmetic(pixels.device):
            frames, frame_mask, _ = self.visual(
                pixels, frame_mask, encode_padding=self.encode_padding
            )
            encoded = frames if self.temporal is None else self.temporal(frames, frame_mask)
        return VideoFeatures(_full(frames), _full(encoded), frame_mask)

    def _arithmetic(self, device: torch.device) -> torch.autocast:
        return torch.autocast(
            device.type, dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None
        )


def _full(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()


def build(settings: config.Config) -> Retriever:
    """The model that a config describes, with its starting weights, on the CPU.

    Raises:
        ValueError: a tower that cannot be had, or sizes that do not fit together.
    """
    torch.manual_seed(settings.train.seed)
    towers, temporal = settings.towers, settings.temporal
    text, visual, dim = backbone.load_towers(
        towers.name,
        towers.pretrained,
        freeze=towers.freeze,
        checkpoint_activations=towers.checkpoint_activations,
    )
    encoder = None
    if temporal.layers:
        encoder = TemporalEncoder(
            options.Temporal(
                layers=temporal.layers,
                heads=temporal.heads,
                residual=temporal.residual,
            ),
            dim,
            settings.data.max_frames,
        )
        if temporal.initialise_from_text:
            encoder.initialise_from(text.transformer.resblocks, text.positional_embedding)
    head = HEADS[type(settings.head)](
        settings.head, dim, settings.data.max_words, settings.data.max_frames
    )
    loss = settings.loss
    attention = getattr(settings.head, "attention", None)
    return Retriever(
        text,
        visual,
        head,
        encoder,
        scale=LogitScale(loss.scale, learnt=loss.learn_scale, maximum=loss.max_scale),
        encode_padding=attention is not None and not attention.mask_frames,
        autocast=torch.bfloat16 if settings.train.precision == "bf16" else None,
    )


def build_optimiser(settings: config.Config, model: nn.Module) -> torch.optim.Optimizer:
    """The config's optimiser over the weights that are trained."""
    o = settings.optim
    return optim.build_optimiser(
        model,
        kind=o.kind,
        lr_clip=o.lr_clip,
        lr_new=o.lr_new,
        betas=o.betas,
        eps=o.eps,
        weight_decay=o.weight_decay,
    )


def build_objective(settings: config.Config) -> Objective:
    """The config's loss."""
    loss = settings.loss
    return Objective(
        alpha=loss.alpha,
        sdr_pairs=loss.sdr_pairs,
        sdr_biased=loss.sdr_biased,
        sdr_on_logits=loss.sdr_on_logits,
        directions=loss.directions,
    )


def _tcmgc(head: config.TcMgcHead, dim: int, words: int, frames: int) -> TcMgc:
    attention, reorganise, aggregate = head.attention, head.reorganise, head.aggregate
    return TcMgc(
        dim,
        words=words,
        frames=frames,
        grains=head.grains,
        text_conditioned=head.text_conditioned,
        heads=attention.heads,
        residual=attention.residual,
        projections=attention.projections,
        dropout=attention.dropout,
        mask_frames=attention.mask_frames,
        keep_rate=reorganise.keep_rate,
        video_word=reorganise.video_word,
        sentence_frame=reorganise.sentence_frame,
        frame_word_words=reorganise.frame_word_words,
        frame_word_frames=reorganise.frame_word_frames,
        vectors=aggregate.vectors,
        temperature=aggregate.temperature,
        scores=aggregate.scores,
        lsa_on_logits=aggregate.lsa_on_logits,
        mask_words=head.mask_words,
        learnt_products=head.learnt_products,
    )


HEADS: dict[type, Callable[[Any, int, int, int], Head]] = {
    config.TcMgcHead: _tcmgc,
    config.XPoolHead: lambda head, dim, words, frames: XPool(
        dim=dim, heads=head.heads, dropout=head.dropout
    ),
    config.XClipHead: lambda head, dim, words, frames: XClip(
        dim, words=words, frames=frames, temperature=head.temperature
    ),
}
"""How each head's config becomes a module: (config, dim, words, frames)."""
