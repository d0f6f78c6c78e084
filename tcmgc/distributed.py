"""The one gather with gradient, and sums over workers. Without a process group all are the identity."""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from tcmgc.features import _Batched

Record = TypeVar("Record", bound=_Batched)


def world() -> tuple[int, int]:
    """This worker's rank and the number of workers."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def share(total: int, rank: int, workers: int, block: int = 1) -> slice:
    """The part of ``total`` items that one worker takes: in rank order, sizes differing by one at most.

    With ``block`` whole blocks of so many items are dealt out, the last one perhaps smaller.
    """
    size, rest = divmod(-(-total // block), workers)
    start = rank * size + min(rank, rest)
    stop = start + size + (rank < rest)
    return slice(min(start * block, total), min(stop * block, total))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, local: Tensor, total: int, block: int) -> Tensor:  # type: ignore[no-untyped-def]
        rank, workers = world()
        ctx.mine, ctx.dtype = share(total, rank, workers, block), local.dtype
        sizes = [share(total, r, workers, block) for r in range(workers)]
        largest = max(part.stop - part.start for part in sizes)
        wire = local.to(torch.uint8) if local.dtype == torch.bool else local
        padded = wire.new_zeros(largest, *wire.shape[1:])
        padded[: len(wire)] = wire
        received = [torch.empty_like(padded) for _ in range(workers)]
        dist.all_gather(received, padded)
        whole = torch.cat(
            [part[: s.stop - s.start] for part, s in zip(received, sizes, strict=True)]
        )
        return whole.to(local.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        # Every worker's loss may depend on every item: the true gradient is the sum of all.
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad[ctx.mine], None, None


def gather(local: Tensor, total: int, block: int = 1) -> Tensor:
    """All workers' items in rank order; each worker holds ``share(total, rank, workers, block)``.

    The backward pass sums the gradients that all workers have for an item and hands them to its
    owner. The gather of CLIP4Clip's family returns the local slice alone, which makes the
    gradient a W-th of the true one.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return local
    return _Gather.apply(local, total, block)


def gather_records(local: Record, total: int) -> Record:
    """All workers' records as one message, like :func:`gather` for each of their tensors.

    A tensor that stands in them twice travels once.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return local
    tensors = {id(tensor): tensor for tensor in vars(local).values()}
    dtype = next(t.dtype for t in tensors.values() if t.is_floating_point())
    packed = torch.cat([t.flatten(1).to(dtype) for t in tensors.values()], 1)
    widths = [t.flatten(1).shape[1] for t in tensors.values()]
    parts = gather(packed, total).split(widths, 1)
    whole = {
        key: part.reshape(-1, *tensor.shape[1:]).to(tensor.dtype).contiguous()
        for (key, tensor), part in zip(tensors.items(), parts, strict=True)
    }
    return local.map(lambda tensor: whole[id(tensor)])


def sum_gradients(
    weights: Sequence[Tensor], bucket_bytes: int = 32 * 2**20, *, in_order: bool = False
) -> None:
    """Add up every weight's gradient over the workers.

    A weight that took no part on any worker keeps ``None``; that set is the same everywhere,
    since all run one graph.
    """
    # The last weights come first: their gradients are the first to be there.
    gradients = [weight.grad for weight in reversed(weights) if weight.grad is not None]
    sum_together(gradients, bucket_bytes, in_order=in_order)


def sum_together(
    tensors: Sequence[Tensor], bucket_bytes: int = 32 * 2**20, *, in_order: bool = False
) -> None:
    """Add up tensors over the workers, in place, many of them as one message.

    Args:
        tensors: Of the same shapes on every worker.
        bucket_bytes: Size of a message.
        in_order: By :func:`sum_in_order`.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    bucket: list[Tensor] = []
    pending: list[tuple[Tensor, list[Tensor], dist.Work | None]] = []

    def send() -> None:
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        work = None
        if in_order:
            sum_in_order(flat)
        else:
            work = dist.all_reduce(flat, async_op=True)
        pending.append((flat, bucket.copy(), work))
        bucket.clear()

    size = 0
    for tensor in tensors:
        if bucket and (size > bucket_bytes or bucket[0].dtype != tensor.dtype):
            send()
            size = 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        send()
    for flat, parts, work in pending:
        if work is not None:
            work.wait()
        for part, total in zip(parts, flat.split([p.numel() for p in parts]), strict=True):
            part.copy_(total.view_as(part))


def sum_in_order(value: Tensor) -> None:
    """Sum over a power of two of workers, in place, as a tree over ranks: neighbours first.

    An all-reduce leaves the order to the library, and it changes with the number of workers.
    """
    rank, workers = world()
    distance = 1
    while distance < workers:
        mine, partner = value.contiguous(), rank ^ distance
        other = torch.empty_like(mine)
        sent = dist.P2POp(dist.isend, mine, partner)
        received = dist.P2POp(dist.irecv, other, partner)
        for work in dist.batch_isend_irecv([sent, received]):
            work.wait()
        value += other
        distance *= 2


def sum_over_workers(value: Tensor) -> Tensor:
    """The sum of a small tensor over all workers, without gradient, in one order: neighbours first."""
    parts = list(gather(value.detach()[None], world()[1]))
    while len(parts) > 1:
        rest = parts[len(parts) // 2 * 2 :]
        parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=False)] + rest
    return parts[0]
