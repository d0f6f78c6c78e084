"""CLIP's two towers through open_clip: by a model name, one of our JSON files, or a path to one.

open_clip is imported only here, in :mod:`tcmgc.towers.names` and in the token operations.
"""

import contextlib
import logging
from typing import Any

from torch import nn

from tcmgc.config.tokens import NoTokens, TokenOptions
from tcmgc.towers import ending, freezing, hub, weights
from tcmgc.towers.activation import QuickGELU
from tcmgc.towers.embedding import WordEmbedding
from tcmgc.towers.names import (
    TOWERS,
    configuration,
    image_size,
    known_towers,
    open_clip,
    register,
    width,
)
from tcmgc.towers.preprocessing import Preprocessing, preprocessing
from tcmgc.towers.text import TextTower, text_tower
from tcmgc.towers.tokenizer import caption_lengths, counter, spelling, tokenizer
from tcmgc.towers.visual import VisualTower

__all__ = [
    "TOWERS",
    "Preprocessing",
    "TextTower",
    "VisualTower",
    "WordEmbedding",
    "caption_lengths",
    "counter",
    "image_size",
    "known_towers",
    "load_towers",
    "preprocessing",
    "spelling",
    "tokenizer",
    "width",
]

log = logging.getLogger(__name__)


def load_towers(
    name: str,
    pretrained: str | None,
    *,
    freeze: str = "embeddings",
    checkpoint_activations: bool = False,
    tokens: TokenOptions | None = None,
    frames: int = 12,
    pixels: Preprocessing | None = None,
) -> tuple[TextTower, VisualTower, int]:
    """Load both towers, and return them with the width of their joint space.

    Args:
        name: A model (:func:`known_towers`), or the path of an open_clip JSON.
        pretrained: An open_clip tag or a file of weights; None for random ones.
        freeze: What is not trained.
        checkpoint_activations: Recompute activations in the backward pass.
        tokens: The operation on tokens inside the visual tower.
        frames: Frames of a video, for that operation.
        pixels: How frames are normalised; None: as defined by the name and the weights.

    Raises:
        ValueError: an unknown name, weights that are missing or do not fit, or an encoder that
            is unknown or does not support the token operation.
    """
    clip: Any = _create(name, pretrained)
    if checkpoint_activations:
        clip.set_grad_checkpointing(True)
    text = text_tower(clip, ending.of_configuration(configuration(name)["text_cfg"]))
    operation = None
    if tokens is not None and not isinstance(tokens, NoTokens):
        operation = tokens.implementation()(tokens, clip.visual, frames, width(name))
    pixels = pixels or preprocessing(name, pretrained)
    visual = VisualTower(clip, operation, mean=pixels.mean, std=pixels.std)
    for tower in (text, visual):
        _lighten(tower)
    freezing.freeze(text, visual, freeze)
    return text, visual, width(name)


def _create(name: str, pretrained: str | None) -> Any:
    """open_clip's model with its weights."""
    registered = register(name)
    tags = open_clip().list_pretrained_tags_by_model(registered)
    if pretrained in tags:
        return _built(registered, pretrained)
    clip = _built(registered, None)
    if pretrained is not None and not weights.exists(pretrained):
        raise ValueError(
            f"towers.pretrained: {pretrained!r} is neither a file nor a tag of {name}; "
            f"its tags: {', '.join(tags) or 'none'}"
        )
    if pretrained is not None:
        try:
            what = weights.into_clip(clip, weights.read(pretrained), name)
        except ValueError as error:
            raise ValueError(f"towers.pretrained: {error}") from error
        log.info("%s: %s", pretrained, what)
    return clip


def _built(registered: str, tag: str | None) -> Any:
    if "hf_model_name" in configuration(registered)["text_cfg"]:
        _need_transformers(registered)
    reach = contextlib.nullcontext() if tag is None else hub.offline_if_unreachable()
    try:
        with reach:
            return open_clip().create_model(
                registered, pretrained=tag, load_weights=tag is not None, pretrained_text=False
            )
    except (RuntimeError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"towers.pretrained: the weights {tag!r} of {registered} could not be loaded: {first}. "
            "Without internet, give the path of a checkpoint file"
        ) from error


def _need_transformers(name: str) -> None:
    import importlib.util

    if importlib.util.find_spec("transformers") is None:
        raise ValueError(
            f"towers.name: the text encoder of {name} is one of the transformers package: "
            "`pip install 'tcmgc[hf]'`"
        )


def _lighten(tower: nn.Module) -> None:
    """Replace open_clip's activation by ours, which computes the same function."""
    theirs = [
        (parent, name)
        for parent in tower.modules()
        for name, child in parent.named_children()
        if isinstance(child, open_clip().transformer.QuickGELU)
    ]
    for parent, name in theirs:
        setattr(parent, name, QuickGELU())
