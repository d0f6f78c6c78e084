"""Batched k-medoids with KKZ initialisation; the result does not depend on the rest of the batch."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def distances(
    points: Float[Tensor, "sets points width"], *, metric: str = "euclidean", p: float = 2.0
) -> Float[Tensor, "sets points points"]:
    """Distances between the points of each set, exactly symmetric, with exact zeros between equal points.

    Ties are thus broken by position and not by rounding: the medoid of two points is the first.

    Args:
        points: Sets with equal numbers of points.
        metric: ``euclidean`` (the p-norm of the difference) or ``cosine`` (1 minus the cosine).
        p: Order of the norm.
    """
    if metric == "cosine":
        unit = points / (points.norm(dim=-1, keepdim=True) + 1e-6)
        product = unit @ unit.transpose(1, 2)
        out = 1 - (product + product.transpose(1, 2)) / 2
        return out.masked_fill(torch.eye(out.shape[1], dtype=torch.bool, device=out.device), 0)
    return torch.cdist(points, points, p=p, compute_mode="donot_use_mm_for_euclid_dist")


@torch.no_grad()
def k_medoids(
    distance: Float[Tensor, "sets points points"],
    norms: Float[Tensor, "sets points"],
    k: int,
    *,
    points: Float[Tensor, "sets points width"],
    valid: Bool[Tensor, "sets points"] | None = None,
    threshold: float = 1e-6,
    iterations: int = 100,
) -> tuple[Int[Tensor, "sets points"], Int[Tensor, "sets k"]]:
    """The cluster of each point and the medoids in ascending order.

    KKZ initialisation: the point of the largest norm; then, repeatedly, the point farthest from its
    nearest medoid. Then points are assigned to their nearest medoid and the medoid becomes the
    member with the smallest sum of distances, until the total movement of the set's medoids is less
    than ``threshold``. Ties are decided by the lower position.

    Args:
        distance: Between the points of each set.
        norms: Used to choose the first medoid.
        k: Number of clusters, at most the number of valid points of any set.
        points: Coordinates for measuring the medoids' movements.
        valid: Points that are clustered; the others get cluster -1. None: all.
        threshold: Smallest movement for another iteration.
        iterations: Most iterations.
    """
    sets, count, _ = distance.shape
    if valid is None:
        valid = torch.ones(sets, count, dtype=torch.bool, device=distance.device)
    # A point is nearest to itself, even if another one equals it, so that no cluster is empty.
    distance = distance - torch.eye(count, dtype=distance.dtype, device=distance.device)
    medoids = _kkz(distance, norms, k, valid)
    clusters = torch.arange(k, device=distance.device)[:, None]
    done = torch.zeros(sets, dtype=torch.bool, device=distance.device)
    for _ in range(iterations):
        assigned = _assign(distance, medoids, valid)
        together = assigned[:, :, None] == assigned[:, None, :]
        sums = (distance * together).sum(-1)
        members = assigned[:, None] == clusters
        moved = sums[:, None].masked_fill(~members, float("inf")).argmin(-1)
        shift = (_take(points, moved) - _take(points, medoids)).norm(dim=-1).sum(-1)
        medoids = torch.where(done[:, None], medoids, moved)
        done = done | (shift < threshold)
        if bool(done.all()):
            break
    medoids = medoids.sort(dim=1).values
    return _assign(distance, medoids, valid), medoids


def _kkz(distance: Tensor, norms: Tensor, k: int, valid: Tensor) -> Tensor:
    nothing = -float("inf")
    medoids = [norms.masked_fill(~valid, nothing).argmax(1)]
    nearest = torch.full_like(norms, float("inf"))
    for _ in range(1, k):
        newest = distance.gather(1, medoids[-1][:, None, None].expand(-1, 1, norms.shape[1]))
        nearest = torch.minimum(nearest, newest[:, 0])
        medoids.append(nearest.masked_fill(~valid, nothing).argmax(1))
    return torch.stack(medoids, dim=1)


def _assign(distance: Tensor, medoids: Tensor, valid: Tensor) -> Tensor:
    to_medoids = _take(distance, medoids)
    return to_medoids.argmin(1).masked_fill(~valid, -1)


def _take(points: Tensor, places: Tensor) -> Tensor:
    """Select rows of each set."""
    return points.gather(1, places[..., None].expand(-1, -1, points.shape[-1]))


def mean_of_clusters(
    points: Float[Tensor, "sets points width"], assigned: Int[Tensor, "sets points"], k: int
) -> Float[Tensor, "sets k width"]:
    """The mean of each cluster's members."""
    members = F.one_hot(assigned + 1, k + 1)[..., 1:].to(points.dtype).transpose(1, 2)
    return members @ points / members.sum(-1, keepdim=True)
