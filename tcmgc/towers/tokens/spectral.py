"""Normalised spectral clustering of tokens, as CenterCLIP uses it."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def affinity(
    points: Float[Tensor, "sets points width"],
    sigma: float,
    *,
    neighbours: int = 0,
    valid: Bool[Tensor, "sets points"] | None = None,
    allowed: Bool[Tensor, "points points"] | None = None,
) -> Float[Tensor, "sets points points"]:
    """exp(-d² / 2 sigma²) between the points of each set.

    Args:
        points: Sets with equal numbers of points.
        sigma: Width of the kernel.
        neighbours: Keep affinities among this many largest of either point (itself counted); 0 keeps all.
        valid: Points that take part; None: all.
        allowed: Pairs that may be joined; None: all.
    """
    squares = points.square().sum(-1)
    distance = squares[:, :, None] + squares[:, None] - 2 * points @ points.transpose(1, 2)
    weights = torch.exp(-distance / (2 * sigma**2))
    if valid is not None:
        weights = weights * (valid[:, :, None] & valid[:, None])
    if neighbours:
        least = weights.topk(min(neighbours, weights.shape[-1]), dim=-1).values[..., -1:]
        near = weights >= least
        weights = weights * (near | near.transpose(1, 2))
    return weights if allowed is None else weights * allowed


@torch.no_grad()
def embedding(
    weights: Float[Tensor, "sets points points"], k: int
) -> tuple[Float[Tensor, "sets points k"], Float[Tensor, "sets points"]]:
    """Spectral embedding: each point's coordinates in the k smoothest directions of a graph, and their norm.

    These are the eigenvectors of the k smallest eigenvalues of the normalised Laplacian, rows scaled to
    length 1. Signs and rotations of eigenvectors do not change distances between rows.

    Args:
        weights: Symmetric affinities. A point without any is left out: its row is zero.
        k: Number of directions.
    """
    degree = weights.sum(-1)
    scale = torch.where(degree > 0, degree.clamp_min(1e-30).rsqrt(), 0)
    identity = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    # A point left out would have eigenvalue 0; 3 sorts it after all others, which are at most 2.
    own = torch.where(degree > 0, 1.0, 3.0)[:, None] * identity
    laplacian = own - scale[:, :, None] * weights * scale[:, None]
    vectors = torch.linalg.eigh(laplacian).eigenvectors[..., :k]
    norms = vectors.norm(dim=-1)
    return vectors / (norms[..., None] + 1e-6), norms


def grid_neighbourhood(
    frames: int, tokens: int, across: int, along: int
) -> Bool[Tensor, "points points"]:
    """Pairs of positions on a square grid over frames that are near in both directions and in time.

    Args:
        frames: Frames, each with a grid of tokens.
        tokens: Tokens of a frame, a square number.
        across: Side of the window on the grid, odd.
        along: Frames of the window, odd.
    """
    side = int(tokens**0.5)
    place = torch.arange(frames * tokens)
    apart = lambda x: (x[:, None] - x).abs()  # noqa: E731
    when, row, column = place // tokens, place % tokens // side, place % tokens % side
    near = (apart(row) <= across // 2) & (apart(column) <= across // 2)
    return near & (apart(when) <= along // 2)
