"""The preprocessing of pixels that an image encoder expects."""

from dataclasses import dataclass
from typing import Any, get_args

from tcmgc.towers.names import FOLDER, folder_configuration, image_size, open_clip, register
from tcmgc.video.pixels import Kernel, Resize


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded frame to the encoder's input."""

    size: int
    """Side of the square in pixels."""
    mean: tuple[float, ...]
    """Means of red, green and blue, in [0, 1]."""
    std: tuple[float, ...]
    """Their standard deviations."""
    kernel: Kernel = "bicubic"
    """Interpolation used for scaling."""
    resize: Resize = "shortest"
    """`shortest`: scale the shorter side to the size and cut out the centre; `squash`: scale both sides to it."""


def preprocessing(name: str, pretrained: str | None) -> Preprocessing:
    """The preprocessing for a model's name and the weights' tag.

    For weights from a file, and without weights, each field is the value that all tags of the model
    have in common, or else that of OpenAI's CLIP.

    Args:
        name: ``towers.name``.
        pretrained: ``towers.pretrained``.

    Raises:
        ValueError: the model's preprocessing is not supported.
    """
    known = open_clip()
    found: dict[str, Any] = {
        "mean": known.OPENAI_DATASET_MEAN,
        "std": known.OPENAI_DATASET_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    if name.startswith(FOLDER):
        found |= folder_configuration(name).get("preprocess_cfg", {})
    else:
        registered = register(name)
        tags = known.list_pretrained_tags_by_model(registered)
        chosen = [pretrained] if pretrained in tags else tags
        every = [known.get_pretrained_cfg(registered, tag) for tag in chosen]
        for field in found:
            values = {str(one[field]): one[field] for one in every if field in one}
            if len(values) == 1:
                found[field] = next(iter(values.values()))
    kernel, resize = found["interpolation"], found["resize_mode"]
    if kernel not in get_args(Kernel) or resize not in get_args(Resize):
        raise ValueError(
            f"towers.name: {name} takes frames scaled by {kernel}, {resize}; known are {get_args(Kernel)} and "
            f"{get_args(Resize)}"
        )
    return Preprocessing(
        image_size(name),
        tuple(map(float, found["mean"])),
        tuple(map(float, found["std"])),
        kernel,
        resize,
    )
