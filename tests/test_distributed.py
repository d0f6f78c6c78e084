from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from workers import Workers

from tcmgc.distributed import (
    gather,
    gather_records,
    share,
    sum_gradients,
    sum_over_workers,
    world,
)
from tcmgc.features import VideoFeatures


@pytest.fixture(scope="module")
def three() -> Iterator[Workers]:
    group = Workers(3)
    yield group
    group.close()


@pytest.mark.parametrize("total", [1, 2, 6, 7, 8])
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_shares_cover_everything_once_in_order_and_evenly(total: int, workers: int):
    parts = [range(total)[share(total, rank, workers)] for rank in range(workers)]
    assert [i for part in parts for i in part] == list(range(total))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


def test_one_worker_gathers_nothing():
    local = torch.randn(3, 2, requires_grad=True)
    assert gather(local, 3) is local
    assert world() == (0, 1)
    assert torch.equal(sum_over_workers(local), local)


def _gather_and_back(total: int) -> tuple[Tensor, Tensor, Tensor]:
    rank, workers = world()
    whole = torch.arange(total * 2, dtype=torch.float64).reshape(total, 2)
    local = whole[share(total, rank, workers)].clone().requires_grad_()
    everyone = gather(local, total)
    # Each worker has a loss of its own that depends on every item.
    (everyone * (rank + 1) * torch.arange(1.0, total + 1)[:, None]).sum().backward()
    assert local.grad is not None
    flags = gather(local.detach()[:, 0] > 3, total)
    return everyone.detach(), local.grad, flags


@pytest.mark.parametrize("total", [2, 3, 7])
def test_gather_gives_all_items_and_sums_their_gradients(three: Workers, total: int):
    whole = torch.arange(total * 2, dtype=torch.float64).reshape(total, 2)
    results = three.run(_gather_and_back, total)
    for everyone, _, flags in results:
        assert torch.equal(everyone, whole)
        assert torch.equal(flags, whole[:, 0] > 3)
    # 1 + 2 + 3 workers' weights, times the item's own.
    expected = (6.0 * torch.arange(1.0, total + 1))[:, None].expand(total, 2).double()
    assert torch.equal(torch.cat([grad for _, grad, _ in results]), expected)


class _Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for index, size in enumerate((3, 50, 1, 7, 20)):
            dtype = torch.float64 if index == 3 else torch.float32
            self.register_parameter(f"p{index}", nn.Parameter(torch.zeros(size, 2, dtype=dtype)))


def _gradients(rank: int) -> list[Tensor | None]:
    torch.manual_seed(rank)
    # The third takes no part on any worker.
    return [
        None if index == 2 else torch.randn_like(parameter)
        for index, parameter in enumerate(_Several().parameters())
    ]


def _sum(bucket_bytes: int) -> tuple[list[Tensor | None], int]:
    module = _Several()
    for parameter, grad in zip(module.parameters(), _gradients(world()[0]), strict=True):
        parameter.grad = grad
    calls, real = [], dist.all_reduce
    dist.all_reduce = lambda *args, **kwargs: calls.append(1) or real(*args, **kwargs)
    try:
        sum_gradients(list(module.parameters()), bucket_bytes)
    finally:
        dist.all_reduce = real
    return [parameter.grad for parameter in module.parameters()], len(calls)


@pytest.mark.parametrize(("bucket_bytes", "messages"), [(0, 4), (350, 4), (10**6, 3)])
def test_gradients_add_up_whatever_the_buckets(three: Workers, bucket_bytes: int, messages: int):
    each = [_gradients(rank) for rank in range(3)]
    for found, sent in three.run(_sum, bucket_bytes):
        assert sent == messages
        for index, got in enumerate(found):
            if index == 2:
                assert got is None
            else:
                torch.testing.assert_close(got, sum(grads[index] for grads in each))


def _total() -> Tensor:
    value = torch.tensor([float(world()[0]), 1.0])
    total = sum_over_workers(value)
    assert value.tolist() == [float(world()[0]), 1.0]
    return total


def test_values_add_up_and_stay_as_they_were(three: Workers):
    assert [t.tolist() for t in three.run(_total)] == [[3.0, 3.0]] * 3


def _gather_records(shared: bool) -> VideoFeatures:
    rank, workers = world()
    frames = torch.arange(5 * 2 * 3, dtype=torch.float64).reshape(5, 2, 3)
    mine = share(5, rank, workers)
    encoded = frames[mine] if shared else -frames[mine]
    local = VideoFeatures(frames[mine], encoded, frames[mine, :, 0] % 4 > 1)
    if shared:
        local = VideoFeatures(local.frames, local.frames, local.frame_mask)
    return gather_records(local, 5)


@pytest.mark.parametrize("shared", [True, False])
def test_videos_travel_together(three: Workers, shared: bool):
    frames = torch.arange(5 * 2 * 3, dtype=torch.float64).reshape(5, 2, 3)
    for found in three.run(_gather_records, shared):
        assert torch.equal(found.frames, frames)
        assert torch.equal(found.encoded, frames if shared else -frames)
        assert torch.equal(found.frame_mask, frames[:, :, 0] % 4 > 1)
