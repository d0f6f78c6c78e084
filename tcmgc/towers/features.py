"""The contract between towers and heads.

Axis names used in every signature:

| axis   | meaning                                                     |
|--------|-------------------------------------------------------------|
| texts  | queries in a batch or a test set                            |
| videos | gallery items in a batch or a test set                      |
| words  | token positions of a text: start, tokens, end, padding      |
| frames | sampled instants of a video, padded to the longest          |
| dim    | width of the joint space (512 for CLIP ViT-B)               |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Record = TypeVar("Record", bound="_Batched")


class _Batched:
    """Tensors that share their first axis. A field may be None: there is no such tensor."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors that are not None, by field name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if value is not None}

    def map(self: Record, function: Callable[[Tensor], Tensor]) -> Record:
        """The same record with ``function`` applied to every tensor."""
        return type(self)(**{name: function(value) for name, value in self.tensors.items()})

    def __getitem__(self: Record, items: slice | Tensor) -> Record:
        """The same record for some of the items."""
        return self.map(lambda tensor: tensor[items])

    def to(self: Record, device: torch.device | str) -> Record:
        """The same record on another device."""
        return self.map(lambda tensor: tensor.to(device))

    @classmethod
    def cat(cls: type[Record], parts: Sequence[Record]) -> Record:
        """Concatenate several records."""
        names = parts[0].tensors
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True)
class TextFeatures(_Batched):
    """The text tower's output for a batch of captions; not yet L2-normalised."""

    sentence: Float[Tensor, "texts dim"]
    words: Float[Tensor, "texts words dim"]
    word_mask: Bool[Tensor, "texts words"]
    """True from the start token to the end token."""
    seeds: Int[Tensor, "texts"] | None = None
    """In training, seeds for heads that draw random numbers (:mod:`tcmgc.towers.draws`)."""

    def __len__(self) -> int:
        return len(self.sentence)


@dataclass(frozen=True)
class VideoFeatures(_Batched):
    """The outputs of visual tower and temporal encoder for a batch of videos; not normalised."""

    frames: Float[Tensor, "videos frames dim"]
    """CLIP's own frame features, before the temporal encoder."""
    encoded: Float[Tensor, "videos frames dim"]
    """Frames after the temporal encoder; the same tensor as ``frames`` if there is none."""
    frame_mask: Bool[Tensor, "videos frames"]
    """True for real frames."""
    patches: Float[Tensor, "videos frames patches dim"] | None = None
    """Patch features of each frame, if a token operation provides them."""

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class Scores:
    """Similarities of texts and videos, not yet multiplied by the logit scale."""

    similarity: Float[Tensor, "texts videos"]
    grains: dict[str, Float[Tensor, "texts videos"]]
    """The scores that ``similarity`` combines, by the name of their contrast."""
