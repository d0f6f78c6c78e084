from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from workers import Workers

from tcmgc.towers.features import VideoFeatures
from tcmgc.training.distributed import (
    gather,
    gather_records,
    share,
    start_gather_records,
    start_sum,
    world,
)


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
    start_sum([local])()
    frames = local[:, None]
    record = VideoFeatures(frames, frames, torch.ones(3, 1, dtype=torch.bool))
    assert start_gather_records(record, 3)() is record


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


def _tensors(rank: int) -> list[Tensor]:
    torch.manual_seed(rank)
    types = [torch.float32] * 3 + [torch.float64, torch.float32]
    return [
        torch.randn(size, 2, dtype=dtype)
        for size, dtype in zip((3, 50, 1, 7, 20), types, strict=True)
    ]


def _sum(bucket_bytes: int) -> tuple[list[Tensor], int]:
    tensors = _tensors(world()[0])
    calls, real = [], dist.all_reduce
    dist.all_reduce = lambda *args, **kwargs: calls.append(1) or real(*args, **kwargs)
    try:
        start_sum(tensors, bucket_bytes)()
    finally:
        dist.all_reduce = real
    return tensors, len(calls)


@pytest.mark.parametrize(("bucket_bytes", "messages"), [(0, 5), (350, 4), (10**6, 3)])
def test_tensors_add_up_whatever_the_buckets(three: Workers, bucket_bytes: int, messages: int):
    each = [_tensors(rank) for rank in range(3)]
    for found, sent in three.run(_sum, bucket_bytes):
        assert sent == messages
        for index, got in enumerate(found):
            torch.testing.assert_close(got, sum(tensors[index] for tensors in each))


def _sums_on_the_way() -> tuple[list[float], list[float]]:
    rank, _ = world()
    value, other = torch.full((2,), 10.0**rank), torch.full((2,), 0.1**rank)
    first = start_sum([value], in_order=True)
    second = start_sum([other], in_order=True)
    first()
    assert value.tolist() == [1111.0] * 2
    second()
    return value.tolist(), other.tolist()


def test_sums_may_be_on_their_way_together():
    four = Workers(4)
    try:
        found = four.run(_sums_on_the_way)
    finally:
        four.close()
    # Neighbours first: (1 + 0.1) + (0.01 + 0.001), in float32.
    one = [torch.tensor(0.1**rank) for rank in range(4)]
    tree = ((one[0] + one[1]) + (one[2] + one[3])).item()
    assert found == [([1111.0] * 2, [tree] * 2)] * 4


def _gather_records(shared: bool) -> VideoFeatures:
    rank, workers = world()
    frames = torch.arange(5 * 2 * 3, dtype=torch.float64).reshape(5, 2, 3)
    mine = share(5, rank, workers)
    encoded = frames[mine] if shared else -frames[mine]
    local = VideoFeatures(frames[mine], encoded, frames[mine, :, 0] % 4 > 1)
    if shared:
        local = VideoFeatures(local.frames, local.frames, local.frame_mask)
    begun = start_gather_records(local, 5)
    at_once = gather_records(local, 5)
    later = begun()
    for name, tensor in at_once.tensors.items():
        assert torch.equal(getattr(later, name), tensor)
    return later


@pytest.mark.parametrize("shared", [True, False])
def test_videos_travel_together(three: Workers, shared: bool):
    frames = torch.arange(5 * 2 * 3, dtype=torch.float64).reshape(5, 2, 3)
    for found in three.run(_gather_records, shared):
        assert torch.equal(found.frames, frames)
        assert torch.equal(found.encoded, frames if shared else -frames)
        assert torch.equal(found.frame_mask, frames[:, :, 0] % 4 > 1)
