"""A worker's share of a batch, and its features with the backward pass through a tower."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tcmgc.model import Retriever
from tcmgc.towers.features import TextFeatures, VideoFeatures, _Batched
from tcmgc.towers.visual import Pixels

Features = TypeVar("Features", bound=_Batched)


class Encoded(Generic[Features]):
    """A tower's outputs for a batch, as leaves; :meth:`ways_back` propagates their gradients.

    Args:
        encode: The tower.
        inputs: Its inputs, with the batch's items on the first axis; None is passed on.
        chunk_size: Items that are embedded at a time: first without a graph, then again with one
            when the gradient of the features is known (gradient caching). The result is the
            same; memory no longer grows with the batch. 0 embeds all at once, without recomputation.
    """

    def __init__(
        self,
        encode: Callable[..., Features],
        inputs: Sequence[Tensor | None],
        chunk_size: int = 0,
    ) -> None:
        self.encode, self.inputs = encode, inputs
        items = next(len(tensor) for tensor in inputs if tensor is not None)
        size = chunk_size or items
        self.chunks = [slice(start, min(start + size, items)) for start in range(0, items, size)]
        with torch.set_grad_enabled(not chunk_size):
            parts = [self._encode(chunk) for chunk in self.chunks]
        self.kept = None if chunk_size else parts[0]
        self.features = type(parts[0]).cat(parts).map(leaf)

    def _encode(self, chunk: slice) -> Features:
        return self.encode(*[None if t is None else t[chunk] for t in self.inputs])

    def ways_back(self) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """For each chunk, the tower's outputs and the gradients of the corresponding leaves."""
        for chunk in self.chunks:
            outputs, gradients = [], []
            made, self.kept = self.kept or self._encode(chunk), None
            for name, leaves in self.features.tensors.items():
                output, gradient = getattr(made, name), leaves.grad
                if output.requires_grad and gradient is not None:
                    outputs.append(output)
                    gradients.append(gradient[chunk])
            yield outputs, gradients


@dataclass(frozen=True)
class Batch(_Batched):
    """This worker's share of a batch: text i belongs to video i."""

    tokens: Int[Tensor, "pairs words"]
    pixels: Pixels
    frame_mask: Bool[Tensor, "pairs frames"]
    seeds: Int[Tensor, "pairs"] | None = None
    """Each pair's seed for random numbers, set by the step."""

    def __len__(self) -> int:
        return len(self.tokens)

    def seeded(self, seeds: Int[Tensor, "pairs"]) -> "Batch":
        """The same pairs with seeds."""
        return Batch(self.tokens, self.pixels, self.frame_mask, seeds)

    def encode_texts(self, model: Retriever, chunk_size: int = 0) -> Encoded[TextFeatures]:
        """The captions' features."""
        return Encoded(model.encode_text, [self.tokens, self.seeds], chunk_size)

    def encode_videos(self, model: Retriever, chunk_size: int = 0) -> Encoded[VideoFeatures]:
        """The videos' features."""
        inputs = [self.pixels, self.frame_mask, self.seeds]
        return Encoded(model.encode_video, inputs, chunk_size)


@dataclass(frozen=True)
class FeatureBatch:
    """Pairs whose tower features are known: training begins at the temporal encoder."""

    text: TextFeatures
    video: VideoFeatures
    """``frames``, ``frame_mask`` and ``patches`` are used; ``encoded`` is recomputed."""
    tokens: None = None

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, pairs: slice) -> "FeatureBatch":
        """Some of the pairs."""
        return FeatureBatch(self.text[pairs], self.video[pairs])

    def seeded(self, seeds: Int[Tensor, "pairs"]) -> "FeatureBatch":
        """The same pairs with seeds."""
        text = TextFeatures(self.text.sentence, self.text.words, self.text.word_mask, seeds)
        return FeatureBatch(text, self.video)

    def encode_texts(self, model: Retriever, chunk_size: int = 0) -> Encoded[TextFeatures]:
        """The captions' features, unchanged."""
        text = self.text
        return Encoded(TextFeatures, [text.sentence, text.words, text.word_mask, text.seeds])

    def encode_videos(self, model: Retriever, chunk_size: int = 0) -> Encoded[VideoFeatures]:
        """The frames' features after the temporal encoder."""
        video = self.video
        inputs = [video.frames, video.frame_mask, video.patches]
        return Encoded(model.encode_frames, inputs, chunk_size)


Pairs = Batch | FeatureBatch
"""Input of a training step."""


def leaf(tensor: Tensor) -> Tensor:
    """The same values as a leaf that requires a gradient."""
    return tensor.detach().requires_grad_(tensor.is_floating_point())
