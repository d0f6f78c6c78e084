"""A training step in pieces of fixed size: the same result, to the bit, whoever computes them.

Workers that compute their shares at once agree to rounding: sums are taken in another order, and
matrix products of another size round differently. Under Adam young weights multiply that until
the losses part. Here a batch is cut into the same pieces on any number of workers, a piece is
computed alone, and sums over pieces follow one tree.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tcmgc.model import Retriever
from tcmgc.towers.features import Scores
from tcmgc.training.batch import Batch, Encoded, encode_texts, encode_videos, leaf
from tcmgc.training.distributed import gather, share, start_gather_records, start_sum, world
from tcmgc.training.objective import Objective
from tcmgc.training.threads import ONE, Threads

Values = list[Tensor | None]


def backward_in_pieces(
    model: Retriever,
    batch: Batch,
    total: int,
    objective: Objective,
    *,
    pieces: int,
    chunk_size: int = 0,
    threads: Threads = ONE,
    also: Mapping[str, float],
) -> dict[str, Tensor]:
    """Leave the sum over all pieces in every gradient; give the sums of their loss terms.

    Args:
        model: The same weights on every worker.
        batch: This worker's pairs, ``share(total, rank, workers)`` of the global batch.
        total: Pairs in the global batch.
        objective: The loss.
        pieces: A power of two that divides ``total`` and is a multiple of the workers.
        chunk_size: Pairs of a piece that are embedded at a time; see :class:`Encoded`.
        threads: Compute pieces side by side; one at a time where the model draws random numbers.
        also: This worker's numbers to add up over all, with the loss terms.
    """
    rank, workers = world()
    spans = [share(total, piece, pieces) for piece in range(pieces)[share(pieces, rank, workers)]]
    first = spans[0].start
    parts = threads(
        lambda span: _Piece(model, batch[span.start - first : span.stop - first], span, chunk_size),
        spans,
    )
    # What travels between workers does so while they compute: records beside texts' features, and
    # gradients of records and of the text tower beside what is left of the way back.
    records = [part.record.map(Tensor.detach) for part in parts]
    gathered = start_gather_records(type(records[0]).cat(records), total)
    threads(_Piece.read_texts, parts)
    everyone = gathered()
    seed = int(torch.randint(2**62, ())) if model.draws else None
    rows = torch.cat(threads(lambda part: part.score(everyone, seed), parts))
    columns = gather(rows, total)
    terms = [objective(part.scores, part.scale, part.span, columns[:, part.span]) for part in parts]
    torch.autograd.backward([term["loss"] for term in terms])

    from_scores = threads(_Piece.backward_to_records, parts)
    of_records = _tree([records for _, records in from_scores])
    records_summed = start_sum(_present(of_records), in_order=True)
    of_texts = _tree(threads(_Piece.backward_through_texts, parts))
    texts_summed = start_sum(_present(of_texts), in_order=True)
    records_summed()
    from_records = threads(lambda part: part.backward_through_videos(of_records), parts)
    each = zip(from_scores, from_records, strict=True)
    of_rest = _tree([_plus(head, rest) for (head, _), rest in each])
    losses = _tree([[value.detach().clone() for value in term.values()] for term in terms])
    sums = dict(zip(terms[0], _present(losses), strict=True))
    sums |= {name: sums["loss"].new_tensor(value) for name, value in also.items()}
    rest_summed = start_sum([*_present(of_rest), *sums.values()], in_order=True)
    texts_summed()
    rest_summed()
    for weight, gradient in zip(model.learnt, _plus(of_texts, of_rest), strict=True):
        weight.grad = gradient
    return sums


class _Piece:
    """Features and records of a piece, its rows of scores, and the way back in three stretches."""

    def __init__(self, model: Retriever, batch: Batch, span: slice, chunk_size: int) -> None:
        self.model, self.batch, self.span, self.chunk_size = model, batch, span, chunk_size
        self.weights = model.learnt
        self.video = encode_videos(model, batch, chunk_size)
        self.record = model.head.record(self.video.features)

    def read_texts(self) -> None:
        """Captions' features."""
        self.text = encode_texts(self.model, self.batch, self.chunk_size)

    def score(self, everyone: Any, seed: int | None) -> Tensor:
        """This piece's texts against all videos; the loss's gradient will be in :attr:`scores`.

        With a seed, what the head draws is this piece's own, and PyTorch's generators stay as they are.
        """
        if seed is not None:
            device = self.text.features.sentence.device
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                torch.manual_seed(seed + self.span.start)
                return self.score(everyone, None)
        self.seen = everyone.map(leaf)
        self.lambda_ = self.model.scale()
        self.scale = leaf(self.lambda_)
        self.made = self.model.head.score(self.text.features, self.seen, self.lambda_)
        grains = {name: leaf(grain) for name, grain in self.made.grains.items()}
        self.scores = Scores(leaf(self.made.similarity), grains)
        return self.scores.similarity

    def backward_to_records(self) -> tuple[Values, Values]:
        """Gradients of the weights of head and scale, and of all videos' records.

        Those of this piece's texts are left in its features.
        """
        texts, seen = list(vars(self.text.features).values()), list(vars(self.seen).values())
        outputs = [self.made.similarity, self.lambda_, *self.made.grains.values()]
        leaves = [self.scores.similarity, self.scale, *self.scores.grains.values()]
        found = _gradients(
            outputs, [value.grad for value in leaves], [*self.weights, *texts, *seen]
        )
        del self.made
        of_weights, of_texts, of_records = _split(found, len(self.weights), len(texts), len(seen))
        for tensor, gradient in zip(texts, of_texts, strict=True):
            tensor.grad = gradient
        return of_weights, of_records

    def backward_through_texts(self) -> Values:
        """Gradients of the text tower's weights."""
        return self._through(self.text, [None] * len(self.weights))

    def backward_through_videos(self, records: Values) -> Values:
        """Gradients of the weights of visual tower and head, from those of all videos' records from all texts."""
        videos = list(vars(self.video.features).values())
        mine = [None if gradient is None else gradient[self.span] for gradient in records]
        found = _gradients(list(vars(self.record).values()), mine, [*self.weights, *videos])
        total, of_videos = _split(found, len(self.weights), len(videos))
        for tensor, gradient in zip(videos, of_videos, strict=True):
            tensor.grad = gradient
        return self._through(self.video, total)

    def _through(self, tower: Encoded[Any], total: Values) -> Values:
        for outputs, gradients in tower.ways_back():
            total = _plus(total, _gradients(outputs, gradients, self.weights))
        return total


def _present(values: Values) -> list[Tensor]:
    return [value for value in values if value is not None]


def _gradients(
    outputs: Sequence[Tensor], gradients: Sequence[Tensor | None], inputs: Sequence[Tensor]
) -> Values:
    """Gradients of the inputs; None for those that take no part."""
    roots = [
        (output, gradient)
        for output, gradient in zip(outputs, gradients, strict=True)
        if output.requires_grad and gradient is not None
    ]
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(wanted)
    if roots and wanted:
        found = torch.autograd.grad(
            [output for output, _ in roots],
            wanted,
            [gradient for _, gradient in roots],
            allow_unused=True,
        )
    each = iter(found)
    taken: set[int] = set()
    return [_own(next(each), taken) if tensor.requires_grad else None for tensor in inputs]


def _own(gradient: Tensor | None, taken: set[int]) -> Tensor | None:
    """The gradient in memory of its own: autograd hands one tensor to all summands of a sum."""
    if gradient is None:
        return None
    if gradient.untyped_storage().data_ptr() in taken:
        return gradient.clone(memory_format=torch.contiguous_format)
    taken.add(gradient.untyped_storage().data_ptr())
    return gradient.contiguous()


def _split(values: Values, *sizes: int) -> list[Values]:
    each = iter(values)
    return [list(itertools.islice(each, size)) for size in sizes]


def _tree(summands: list[Values]) -> Values:
    """The sum of a power of two of summands, which are overwritten: pairs of neighbours, then pairs of those."""
    while len(summands) > 1:
        summands = [_plus(*pair) for pair in zip(summands[::2], summands[1::2], strict=True)]
    return summands[0]


def _plus(first: Values, second: Values) -> Values:
    """Element by element, into the first."""
    return [
        b if a is None else a if b is None else a.add_(b)
        for a, b in zip(first, second, strict=True)
    ]
