"""Load a file's weights into an open_clip model, under any known naming scheme."""

import re
from typing import Any

from torch import Tensor, nn

from tcmgc.towers import published
from tcmgc.towers.weights.files import Weights

_OPENAI = ("input_resolution", "context_length", "vocab_size")
_OURS = "visual.visual."
_PROJECT = "the towers of a checkpoint of this project"


class WholeModelError(ValueError):
    """The file is a published system's complete model; :attr:`weights` contains it."""

    def __init__(self, message: str, weights: Weights) -> None:
        super().__init__(message)
        self.weights = weights


def into_clip(clip: nn.Module, weights: Weights, name: str) -> str:
    """Load the weights into an open_clip model; return a description of their origin.

    Recognised by their names: OpenAI's, open_clip's, transformers' ``CLIPModel``, Apple's MobileCLIP, and
    checkpoints of this project, whose towers are used. As in open_clip, positions of another image
    size or text length and the shape of the logit scale are adapted.

    Args:
        clip: An open_clip model, float32.
        weights: Read by :func:`tcmgc.towers.weights.read`, in any precision.
        name: The model's name, for messages.

    Raises:
        WholeModelError: a complete model of a published system.
        ValueError: unknown weights, or weights that do not fit, with the keys that are missing, unknown or of another shape.
    """
    state, whose = _open_clip_names(weights)
    state = _adapted(clip, state)
    if whose == _PROJECT:
        state |= {k: v for k, v in clip.state_dict().items() if k in ("logit_scale", "logit_bias")}
    wrong = differences(clip.state_dict(), state)
    if wrong:
        raise ValueError(
            f"{weights.path} ({whose}) does not fit {name}: {wrong}; give the tower's own weights, or the tower "
            "that they are of (towers.name)"
        )
    clip.load_state_dict(state, strict=False)
    return f"{weights.container} with {whose}"


def differences(expected: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """Describe how names and shapes of two state dicts differ; empty if they do not."""
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    parts = [
        f"{len(names)} of {len(expected)} {what}: {_some(names)}"
        for what, names in (
            ("weights are missing", missing),
            ("have another shape", shapes),
        )
        if names
    ]
    if unknown:
        parts.append(f"{len(unknown)} unknown: {_some(unknown)}")
    return "; ".join(parts)


def _some(names: list[str]) -> str:
    rest = len(names) - 6
    return ", ".join(names[:6]) + (f" and {rest} more" if rest > 0 else "")


def _open_clip_names(weights: Weights) -> tuple[dict[str, Tensor], str]:
    state = weights.tensors
    if any(name.startswith(("text_model.", "vision_model.")) for name in state):
        try:
            return published.from_huggingface(state), "weights of transformers' CLIPModel"
        except (ValueError, KeyError) as error:
            raise ValueError(f"{weights.path}: {error}") from error
    if any(name.startswith(_OURS) for name in state):
        towers = {
            re.sub(r"^(visual|text)\.", "", name) if name.startswith("text.") else name[7:]: value
            for name, value in state.items()
            if name.startswith((_OURS, "text."))
        }
        return towers, _PROJECT
    system = published.recognise(state)
    if system is not None:
        raise WholeModelError(
            f"{weights.path} is a whole model of {system.name} and not a tower's weights alone; give it to that "
            "method's config, which takes all of it",
            weights,
        )
    if all(name in state for name in _OPENAI):
        state = {name: value for name, value in state.items() if name not in _OPENAI}
        return state, "OpenAI's CLIP"
    if any(name.startswith("image_encoder.") for name in state):
        return state, "Apple's MobileCLIP"
    if any(name.startswith("visual.") for name in state):
        return state, "weights of an open_clip model"
    raise ValueError(
        f"{weights.path} is {weights.container} of something else than a CLIP: its weights are named "
        f"{', '.join(list(state)[:4])}"
    )


def _adapted(clip: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adapt a state dict as open_clip's ``load_checkpoint`` does."""
    from open_clip import convert, model

    state = dict(state)
    state = convert.convert_state_dict(clip, state)
    if "positional_embedding" in state and not hasattr(clip, "positional_embedding"):
        state = model.convert_to_custom_text_state_dict(state)
    own = clip.state_dict()
    for name in ("logit_scale", "logit_bias"):
        if name in state and name in own and state[name].numel() == 1:
            state[name] = state[name].reshape(own[name].shape)
    if "logit_bias" in own and "logit_bias" not in state:
        state["logit_bias"] = own["logit_bias"] * 0
    state.pop("text.transformer.embeddings.position_ids", None)
    for name, resize in (
        ("visual.positional_embedding", model.resize_pos_embed),
        ("positional_embedding", model.resize_text_pos_embed),
        ("text.positional_embedding", model.resize_text_pos_embed),
    ):
        given, wanted = state.get(name), own.get(name)
        if given is None or wanted is None or given.ndim != 2 or given.shape == wanted.shape:
            continue
        square = name != "visual.positional_embedding" or (len(given) - 1) ** 0.5 % 1 == 0
        if given.shape[1] == wanted.shape[1] and square:
            state[name] = given.float()
            resize(state, clip)
    return state
