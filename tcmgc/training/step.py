"""One training step over any number of workers, with the gradients of one worker on the whole batch.

A batch is cut into pieces that are computed separately: each worker's share is one piece, or, with
``pieces``, any number of workers compute the same pieces, and sums over pieces follow one tree.
The result is then bit-identical. Otherwise matrix products of different sizes round differently,
and under Adam such differences grow until the losses diverge.

Each piece scores its own texts against all videos. Its loss is its share of the sum, so the
gradients of all pieces add up to the true ones, for towers and head.
"""

import itertools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from tcmgc.model import Retriever
from tcmgc.towers import draws
from tcmgc.towers.features import Scores, TextFeatures, VideoFeatures, _Batched
from tcmgc.training.batch import Encoded, Pairs, leaf
from tcmgc.training.distributed import (
    gather,
    gather_records,
    share,
    start_gather_records,
    start_sum,
    world,
)
from tcmgc.training.losses import Objective
from tcmgc.training.spans import span
from tcmgc.training.threads import ONE, Threads

Values = list[Tensor | None]


@dataclass(frozen=True)
class Whole(_Batched):
    """What a worker knows of the whole batch; anything unknown is gathered."""

    words: Int[Tensor, "..."] | None = None
    """Ids of all words in the batch."""
    videos: Int[Tensor, "pairs"] | None = None
    """A number for each pair's video, the same for the same video; needed to mask such pairs."""


@dataclass(frozen=True)
class How:
    """How a step is computed; the gradients are the same to rounding."""

    chunk_size: int = 0
    """Pairs that are embedded at a time; 0: all at once. See :class:`Encoded`."""
    pieces: int = 0
    """Compute the batch in this many pieces, whose sums are bit-identical for any number of workers;
    0: each worker computes its share as one piece."""
    threads: Threads = field(default=ONE)
    """Compute a worker's pieces in parallel."""


def backward(
    model: Retriever,
    batch: Pairs,
    total: int,
    objective: Objective,
    how: How = How(),
    *,
    whole: Whole = Whole(),
    seed: int = 0,
    also: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """Write the whole batch's gradient to every parameter and return the whole batch's loss terms.

    Args:
        model: The same weights on every worker.
        batch: This worker's pairs, ``share(total, rank, workers)`` of the global batch.
        total: Pairs in the global batch.
        objective: The loss.
        how: Chunks, pieces and threads.
        whole: What is known of the whole batch.
        seed: This step's seed for dropout and noise, the same on every worker.
        also: Numbers of this worker to sum over all; they are sent and returned with the loss terms.

    Raises:
        ValueError: pieces that cannot be distributed evenly, or an incomplete set of words.
    """
    rank, workers = world()
    _check(how.pieces, workers, total)
    mine = share(total, rank, workers)
    if model.draws:
        device = next(model.parameters()).device
        batch = batch.seeded(draws.seeds(seed, torch.arange(mine.start, mine.stop, device=device)))
    with ExitStack() as used:
        with span("words in use"):
            words = _words(batch, whole.words, total)
            if words is not None:
                used.enter_context(model.text.token_embedding.only(words))
        sums = _backward(model, batch, total, objective, how, whole.videos, also)
        with span("words in use"):
            used.close()
    return sums


def _check(pieces: int, workers: int, total: int) -> None:
    if pieces and (pieces & (pieces - 1) or pieces % workers or total % pieces):
        raise ValueError(
            f"train.pieces is {pieces}: it must be a power of two, a multiple of the {workers} workers, "
            f"and divide the batch of {total} pairs"
        )


def _words(batch: Pairs, known: Tensor | None, total: int) -> Tensor | None:
    """Ids of the words that the batch uses; None if features are known."""
    if batch.tokens is None:
        return None
    if known is None:
        return _gathered_words(batch.tokens, total)
    if not torch.isin(batch.tokens, known).all():
        raise ValueError("words lack some of batch.tokens: they are those of the whole batch")
    return known


def _gathered_words(tokens: Tensor, total: int) -> Tensor:
    return gather(tokens, total)


def _backward(
    model: Retriever,
    batch: Pairs,
    total: int,
    objective: Objective,
    how: How,
    videos: Tensor | None,
    also: Mapping[str, float],
) -> dict[str, Tensor]:
    rank, workers = world()
    in_order, threads = how.pieces > 0, how.threads
    count = how.pieces or workers
    places = [share(total, piece, count) for piece in range(count)[share(count, rank, workers)]]
    first = places[0].start
    parts = threads(
        lambda at: _Piece(model, batch[at.start - first : at.stop - first], at, how.chunk_size),
        places,
    )
    # Communication overlaps with computation: records are sent while texts are encoded, and
    # gradients of records and of the text tower during the rest of the backward pass.
    with span("record"):
        records = [part.record.map(Tensor.detach) for part in parts]
        gathered = start_gather_records(type(records[0]).cat(records), total)
    threads(_Piece.read_texts, parts)
    with span("sums over workers"):
        everyone = gathered()
    rows = torch.cat(threads(lambda part: part.score(everyone), parts))
    with span("loss"):
        columns = gather(rows, total)
        terms = [
            objective(
                part.scores,
                part.scale,
                part.place,
                columns=columns[:, part.place],
                bias=part.bias,
                same=_same(objective, videos, part.place),
            )
            for part in parts
        ]
        torch.autograd.backward([term["loss"] for term in terms])
    of_term, terms = _term(model, objective, parts, terms, total)

    from_scores = threads(_Piece.backward_to_records, parts)
    with span("sums over pieces"):
        of_records = _tree([records for _, records in from_scores])
    records_summed = start_sum(_present(of_records), in_order=in_order)
    through_texts = threads(_Piece.backward_through_texts, parts)
    with span("sums over pieces"):
        of_texts = _tree(through_texts)
    texts_summed = start_sum(_present(of_texts), in_order=in_order)
    with span("sums over workers"):
        records_summed()
    from_records = threads(lambda part: part.backward_through_videos(of_records), parts)
    each = zip(from_scores, from_records, strict=True)
    with span("sums over pieces"):
        of_parts = [_plus(head, rest) for (head, _), rest in each]
        of_parts[0] = _plus(of_parts[0], of_term)
        of_rest = _tree(of_parts)
    losses = _tree([[value.detach().clone() for value in term.values()] for term in terms])
    sums = dict(zip(terms[0], _present(losses), strict=True))
    sums |= {name: sums["loss"].new_tensor(value) for name, value in also.items()}
    rest_summed = start_sum([*_present(of_rest), *sums.values()], in_order=in_order)
    with span("sums over workers"):
        texts_summed()
        rest_summed()
    with span("sums over pieces"):
        for weight, gradient in zip(model.learnt, _plus(of_texts, of_rest), strict=True):
            weight.grad = gradient
    return sums


def _same(objective: Objective, videos: Tensor | None, place: slice) -> Tensor | None:
    """True where a piece's text meets its own video at another position of the batch."""
    if not objective.options.mask_same_video:
        return None
    if videos is None:
        raise ValueError("loss.mask_same_video needs to know the videos of the whole batch")
    same = videos[place, None] == videos[None]
    same.diagonal(place.start).fill_(False)
    return same


def _term(
    model: Retriever,
    objective: Objective,
    parts: Sequence["_Piece"],
    terms: list[dict[str, Tensor]],
    total: int,
) -> tuple[Values, list[dict[str, Tensor]]]:
    """A loss term on features: its gradients of weights, and the loss terms including it.

    Every worker computes it from the whole batch's features, so the result does not depend on how
    they are distributed. Each worker uses the gradient of its own features; only the first worker
    counts the value and the gradient of weights.
    """
    nothing: Values = [None] * len(parts[0].weights)
    if objective.term is None:
        return nothing, terms
    with span("loss"):
        texts, videos = ([part.text.features for part in parts], [p.video.features for p in parts])
        text = gather_records(TextFeatures.cat(texts).map(Tensor.detach), total).map(leaf)
        video = gather_records(VideoFeatures.cat(videos).map(Tensor.detach), total).map(leaf)
        value = objective.on_features(model, text, video)
        assert value is not None
        leaves = [*text.tensors.values(), *video.tensors.values()]
        found = _gradients([value], [torch.ones_like(value)], [*parts[0].weights, *leaves])
        of_weights, of_texts, of_videos = _split(
            found, len(nothing), len(text.tensors), len(video.tensors)
        )
        for part in parts:
            for features, gradients in (
                (part.text.features, of_texts),
                (part.video.features, of_videos),
            ):
                part.add(features.tensors.values(), gradients)
    counts = world()[0] == 0
    name, zero = "features", torch.zeros_like(value)
    shares = [value if counts and part is parts[0] else zero for part in parts]
    terms = [
        {**term, "loss": term["loss"] + part, name: part}
        for term, part in zip(terms, shares, strict=True)
    ]
    return (of_weights if counts else _zeros(of_weights)), terms


def _zeros(values: Values) -> Values:
    return [None if value is None else torch.zeros_like(value) for value in values]


class _Piece:
    """Features and records of a piece, its rows of scores, and the backward pass in three stages."""

    def __init__(self, model: Retriever, batch: Pairs, place: slice, chunk_size: int) -> None:
        self.model, self.batch, self.place, self.chunk_size = model, batch, place, chunk_size
        self.weights = model.learnt
        with span("visual tower"):
            self.video = batch.encode_videos(model, chunk_size)
        with span("record"):
            self.record = model.head.record(self.video.features)

    def read_texts(self) -> None:
        """Compute the captions' features."""
        with span("text tower"):
            self.text = self.batch.encode_texts(self.model, self.chunk_size)

    def score(self, everyone: Any) -> Tensor:
        """Score this piece's texts against all videos; the loss's gradient will be in :attr:`scores`."""
        with span("score"):
            self.seen = everyone.map(leaf)
            self.lambda_ = self.model.scale()
            self.scale = leaf(self.lambda_)
            self.offset = self.model.scale.bias
            self.bias = leaf(self.offset)
            self.made = self.model.head.score(self.text.features, self.seen, self.lambda_)
            grains = {name: leaf(grain) for name, grain in self.made.grains.items()}
            self.scores = Scores(leaf(self.made.similarity), grains)
            return self.scores.similarity

    def add(self, features: Any, gradients: Values) -> None:
        """Add this piece's rows of gradients to those of its features."""
        for tensor, gradient in zip(features, gradients, strict=True):
            if gradient is not None and tensor.requires_grad:
                rows = gradient[self.place]
                tensor.grad = rows.clone() if tensor.grad is None else tensor.grad + rows

    def backward_to_records(self) -> tuple[Values, Values]:
        """Gradients of the weights of head and scale, and of all videos' records.

        Gradients of this piece's texts are stored in its features.
        """
        with span("back through scores"):
            texts = list(self.text.features.tensors.values())
            seen = list(self.seen.tensors.values())
            outputs = [
                self.made.similarity,
                self.lambda_,
                self.offset,
                *self.made.grains.values(),
            ]
            leaves = [
                self.scores.similarity,
                self.scale,
                self.bias,
                *self.scores.grains.values(),
            ]
            found = _gradients(
                outputs, [value.grad for value in leaves], [*self.weights, *texts, *seen]
            )
            del self.made
            of_weights, of_texts, of_records = _split(
                found, len(self.weights), len(texts), len(seen)
            )
            for tensor, gradient in zip(texts, of_texts, strict=True):
                if gradient is not None:
                    tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient
            return of_weights, of_records

    def backward_through_texts(self) -> Values:
        """Gradients of the text tower's weights."""
        with span("back through the text tower"):
            return self._through(self.text, [None] * len(self.weights))

    def backward_through_videos(self, records: Values) -> Values:
        """Gradients of the weights of visual tower and head, from all texts' gradients of the records."""
        with span("back through records"):
            videos = list(self.video.features.tensors.values())
            mine = [None if gradient is None else gradient[self.place] for gradient in records]
            found = _gradients(list(self.record.tensors.values()), mine, [*self.weights, *videos])
            total, of_videos = _split(found, len(self.weights), len(videos))
            for tensor, gradient in zip(videos, of_videos, strict=True):
                if gradient is not None:
                    tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient
        with span("back through the visual tower"):
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
    """Gradients of the inputs; None for unused ones."""
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
    """The gradient in its own memory: autograd passes one tensor to all summands of a sum."""
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
    """The sum of a power of two of summands, which are overwritten: pairs of neighbours first, and so on."""
    while len(summands) > 1:
        summands = [_plus(*pair) for pair in zip(summands[::2], summands[1::2], strict=True)]
    return summands[0]


def _plus(first: Values, second: Values) -> Values:
    """Add element by element, into the first."""
    return [
        b if a is None else a if b is None else a.add_(b)
        for a, b in zip(first, second, strict=True)
    ]
