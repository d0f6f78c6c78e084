"""The one gather with gradient, and sums over workers. Without a process group all are the identity."""

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world() -> tuple[int, int]:
    """This worker's rank and the number of workers."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def share(total: int, rank: int, workers: int) -> slice:
    """The part of ``total`` items that one worker takes: in rank order, sizes differing by one at most."""
    size, rest = divmod(total, workers)
    start = rank * size + min(rank, rest)
    return slice(start, start + size + (rank < rest))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, local: Tensor, total: int) -> Tensor:  # type: ignore[no-untyped-def]
        rank, workers = world()
        ctx.mine, ctx.dtype = share(total, rank, workers), local.dtype
        sizes = [share(total, r, workers) for r in range(workers)]
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
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        # Every worker's loss may depend on every item: the true gradient is the sum of all.
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad[ctx.mine], None


def gather(local: Tensor, total: int) -> Tensor:
    """All workers' items in rank order; each worker holds ``share(total, rank, workers)``.

    The backward pass sums the gradients that all workers have for an item and hands them to its
    owner. The gather of CLIP4Clip's family returns the local slice alone, which makes the
    gradient a W-th of the true one.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return local
    return _Gather.apply(local, total)


def sum_gradients(module: nn.Module, bucket_bytes: int = 32 * 2**20) -> None:
    """Add up every parameter's gradient over the workers, in buckets.

    Of an embedding only the rows that any worker used travel: a batch has a few hundred of a
    vocabulary's 49,408 words. A parameter that took no part on any worker keeps ``None``; that set
    is the same everywhere, since all run one graph.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    tables = {m.weight for m in module.modules() if isinstance(m, nn.Embedding)}
    bucket: list[Tensor] = []
    pending: list[tuple[Tensor, list[Tensor], dist.Work]] = []

    def send() -> None:
        flat = torch.cat([grad.reshape(-1) for grad in bucket])
        pending.append((flat, bucket.copy(), dist.all_reduce(flat, async_op=True)))
        bucket.clear()

    size = 0
    for parameter in reversed(list(module.parameters())):
        if parameter.grad is None:
            continue
        if parameter in tables:
            _sum_rows(parameter.grad)
            continue
        if bucket and (size > bucket_bytes or bucket[0].dtype != parameter.grad.dtype):
            send()
            size = 0
        bucket.append(parameter.grad)
        size += parameter.grad.nbytes
    if bucket:
        send()
    for flat, grads, work in pending:
        work.wait()
        for grad, total in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(total.view_as(grad))


def _sum_rows(grad: Tensor) -> None:
    """Add up a gradient over the workers, sending only rows that are not zero on all of them."""
    used = (grad != 0).any(1).to(torch.uint8)
    dist.all_reduce(used, op=dist.ReduceOp.MAX)
    rows = used.nonzero().flatten()
    part = grad[rows]
    dist.all_reduce(part)
    grad[rows] = part


def sum_over_workers(value: Tensor) -> Tensor:
    """The sum of a tensor over all workers, without gradient."""
    value = value.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(value)
    return value
