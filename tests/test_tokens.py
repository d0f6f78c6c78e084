"""Token operations: against literal loops, independent of the batch, and what they refuse."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from tcmgc.config import tokens as options
from tcmgc.towers import draws
from tcmgc.towers.backbone import load_towers
from tcmgc.towers.tokens import medoids, spectral
from tcmgc.towers.tokens.operation import Rows
from tcmgc.towers.tokens.selection import perturbed_top_k, top_k
from tcmgc.towers.tokens.shift import channel_shift, token_shift

MASK = torch.tensor([[True] * 6, [True] * 3 + [False] * 3, [True] + [False] * 5])
VIDEOS, FRAMES = MASK.shape


@pytest.fixture(scope="module")
def tower(tmp_path_factory) -> str:
    values = {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 64,
            "layers": 3,
            "width": 32,
            "head_width": 16,
            "patch_size": 16,
        },
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
    }
    path = tmp_path_factory.mktemp("tokens") / "tokens_tower.json"
    path.write_text(json.dumps(values))
    return str(path)


def visual(tower: str, operation: options.TokenOptions, **more):
    torch.manual_seed(0)
    return load_towers(tower, None, freeze="none", tokens=operation, frames=FRAMES, **more)[1]


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(
        0, 256, (VIDEOS, FRAMES, 3, 64, 64), generator=generator, dtype=torch.uint8
    )


OPERATIONS = {
    "patch3d": options.Patch3d(),
    "select": options.ShiftSelect(samples=20),
    "select in videos": options.ShiftSelect(selector="video", samples=20),
    "shift of patches": options.ChannelShift(blocks=(1,)),
    "shift of classes": options.ChannelShift(of="class", blocks=(1,)),
    "medoids": options.Cluster(blocks=(1,), segments=(3,), clusters=(5,)),
    "means": options.Cluster(
        blocks=(1,), segments=(3,), clusters=(5,), aggregation="mean", cluster_embedding=True
    ),
    "two steps": options.Cluster(blocks=(0, -1), segments=(3, 1), clusters=(8, 4)),
    "spectral": options.Cluster(
        algorithm="spectral", blocks=(1,), segments=(3,), clusters=(5,), sigma=8.0
    ),
    "pooling": options.Cluster(algorithm="pooling", blocks=(1,), segments=(3,)),
    "sampling": options.Cluster(
        algorithm="sparse_sampling", blocks=(1,), segments=(3,), clusters=(5,)
    ),
}


def named(operations):
    return pytest.mark.parametrize("operation", operations.values(), ids=operations.keys())


def flat(result):
    return [part for part in result if part is not None]


@named(OPERATIONS)
@torch.no_grad()
def test_padding_and_other_videos_do_not_matter(operation, tower, pixels):
    """What a padded frame holds, how many there are, and what else is in the batch."""
    model = visual(tower, operation).eval()
    frames, mask, patches = model(pixels, MASK)
    assert frames.shape[1] == operation.frames_after(FRAMES)
    assert mask.any(1).all()
    assert not frames[~mask].any()
    noisy = torch.where(MASK[:, :, None, None, None], pixels, 255 - pixels)
    for a, b in zip(flat(model(noisy, MASK)), flat((frames, mask, patches)), strict=True):
        assert torch.equal(a, b)
    for video in range(VIDEOS):
        alone = model(pixels[video : video + 1], MASK[video : video + 1])
        for a, b in zip(flat(alone), flat((frames, mask, patches)), strict=True):
            torch.testing.assert_close(a[0], b[video], rtol=1e-4, atol=1e-5)


@named({k: v for k, v in OPERATIONS.items() if hasattr(v, "as_published")})
@torch.no_grad()
def test_without_padding_the_published_form_is_the_same(operation, tower, pixels):
    import dataclasses

    if isinstance(operation, options.ShiftSelect):
        operation = dataclasses.replace(operation, samples=1, sigma=1e-30)
    full = torch.ones_like(MASK)
    published = visual(tower, dataclasses.replace(operation, as_published=True)).eval()
    ours = visual(tower, operation).eval()
    for a, b in zip(flat(ours(pixels, full)), flat(published(pixels, full)), strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.allclose(ours(pixels, MASK)[0], published(pixels, MASK)[0])


@named(OPERATIONS)
def test_recomputed_activations_and_split_batches_give_the_same_gradients(operation, tower, pixels):
    def gradients(parts, **more):
        model = visual(tower, operation, **more).train()
        seeds = draws.seeds(3, torch.arange(VIDEOS))
        for part in parts:
            frames, _, patches = model(pixels[part], MASK[part], seeds=seeds[part])
            (frames.square().sum() + (0 if patches is None else patches.sum())).backward()
        return {
            name: weight.grad
            for name, weight in model.named_parameters()
            if weight.grad is not None
        }

    whole = gradients([slice(None)])
    assert whole
    for other in (
        gradients([slice(None)], checkpoint_activations=True),
        gradients([slice(0, 2), slice(2, 3)]),
    ):
        assert other.keys() == whole.keys()
        for name, gradient in whole.items():
            scale = gradient.abs().max().item()
            torch.testing.assert_close(other[name], gradient, rtol=1e-3, atol=1e-4 * scale)


@torch.no_grad()
def test_a_blank_frame_takes_the_place_of_padding_where_it_is_asked_for(tower, pixels):
    for operation in (OPERATIONS["select"], OPERATIONS["medoids"]):
        model = visual(tower, operation).eval()
        frames, mask, _ = model(pixels, MASK, encode_padding=True)
        count = FRAMES // operation.frames_after(FRAMES)
        blank = model(torch.zeros(1, FRAMES, 3, 64, 64), torch.arange(FRAMES)[None] < count)
        torch.testing.assert_close(frames[~mask], blank[0][:1, 0].expand_as(frames[~mask]))
        torch.testing.assert_close(frames[mask], model(pixels, MASK)[0][mask])


def test_noise_is_a_function_of_the_videos_seed(tower, pixels):
    model = visual(tower, OPERATIONS["select"]).train()
    seeds = draws.seeds(3, torch.arange(VIDEOS))
    patches = model(pixels, MASK, seeds=seeds)[2]
    torch.testing.assert_close(model(pixels[1:], MASK[1:], seeds=seeds[1:])[2], patches[1:])
    assert not torch.allclose(model(pixels, MASK, seeds=seeds + 1)[2], patches)
    with pytest.raises(ValueError, match="needs a seed for every video"):
        model(pixels, MASK)
    quiet = model.eval()(pixels, MASK)[2]
    assert torch.equal(model(pixels, MASK, seeds=seeds)[2], quiet)


def rows_of(values: torch.Tensor) -> torch.Tensor:
    """The real frames' rows of (videos, frames, ...)."""
    return values[MASK]


def neighbour(values, video, frame, step):
    other = frame + step
    if 0 <= other < FRAMES and MASK[video, other]:
        return values[video, other]
    return None


@pytest.mark.parametrize("count", [8, 17, 26, 50])
def test_token_shift_is_the_literal_one(count):
    values = torch.randn(VIDEOS, FRAMES, count, 4)
    expected, fold = values.clone(), count // 7
    for video in range(VIDEOS):
        for frame in range(FRAMES):
            for first, step in ((1, -1), (4, 1)):
                other = neighbour(values, video, frame, step)
                for token in range(first, count, fold):
                    if other is not None:
                        expected[video, frame, token] = other[token]
    assert torch.equal(token_shift(rows_of(values), Rows(MASK)), rows_of(expected))


@pytest.mark.parametrize("of", [slice(1, None), slice(0, 1)])
def test_channel_shift_is_the_literal_one(of):
    values = torch.randn(VIDEOS, FRAMES, 5, 16)
    expected = values.clone()
    for video in range(VIDEOS):
        for frame in range(FRAMES):
            for channels, step in ((slice(0, 2), 1), (slice(2, 4), -1)):
                other = neighbour(values, video, frame, step)
                expected[video, frame, of, channels] = 0 if other is None else other[of, channels]
    assert torch.equal(channel_shift(rows_of(values), Rows(MASK), of), rows_of(expected))


def test_the_gradient_of_selection_is_that_of_its_smoothing():
    """The published backward pass: the mean of one-hot times noise, over sigma."""
    torch.manual_seed(0)
    scores = torch.randn(3, 7, requires_grad=True)
    noise, sigma, k = torch.randn(3, 50, 7), 0.3, 2
    selected = perturbed_top_k(scores, k, noise, sigma)
    each = torch.stack([top_k(scores + sigma * noise[:, i], k) for i in range(50)], dim=1)
    torch.testing.assert_close(selected, each.mean(1))
    weight = torch.randn(3, k, 7)
    selected.backward(weight)
    jacobian = torch.einsum("rskp,rsp->rkp", each.detach(), noise) / 50 / sigma
    torch.testing.assert_close(scores.grad, (weight * jacobian).sum(1))


def literal_medoids(points: np.ndarray, k: int, iterations: int = 100) -> list[int]:
    """One set, one step after the other."""
    count = len(points)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    chosen = [int(np.linalg.norm(points, axis=-1).argmax())]
    while len(chosen) < k:
        nearest = [
            -1.0 if i in chosen else min(distance[i, m] for m in chosen) for i in range(count)
        ]
        chosen.append(int(np.argmax(nearest)))
    for _ in range(iterations):
        own = [
            chosen.index(i) if i in chosen else int(np.argmin([distance[i, m] for m in chosen]))
            for i in range(count)
        ]
        moved = []
        for cluster in range(k):
            members = [i for i in range(count) if own[i] == cluster]
            sums = [sum(distance[i, j] for j in members) for i in members]
            moved.append(members[int(np.argmin(sums))])
        if moved == chosen:
            break
        chosen = moved
    return sorted(chosen)


@pytest.mark.parametrize("k", [2, 5, 11])
def test_medoids_are_the_literal_ones_in_any_batch(k):
    points = torch.randn(7, 30, 6, generator=torch.Generator().manual_seed(k)).double()
    distance, norms = medoids.distances(points), points.norm(dim=-1)
    assigned, places = medoids.k_medoids(distance, norms, k, points=points)
    for number, one in enumerate(points):
        assert places[number].tolist() == literal_medoids(one.numpy(), k)
        near = distance[number][places[number]].argmin(0)
        assert torch.equal(assigned[number], near)
    means = medoids.mean_of_clusters(points, assigned, k)
    torch.testing.assert_close(means[3, 1], points[3][assigned[3] == 1].mean(0))


def test_points_left_out_and_equal_points():
    points = torch.randn(1, 20, 4, generator=torch.Generator().manual_seed(0))
    points[0, 3] = points[0, 8]
    valid = torch.arange(20)[None] < 12
    many = medoids.k_medoids(
        medoids.distances(points), points.norm(dim=-1), 12, points=points, valid=valid
    )
    assert many[1][0].tolist() == list(range(12))
    assert (many[0][0, 12:] == -1).all()
    few = medoids.k_medoids(
        medoids.distances(points), points.norm(dim=-1), 4, points=points, valid=valid
    )
    points = points[:, :12]
    alone = medoids.k_medoids(medoids.distances(points), points.norm(dim=-1), 4, points=points)
    assert torch.equal(few[1], alone[1])
    assert torch.equal(few[0][:, :12], alone[0])


def test_spectral_places_separate_what_is_not_connected():
    """Two blocks of a graph are two points in the embedding; points left out are nowhere."""
    torch.manual_seed(0)
    points = torch.cat([torch.randn(6, 3), torch.randn(5, 3) + 50, torch.randn(2, 3)])[None]
    valid = torch.arange(13)[None] < 11
    weights = spectral.affinity(points, 3.0, valid=valid)
    places, norms = spectral.embedding(weights, 2)
    distance = medoids.distances(places)[0]
    assert distance[:6, :6].max() < 1e-2
    assert distance[:6, 6:11].min() > 1
    assert not norms[0, 11:].any()
    near = spectral.affinity(points, 3.0, neighbours=3, valid=valid)
    assert torch.equal(near, near.transpose(1, 2))
    assert ((near > 0).sum(-1)[0, :11] >= 3).all()


def test_the_neighbourhood_of_a_place():
    near = spectral.grid_neighbourhood(3, 9, 3, 3)
    assert near[4].sum() == 9 * 2  # the middle of the first frame: its frame and the next
    assert near[9].sum() == 4 * 3  # a corner of the second: four places in each
    assert torch.equal(near, near.T)


@torch.no_grad()
def test_sampled_places(tower, pixels):
    model = visual(tower, OPERATIONS["sampling"])
    operation, there = model.operation, torch.ones(2, 3, dtype=torch.bool)
    counts = torch.tensor([32, 32, 16, 16, 32, 32])
    places = operation.eval()._sample(counts, 5, there, None)
    assert places[0].tolist() == [int(6.4 / 2 + 6.4 * i) for i in range(5)]
    assert places[2].tolist() == [int(3.2 / 2 + 3.2 * i) for i in range(5)]
    seeds = draws.seeds(1, torch.arange(2))
    drawn = operation.train()._sample(counts, 5, there, seeds)
    width = (counts // 5)[:, None]
    assert torch.equal(drawn // width, torch.arange(5).expand(6, 5))
    assert torch.equal(drawn[3:], operation._sample(counts[3:], 5, there[1:], seeds[1:]))
    assert not torch.equal(drawn, operation._sample(counts, 5, there, seeds + 1))


def test_patch3d_is_the_convolution_over_frames(tower, pixels):
    model = visual(tower, options.Patch3d()).eval()
    plain = visual(tower, options.NoTokens()).eval()
    assert torch.equal(model(pixels, MASK)[0], plain(pixels, MASK)[0])
    weight = model.operation.weight
    with torch.no_grad():
        weight.copy_(torch.randn_like(weight))
    frames = torch.randn(2, 4, 3, 64, 64)
    seen = model.operation.embed(
        plain.visual, frames.flatten(0, 1), Rows(torch.ones(2, 4, dtype=torch.bool))
    )
    convolution = nn.Conv3d(3, 32, (3, 16, 16), (1, 16, 16), (1, 0, 0), bias=False)
    convolution.weight = weight
    over = convolution(frames.transpose(1, 2)).transpose(1, 2).flatten(0, 1)
    expected = over.flatten(2).transpose(1, 2) + plain.visual.positional_embedding[1:]
    torch.testing.assert_close(seen[:, 1:], plain.visual.ln_pre(expected), rtol=1e-4, atol=1e-4)


def test_what_operations_refuse(tower, tmp_path):
    resnet = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
    }
    path = tmp_path / "tokens_resnet.json"
    path.write_text(json.dumps(resnet))
    for operation, name, message in (
        (options.Patch3d(), str(path), "works inside the blocks .* is a ModifiedResNet"),
        (options.ChannelShift(blocks=(3,)), tower, "has 3 blocks, 0 to 2, and no block 3"),
        (options.ShiftSelect(patches=17), tower, "17 cannot be selected of the tower's 16"),
        (
            options.Cluster(blocks=(1,), segments=(4,)),
            tower,
            "6 frames cannot be joined to 4 segments",
        ),
        (
            options.Cluster(blocks=(1,), segments=(3,), clusters=(17,)),
            tower,
            "17 clusters are more than a frame's 16 tokens",
        ),
        (
            options.Cluster(blocks=(1, 0), segments=(3, 1), clusters=(4, 4)),
            tower,
            "must ascend",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            visual(name, operation)
    with pytest.raises(ValueError, match="as many clusterings each"):
        options.Cluster(blocks=(1, 2))
