"""A share of a batch, and its features with the way back through a tower."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Generic, TypeVar

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from tcmgc.model import Retriever
from tcmgc.towers.features import TextFeatures, VideoFeatures, _Batched

Features = TypeVar("Features", bound=_Batched)


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


class Encoded(Generic[Features]):
    """What a tower gives for a batch, as leaves; :meth:`backward` sends their gradients through it.

    Args:
        encode: The tower.
        inputs: What it takes, the batch's items in front.
        chunk_size: Items that are embedded at a time: first without graph, then once more with
            it, when the gradient of the features is known (gradient caching). The result is the
            same; memory no longer grows with the batch. 0 embeds all at once, and once.
    """

    def __init__(
        self, encode: Callable[..., Features], inputs: Sequence[Tensor], chunk_size: int = 0
    ) -> None:
        self.encode, self.inputs = encode, inputs
        items = len(inputs[0])
        size = chunk_size or items
        self.chunks = [slice(start, min(start + size, items)) for start in range(0, items, size)]
        with torch.set_grad_enabled(not chunk_size):
            parts = [self._encode(chunk) for chunk in self.chunks]
        self.kept = None if chunk_size else parts[0]
        self.features = type(parts[0]).cat(parts).map(leaf)

    def _encode(self, chunk: slice) -> Features:
        return self.encode(*[tensor[chunk] for tensor in self.inputs])

    def backward(self) -> None:
        """Add to the gradients of the tower what the leaves' gradients say."""
        for outputs, gradients in self.ways_back():
            if outputs:
                torch.autograd.backward(outputs, gradients)

    def ways_back(self) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """A chunk at a time, what the tower gave and what the leaves' gradients say of it."""
        for chunk in self.chunks:
            outputs, gradients = [], []
            made, self.kept = self.kept or self._encode(chunk), None
            for name, leaves in vars(self.features).items():
                output, gradient = getattr(made, name), leaves.grad
                if output.requires_grad and gradient is not None:
                    outputs.append(output)
                    gradients.append(gradient[chunk])
            yield outputs, gradients


def encode_texts(model: Retriever, batch: Batch, chunk_size: int = 0) -> Encoded[TextFeatures]:
    """The batch's captions; see :class:`Encoded`."""
    return Encoded(model.encode_text, [batch.tokens], chunk_size)


def encode_videos(model: Retriever, batch: Batch, chunk_size: int = 0) -> Encoded[VideoFeatures]:
    """The batch's videos; see :class:`Encoded`."""
    return Encoded(model.encode_video, [batch.pixels, batch.frame_mask], chunk_size)


def leaf(tensor: Tensor) -> Tensor:
    """The same values, of which the gradient is wanted."""
    return tensor.detach().requires_grad_(tensor.is_floating_point())
