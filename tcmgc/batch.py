"""A share of a batch, and its features with the way back through the towers."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from tcmgc.features import TextFeatures, VideoFeatures
from tcmgc.model import Retriever


@dataclass(frozen=True)
class Batch:
    """This worker's share of a batch: text i belongs to video i."""

    tokens: Int[Tensor, "pairs words"]
    pixels: UInt8[Tensor, "pairs frames 3 size size"]
    frame_mask: Bool[Tensor, "pairs frames"]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, pairs: slice) -> "Batch":
        """Some of the pairs."""
        return Batch(*[getattr(self, field.name)[pairs] for field in fields(self)])


class Encoded:
    """Features of a batch as leaves; :meth:`backward` sends their gradients through the towers.

    Args:
        model: Has the towers.
        batch: What to embed.
        chunk_size: Pairs that are embedded at a time: first without graph, then once more with
            it, when the gradient of the features is known (gradient caching). The result is the
            same; memory no longer grows with the batch. 0 embeds all at once, and once.
    """

    def __init__(self, model: Retriever, batch: Batch, chunk_size: int = 0) -> None:
        self.model, self.batch = model, batch
        size = chunk_size or len(batch)
        starts = range(0, len(batch), size)
        self.chunks = [slice(start, min(start + size, len(batch))) for start in starts]
        with torch.set_grad_enabled(not chunk_size):
            parts = [self._encode(chunk) for chunk in self.chunks]
        self.kept = None if chunk_size else parts[0]
        self.text = TextFeatures.cat([text for text, _ in parts]).map(leaf)
        self.video = VideoFeatures.cat([video for _, video in parts]).map(leaf)

    def _encode(self, chunk: slice) -> tuple[TextFeatures, VideoFeatures]:
        batch = self.batch[chunk]
        return (
            self.model.encode_text(batch.tokens),
            self.model.encode_video(batch.pixels, batch.frame_mask),
        )

    def backward(self) -> None:
        """Add to the gradients of the towers what the leaves' gradients say."""
        for outputs, gradients in self.ways_back():
            if outputs:
                torch.autograd.backward(outputs, gradients)

    def ways_back(self) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """A chunk at a time, what the towers gave and what the leaves' gradients say of it."""
        for chunk in self.chunks:
            outputs, gradients = [], []
            features, self.kept = self.kept or self._encode(chunk), None
            for made, leaves in zip(features, (self.text, self.video), strict=True):
                for name in vars(leaves):
                    output, gradient = getattr(made, name), getattr(leaves, name).grad
                    if output.requires_grad and gradient is not None:
                        outputs.append(output)
                        gradients.append(gradient[chunk])
            yield outputs, gradients


def leaf(tensor: Tensor) -> Tensor:
    """The same values, of which the gradient is wanted."""
    return tensor.detach().requires_grad_(tensor.is_floating_point())
