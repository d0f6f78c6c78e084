"""Towers, temporal encoder and head as one module, and functions that build modules from a config."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tcmgc import config
from tcmgc.heads import Head, Sizes
from tcmgc.towers import backbone, weights
from tcmgc.towers.features import TextFeatures, VideoFeatures
from tcmgc.towers.visual import Pixels
from tcmgc.training import optim
from tcmgc.training.losses import Objective
from tcmgc.training.spans import span


class LogitScale(nn.Module):
    """lambda of Eq. 33-34, a constant or exp of a learnt parameter, and the sigmoid loss's bias.

    A learnt scale is clamped by :meth:`clamp` after every step, as the published systems do: clamping
    in the forward pass would leave no gradient at the maximum, where most recipes start.

    Args:
        options: The config's loss.
    """

    log: Tensor
    bias: Tensor

    def __init__(self, options: config.Loss | None = None) -> None:
        super().__init__()
        options = options or config.Loss()
        self.maximum = torch.tensor(options.max_scale).log().item()
        log = torch.tensor(options.scale).log()
        if options.learn_scale:
            self.log = nn.Parameter(log)
        else:
            self.register_buffer("log", log)
        if options.contrast == "sigmoid":
            self.bias = nn.Parameter(torch.tensor(options.bias))
        else:
            self.register_buffer("bias", torch.tensor(0.0), persistent=False)

    def forward(self) -> Float[Tensor, ""]:
        """The factor that turns similarities into logits."""
        return self.log.exp()

    @torch.no_grad()
    def clamp(self) -> None:
        """Clamp a learnt scale that a step has moved above its maximum."""
        if self.log.requires_grad:
            self.log.clamp_(max=self.maximum)


class Retriever(nn.Module):
    """A text tower, a visual tower, a frame encoder and a scoring rule.

    Args:
        text: Captions' tokens to sentence and words.
        visual: Frames' pixels to frame features.
        head: The scoring rule.
        temporal: Frame encoder; None leaves frames unchanged.
        scale: The loss's factor on similarities.
        encode_padding: Encode padded frames too (see :class:`backbone.VisualTower`).
        autocast: Arithmetic of the towers; features are returned as float32.
    """

    def __init__(
        self,
        text: backbone.TextTower,
        visual: backbone.VisualTower,
        head: Head,
        temporal: nn.Module | None = None,
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
        """Whether a training step draws random numbers, which modules declare by ``draws``."""
        return any(
            getattr(module, "draws", False) for module in self.modules() if module is not self
        )

    @property
    def learnt(self) -> list[Tensor]:
        """Tensors that a step computes gradients of: learnt weights, and only used rows of a word embedding."""
        words = self.text.token_embedding
        return [
            words.used if weight is words.weight and words.used is not None else weight
            for weight in self.parameters()
            if weight.requires_grad
        ]

    def encode_text(
        self, tokens: Int[Tensor, "texts words"], seeds: Int[Tensor, "texts"] | None = None
    ) -> TextFeatures:
        """Sentence and word features of tokenised captions; seeds are passed on to the head."""
        with span("text tower"), self.arithmetic(tokens.device):
            sentence, words, mask = self.text(tokens)
        return TextFeatures(_full(sentence), _full(words), mask, seeds)

    def encode_video(
        self,
        pixels: Pixels,
        frame_mask: Bool[Tensor, "videos frames"],
        seeds: Int[Tensor, "videos"] | None = None,
    ) -> VideoFeatures:
        """Frame features before and after the temporal encoder.

        Args:
            pixels: Decoded frames, or floating-point ones that are already normalised.
            frame_mask: True for real frames.
            seeds: Each video's seed for a token operation in training.
        """
        with span("visual tower"), self.arithmetic(pixels.device):
            frames, left, patches = self.visual(
                pixels, frame_mask, encode_padding=self.encode_padding, seeds=seeds
            )
        return self.encode_frames(frames, left, patches)

    def encode_frames(
        self,
        frames: Float[Tensor, "videos frames dim"],
        frame_mask: Bool[Tensor, "videos frames"],
        patches: Float[Tensor, "videos frames patches dim"] | None = None,
    ) -> VideoFeatures:
        """Apply the temporal encoder to the visual tower's frames."""
        with span("temporal encoder"), self.arithmetic(frames.device):
            encoded = (
                frames if self.temporal is None else self.temporal(frames, frame_mask, patches)
            )
        return VideoFeatures(
            _full(frames),
            _full(encoded),
            frame_mask,
            None if patches is None else _full(patches),
        )

    def arithmetic(self, device: torch.device) -> torch.autocast:
        """The precision that the towers compute in, as a context."""
        return torch.autocast(
            device.type, dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None
        )


def _full(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()


def build(settings: config.Config, *, load: bool = True) -> Retriever:
    """Build the model that a config describes, with its initial weights, on the CPU.

    ``towers.pretrained`` may also be a published system's complete checkpoint, for that method's config.

    Args:
        settings: The config.
        load: Load ``towers.pretrained``; False if a checkpoint's weights are loaded afterwards.

    Raises:
        ValueError: a tower that cannot be loaded, or sizes that do not fit together.
    """
    torch.manual_seed(settings.train.seed)
    whole = None
    try:
        text, visual, dim = _towers(settings, settings.towers.pretrained if load else None)
    except ValueError as error:
        if not isinstance(error.__cause__, weights.WholeModelError):
            raise
        whole = error.__cause__.weights
        text, visual, dim = _towers(settings, None)
    encoder: Any = None
    if not settings.temporal.absent:
        kind = settings.temporal.implementation()
        encoder = kind(settings.temporal, dim, _frames(settings))
        if settings.temporal.starts_from_text:
            encoder.initialise_from(*text.start())
    head = build_head(settings, dim)
    if settings.head.starts_from_text:
        start: Any = head
        start.initialise_from(*text.start())
    retriever = Retriever(
        text,
        visual,
        head,
        encoder,
        scale=LogitScale(settings.loss),
        encode_padding=settings.head.uses_padding,
        autocast=torch.bfloat16 if settings.train.precision == "bf16" else None,
    )
    if whole is not None:
        weights.into_model(retriever, whole)
    return retriever


def _towers(
    settings: config.Config, pretrained: str | None
) -> tuple[backbone.TextTower, backbone.VisualTower, int]:
    return backbone.load_towers(
        settings.towers.name,
        pretrained,
        freeze=settings.towers.freeze,
        checkpoint_activations=settings.towers.checkpoint_activations,
        tokens=settings.tokens,
        frames=settings.data.max_frames,
        pixels=backbone.preprocessing(settings.towers.name, settings.towers.pretrained),
    )


def build_head(settings: config.Config, dim: int) -> Head:
    """The config's head for a joint space of width ``dim``."""
    patches = settings.tokens.patches_given
    sizes = Sizes(dim, settings.data.max_words, _frames(settings), patches)
    return settings.head.implementation()(settings.head, sizes)


def _frames(settings: config.Config) -> int:
    """Frames of a video after the visual tower."""
    return settings.tokens.frames_after(settings.data.max_frames)


def aggregation_parameters(settings: config.Config) -> int | None:
    """Learnable parameters of ISA and Bi-ISA (Tables 5 to 8, Fig. B.1); None for heads without them.

    The head is built without allocating its weights.
    """
    with torch.device("meta"):
        return build_head(settings, backbone.width(settings.towers.name)).aggregation_parameters


def build_optimiser(settings: config.Config, model: nn.Module) -> torch.optim.Optimizer:
    """The config's optimiser over the weights that are trained."""
    return optim.build_optimiser(model, settings.optim)


def build_objective(settings: config.Config) -> Objective:
    """The config's loss."""
    return Objective(settings.loss)
