"""Gather with gradient, and sums over workers. Without a process group both are the identity."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from tcmgc.towers.features import _Batched

Record = TypeVar("Record", bound=_Batched)


def world() -> tuple[int, int]:
    """This worker's rank and the number of workers."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def alone() -> bool:
    """Whether there is one worker."""
    return world()[1] == 1


def share(total: int, rank: int, workers: int, block: int = 1) -> slice:
    """The part of ``total`` items assigned to one worker: in rank order, with sizes that differ by at most one.

    With ``block``, complete blocks of this many items are assigned; the last one may be smaller.
    """
    size, rest = divmod(-(-total // block), workers)
    start = rank * size + min(rank, rest)
    stop = start + size + (rank < rest)
    return slice(min(start * block, total), min(stop * block, total))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, local: Tensor, total: int, block: int) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.mine = share(total, *world(), block)
        return _start_gather(local, total, block)()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        # Every worker's loss may depend on every item, so the true gradient is the sum over workers.
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad[ctx.mine], None, None


def _start_gather(local: Tensor, total: int, block: int = 1) -> Callable[[], Tensor]:
    parts = [share(total, rank, world()[1], block) for rank in range(world()[1])]
    largest = max(part.stop - part.start for part in parts)
    wire = local.to(torch.uint8) if local.dtype == torch.bool else local
    padded = wire.new_zeros(largest, *wire.shape[1:])
    padded[: len(wire)] = wire
    received = [torch.empty_like(padded) for _ in parts]
    work = dist.all_gather(received, padded, async_op=True)

    def finish() -> Tensor:
        work.wait()
        whole = [got[: part.stop - part.start] for got, part in zip(received, parts, strict=True)]
        return torch.cat(whole).to(local.dtype)

    return finish


def gather(local: Tensor, total: int, block: int = 1) -> Tensor:
    """All workers' items in rank order; each worker has ``share(total, rank, workers, block)``.

    The backward pass sums all workers' gradients of an item and returns the sum to its owner.
    The gather in CLIP4Clip and its successors returns only the local slice of the gradient, which
    is 1/W of the true one.
    """
    if alone():
        return local
    return _Gather.apply(local, total, block)


def gather_records(local: Record, total: int) -> Record:
    """All workers' records as one message, like :func:`gather` for each of their tensors.

    A tensor that occurs twice in the records is sent once.
    """
    if alone():
        return local
    packed, unpack = _packed(local)
    return unpack(gather(packed, total))


def start_gather_records(local: Record, total: int) -> Callable[[], Record]:
    """Start :func:`gather_records` without gradient; the returned function waits for the result.

    Every worker must call both in the same order as its other collective operations.
    """
    if alone():
        return lambda: local
    packed, unpack = _packed(local.map(Tensor.detach))
    finish = _start_gather(packed, total)
    return lambda: unpack(finish())


def _packed(local: Record) -> tuple[Tensor, Callable[[Tensor], Record]]:
    """A record packed as one tensor, and a function that unpacks any number of items."""
    tensors = {id(tensor): tensor for tensor in local.tensors.values()}
    dtype = next(t.dtype for t in tensors.values() if t.is_floating_point())
    packed = torch.cat([t.flatten(1).to(dtype) for t in tensors.values()], 1)
    widths = [t.flatten(1).shape[1] for t in tensors.values()]

    def unpack(everyone: Tensor) -> Record:
        parts = everyone.split(widths, 1)
        whole = {
            key: part.reshape(-1, *tensor.shape[1:]).to(tensor.dtype).contiguous()
            for (key, tensor), part in zip(tensors.items(), parts, strict=True)
        }
        return local.map(lambda tensor: whole[id(tensor)])

    return packed, unpack


def start_sum(
    tensors: Sequence[Tensor], bucket_bytes: int = 32 * 2**20, *, in_order: bool = False
) -> Callable[[], None]:
    """Start adding up tensors over workers; the returned function waits and writes the sums into them.

    Every worker must call both in the same order as its other collective operations.

    Args:
        tensors: Of the same shapes and types on every worker. Many are sent as one message.
        bucket_bytes: Size of a message.
        in_order: Sum in a tree over ranks, neighbours first (for a power of two of workers). In an
            all-reduce the library chooses the order, which changes with the number of workers.
    """
    if alone():
        return lambda: None
    begin = _sum_in_order if in_order else _sum_in_any_order
    buckets: list[list[Tensor]] = []
    size = 0
    for tensor in tensors:
        if not buckets or size > bucket_bytes or buckets[-1][0].dtype != tensor.dtype:
            buckets.append([])
            size = 0
        buckets[-1].append(tensor)
        size += tensor.nbytes
    sent = [(begin(torch.cat([t.reshape(-1) for t in bucket])), bucket) for bucket in buckets]

    def finish() -> None:
        for arrived, bucket in sent:
            parts = arrived().split([tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    return finish


def _sum_in_any_order(value: Tensor) -> Callable[[], Tensor]:
    work = dist.all_reduce(value, async_op=True)

    def finish() -> Tensor:
        work.wait()
        return value

    return finish


def _sum_in_order(value: Tensor) -> Callable[[], Tensor]:
    rank, workers = world()

    def exchange(distance: int) -> Callable[[], Tensor]:
        other, partner = torch.empty_like(value), rank ^ distance
        sent = dist.P2POp(dist.isend, value, partner)
        received = dist.P2POp(dist.irecv, other, partner)
        works = dist.batch_isend_irecv([sent, received])

        def finish() -> Tensor:
            for work in works:
                work.wait()
            return value.add_(other)

        return finish

    neighbours = exchange(1)

    def finish() -> Tensor:
        neighbours()
        distance = 2
        while distance < workers:
            exchange(distance)()
            distance *= 2
        return value

    return finish
