"""One training step over any number of workers, with the gradients of one worker on the whole batch."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from jaxtyping import Int
from torch import Tensor

from tcmgc.model import Retriever
from tcmgc.towers.features import TextFeatures, VideoFeatures
from tcmgc.training.batch import Batch, encode_texts, encode_videos
from tcmgc.training.distributed import gather, gather_records, share, start_sum, world
from tcmgc.training.objective import Objective
from tcmgc.training.pieces import backward_in_pieces
from tcmgc.training.threads import ONE, Threads


def backward(
    model: Retriever,
    batch: Batch,
    total: int,
    objective: Objective,
    *,
    chunk_size: int = 0,
    pieces: int = 0,
    threads: Threads = ONE,
    words: Int[Tensor, "..."] | None = None,
    also: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """Leave the whole batch's gradient in every parameter and give the whole batch's loss terms.

    Each worker scores its own texts against all videos. Its loss is its share of the sum, so the
    gradients of all workers add up to the true ones, for towers and head alike.

    Args:
        model: The same weights on every worker.
        batch: This worker's pairs, ``share(total, rank, workers)`` of the global batch.
        total: Pairs in the global batch.
        objective: The loss.
        chunk_size: Pairs that are embedded at a time; 0 for all at once. See :class:`Encoded`.
        pieces: Compute the batch in so many pieces, whose sums do not depend on the number of
            workers, to the bit; 0: each worker its share at once. See :mod:`tcmgc.training.pieces`.
        threads: Compute a worker's pieces side by side.
        words: Ids of all words in the global batch, where a worker knows them: a message less.
        also: Numbers of this worker's to add up over all; they travel and come with the loss terms.

    Raises:
        ValueError: pieces that cannot be dealt out evenly; words that are not all.
    """
    workers = world()[1]
    if pieces and (pieces & (pieces - 1) or pieces % workers or total % pieces):
        raise ValueError(
            f"train.pieces is {pieces}: it must be a power of two, a multiple of the {workers} workers, "
            f"and divide the batch of {total} pairs"
        )
    if words is None:
        words = gather(batch.tokens, total)
    elif not torch.isin(batch.tokens, words).all():
        raise ValueError("words lack some of batch.tokens: they are those of the whole batch")
    with model.text.token_embedding.only(words):
        if pieces:
            return backward_in_pieces(
                model,
                batch,
                total,
                objective,
                pieces=pieces,
                chunk_size=chunk_size,
                threads=threads,
                also=also,
            )
        text, video = (
            encode_texts(model, batch, chunk_size),
            encode_videos(model, batch, chunk_size),
        )
        terms = _terms(model, text.features, video.features, total, objective)
        terms["loss"].backward()
        text.backward()
        texts = model.learnt_in(model.text)
        # On their way while the visual tower is gone through, which takes longer.
        texts_summed = start_sum(_gradients(texts))
        video.backward()
        sums = {name: term.detach().clone() for name, term in terms.items()}
        sums |= {name: sums["loss"].new_tensor(value) for name, value in also.items()}
        sent = {id(weight) for weight in texts}
        rest = [weight for weight in model.learnt if id(weight) not in sent]
        rest_summed = start_sum([*_gradients(rest), *sums.values()])
        texts_summed()
        rest_summed()
    return sums


def _gradients(weights: Sequence[Tensor]) -> list[Tensor]:
    return [weight.grad for weight in weights if weight.grad is not None]


def _terms(
    model: Retriever, text: TextFeatures, video: VideoFeatures, total: int, objective: Objective
) -> dict[str, Tensor]:
    # Each worker makes the records of its own videos: made of all, they would cost as many times over.
    everyone = gather_records(model.head.record(video), total)
    scale = model.scale()
    scores = model.head.score(text, everyone, scale)
    rank, workers = world()
    return objective(scores, scale, share(total, rank, workers))
