"""One training step over any number of workers, with the gradients of one worker on the whole batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from tcmgc.distributed import gather, gather_videos, share, sum_gradients, world
from tcmgc.features import TextFeatures, VideoFeatures
from tcmgc.model import Retriever
from tcmgc.objective import Objective


@dataclass(frozen=True)
class Batch:
    """This worker's share of a batch: text i belongs to video i."""

    tokens: Int[Tensor, "pairs words"]
    pixels: UInt8[Tensor, "pairs frames 3 size size"]
    frame_mask: Bool[Tensor, "pairs frames"]

    def __len__(self) -> int:
        return len(self.tokens)


def backward(
    model: Retriever, batch: Batch, total: int, objective: Objective, *, chunk_size: int = 0
) -> dict[str, Tensor]:
    """Leave the whole batch's gradient in every parameter and give this worker's share of each loss term.

    Each worker scores its own texts against all videos. Its loss is its share of the sum, so the
    gradients of all workers add up to the true ones, for towers and head alike.

    Args:
        model: The same weights on every worker.
        batch: This worker's pairs, ``share(total, rank, workers)`` of the global batch.
        total: Pairs in the global batch.
        objective: The loss.
        chunk_size: Pairs that are embedded at a time: first without graph, then once more with
            it, when the gradient of the features is known (gradient caching). The result is the
            same; memory no longer grows with the batch. 0 embeds all at once.
    """
    if chunk_size:
        terms = _backward_in_chunks(model, batch, total, objective, chunk_size)
    else:
        text = model.encode_text(batch.tokens)
        video = model.encode_video(batch.pixels, batch.frame_mask)
        terms = _terms(model, text, video, total, objective)
        terms["loss"].backward()
    words = model.text.token_embedding.weight
    if words.grad is None or world()[1] == 1:
        sum_gradients(model)
    else:
        sum_gradients(model, rows={words: gather(batch.tokens, total).unique()})
    return {name: term.detach() for name, term in terms.items()}


def _terms(
    model: Retriever, text: TextFeatures, video: VideoFeatures, total: int, objective: Objective
) -> dict[str, Tensor]:
    everyone = gather_videos(video, total)
    scale = model.scale()
    scores = model.head.score(text, model.head.record(everyone), scale)
    rank, workers = world()
    return objective(scores, scale, share(total, rank, workers))


def _backward_in_chunks(
    model: Retriever, batch: Batch, total: int, objective: Objective, size: int
) -> dict[str, Tensor]:
    chunks = [slice(start, min(start + size, len(batch))) for start in range(0, len(batch), size)]

    def text_of(chunk: slice) -> TextFeatures:
        return model.encode_text(batch.tokens[chunk])

    def video_of(chunk: slice) -> VideoFeatures:
        return model.encode_video(batch.pixels[chunk], batch.frame_mask[chunk])

    with torch.no_grad():
        text = TextFeatures.cat([text_of(chunk) for chunk in chunks]).map(_leaf)
        video = VideoFeatures.cat([video_of(chunk) for chunk in chunks]).map(_leaf)
    terms = _terms(model, text, video, total, objective)
    terms["loss"].backward()
    for leaves, encode in ((text, text_of), (video, video_of)):
        for chunk in chunks:
            _push(encode, chunk, leaves)
    return terms


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tensor.is_floating_point())


def _push(
    encode: Callable[[slice], Any], chunk: slice, leaves: TextFeatures | VideoFeatures
) -> None:
    """Send the features' gradients back through one chunk of the towers."""
    features = encode(chunk)
    outputs, gradients = [], []
    for name in vars(leaves):
        output, gradient = getattr(features, name), getattr(leaves, name).grad
        if output.requires_grad and gradient is not None:
            outputs.append(output)
            gradients.append(gradient[chunk])
    if outputs:
        torch.autograd.backward(outputs, gradients)
