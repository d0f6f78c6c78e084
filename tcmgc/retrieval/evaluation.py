"""Features of a complete split and its similarity matrix, over any number of workers."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from tcmgc.heads import score_tiled
from tcmgc.model import Retriever
from tcmgc.retrieval.metrics import Metrics, retrieval_metrics
from tcmgc.retrieval.normalise import NEED_BANK, Bank, check, normalised
from tcmgc.towers.features import TextFeatures, VideoFeatures
from tcmgc.training.distributed import gather, share, world
from tcmgc.training.threads import ONE, Threads

Pixels = tuple[UInt8[Tensor, "videos frames 3 size size"], Bool[Tensor, "videos frames"]]


TEXTS, VIDEOS = 128, 16
"""Captions and videos that are encoded together; captions in a block that one worker scores."""


def batches_of(total: int, batch_size: int) -> list[slice]:
    """The batches that this worker encodes. Complete batches are assigned to workers, so neither
    the composition of batches nor the rounding of results depends on the number of workers.

    A worker without a batch encodes the first one, too, because its result must have a shape.
    """
    rank, workers = world()
    mine = share(total, rank, workers, batch_size)
    if mine.start == mine.stop:
        mine = slice(0, min(batch_size, total))
    starts = range(mine.start, mine.stop, batch_size)
    return [slice(start, min(start + batch_size, mine.stop)) for start in starts]


@torch.inference_mode()
def encode_texts(
    model: Retriever,
    captions: Sequence[str],
    tokenise: Callable[[Sequence[str]], Int[Tensor, "texts words"]],
    *,
    batch_size: int = TEXTS,
    device: torch.device | str = "cpu",
    threads: Threads = ONE,
) -> TextFeatures:
    """Features of all captions; each worker encodes its batches and receives all features."""
    total = len(captions)

    @torch.inference_mode()
    def encode(batch: slice) -> TextFeatures:
        return model.encode_text(tokenise(captions[batch]).to(device))

    parts = threads(encode, batches_of(total, batch_size))
    return TextFeatures.cat(parts).map(lambda tensor: _gather(tensor, total, batch_size))


@torch.inference_mode()
def encode_videos(
    model: Retriever,
    batches: Iterable[Pixels],
    total: int,
    *,
    batch_size: int = VIDEOS,
    threads: Threads = ONE,
) -> VideoFeatures:
    """Features of all videos; each worker encodes its batches and receives all features.

    Args:
        model: Provides the towers.
        batches: The videos of :func:`batches_of`, on the model's device.
        total: Number of videos.
        batch_size: The argument of :func:`batches_of`.
        threads: Encode batches in parallel.
    """

    @torch.inference_mode()
    def encode(batch: Pixels) -> VideoFeatures:
        return model.encode_video(*batch)

    parts = threads(encode, batches)
    return VideoFeatures.cat(parts).map(lambda tensor: _gather(tensor, total, batch_size))


@torch.inference_mode()
def similarity(
    model: Retriever,
    text: TextFeatures,
    video: VideoFeatures,
    *,
    memory: int = 256 * 2**20,
    threads: Threads = ONE,
) -> Float[Tensor, "texts videos"]:
    """The complete matrix; each worker scores its blocks of texts.

    Args:
        model: Head and scale.
        text: All texts.
        video: All videos.
        memory: Bytes that a tile may take (see :func:`tcmgc.heads.score_tiled`).
        threads: Score blocks of texts in parallel.
    """
    return _blocks(model, text, video, memory, threads, grains=False)


@torch.inference_mode()
def contrasts(
    model: Retriever,
    text: TextFeatures,
    video: VideoFeatures,
    *,
    memory: int = 256 * 2**20,
    threads: Threads = ONE,
) -> Float[Tensor, "grains texts videos"]:
    """As :func:`similarity`, but the scores of all contrasts, in the head's order."""
    return _blocks(model, text, video, memory, threads, grains=True).movedim(1, 0)


@torch.inference_mode()
def measure(
    model: Retriever,
    text: TextFeatures,
    video: VideoFeatures,
    owner: Int[np.ndarray, "texts"],
    *,
    normalise: Sequence[str] = (),
    bank: tuple[TextFeatures, VideoFeatures] | None = None,
    threads: Threads = ONE,
) -> Metrics:
    """Retrieval metrics of a split, and those under each normalisation (``dsl/t2v/R1``).

    Args:
        model: Head and scale.
        text: All texts.
        video: All videos.
        owner: The number of each text's video.
        normalise: Names of normalisations (:data:`tcmgc.retrieval.normalise.NORMALISATIONS`).
        bank: Features of training texts and training videos, for normalisations that need them.
        threads: Score blocks of texts in parallel.

    Raises:
        ValueError: an unknown normalisation, or one that needs a bank if there is none.
    """
    check(normalise, bank=bank is not None)
    if not normalise:
        scores = similarity(model, text, video, threads=threads)
        return retrieval_metrics(scores.cpu().numpy(), owner)
    scores, scale, known = contrasts(model, text, video, threads=threads), model.scale(), None
    if bank is not None and any(name in NEED_BANK for name in normalise):
        known = Bank(
            texts=contrasts(model, bank[0], video, threads=threads),
            videos=contrasts(model, text, bank[1], threads=threads),
        )
    found = retrieval_metrics(model.head.combine(scores, scale).cpu().numpy(), owner)
    for name in normalise:
        there, back = normalised(name, model.head, scores, scale, known)
        metrics = retrieval_metrics(there.cpu().numpy(), owner, back.cpu().numpy())
        found |= {f"{name}/{key}": value for key, value in metrics.items()}
    return found


def _blocks(
    model: Retriever,
    text: TextFeatures,
    video: VideoFeatures,
    memory: int,
    threads: Threads,
    *,
    grains: bool,
) -> Float[Tensor, "texts *grains videos"]:
    mine = share(len(text), *world(), TEXTS)
    record, scale = model.head.record(video), model.scale()

    @torch.inference_mode()
    def score(block: slice) -> Tensor:
        found = score_tiled(model.head, text[block], record, scale, memory=memory, grains=grains)
        return torch.stack(list(found.grains.values()), 1) if grains else found.similarity

    size = TEXTS if threads.count > 1 else max(1, mine.stop - mine.start)
    starts = range(mine.start, mine.stop, size)
    parts = threads(score, [slice(start, min(start + size, mine.stop)) for start in starts])
    return gather(torch.cat(parts or [score(mine)]), len(text), TEXTS)


def _gather(features: Tensor, total: int, batch_size: int) -> Tensor:
    mine = share(total, *world(), batch_size)
    return gather(features[: mine.stop - mine.start], total, batch_size)
