"""One training step over any number of workers, with the gradients of one worker on the whole batch."""

from torch import Tensor

from tcmgc.batch import Batch, Encoded
from tcmgc.distributed import gather, gather_records, share, sum_gradients, world
from tcmgc.features import TextFeatures, VideoFeatures
from tcmgc.model import Retriever
from tcmgc.objective import Objective
from tcmgc.pieces import backward_in_pieces
from tcmgc.threads import ONE, Threads


def backward(
    model: Retriever,
    batch: Batch,
    total: int,
    objective: Objective,
    *,
    chunk_size: int = 0,
    pieces: int = 0,
    threads: Threads = ONE,
) -> dict[str, Tensor]:
    """Leave the whole batch's gradient in every parameter and give this worker's share of each loss term.

    Each worker scores its own texts against all videos. Its loss is its share of the sum, so the
    gradients of all workers add up to the true ones, for towers and head alike.

    Args:
        model: The same weights on every worker.
        batch: This worker's pairs, ``share(total, rank, workers)`` of the global batch.
        total: Pairs in the global batch.
        objective: The loss.
        chunk_size: Pairs that are embedded at a time; 0 for all at once. See :class:`Encoded`.
        pieces: Compute the batch in so many pieces, whose sums do not depend on the number of
            workers, to the bit; 0: each worker its share at once. See :mod:`tcmgc.pieces`.
        threads: Compute a worker's pieces side by side.

    Raises:
        ValueError: pieces that cannot be dealt out evenly.
    """
    workers = world()[1]
    if pieces and (pieces & (pieces - 1) or pieces % workers or total % pieces):
        raise ValueError(
            f"train.pieces is {pieces}: it must be a power of two, a multiple of the {workers} workers, "
            f"and divide the batch of {total} pairs"
        )
    with model.text.token_embedding.only(gather(batch.tokens, total)):
        if pieces:
            terms = backward_in_pieces(
                model,
                batch,
                total,
                objective,
                pieces=pieces,
                chunk_size=chunk_size,
                threads=threads,
            )
        else:
            encoded = Encoded(model, batch, chunk_size)
            terms = _terms(model, encoded.text, encoded.video, total, objective)
            terms["loss"].backward()
            encoded.backward()
        sum_gradients(model.learnt, in_order=pieces > 0)
    return {name: term.detach() for name, term in terms.items()}


def _terms(
    model: Retriever, text: TextFeatures, video: VideoFeatures, total: int, objective: Objective
) -> dict[str, Tensor]:
    # Each worker makes the records of its own videos: made of all, they would cost as many times over.
    everyone = gather_records(model.head.record(video), total)
    scale = model.scale()
    scores = model.head.score(text, everyone, scale)
    rank, workers = world()
    return objective(scores, scale, share(total, rank, workers))
