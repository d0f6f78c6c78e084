"""TS2-Net's token operation: shift over time, and a few soft patches per frame by a learnt score."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tcmgc.config.tokens import ShiftSelect as Options
from tcmgc.towers import draws
from tcmgc.towers.patches import count
from tcmgc.towers.tokens.operation import Change, Rows, TokenOperation, block_numbers, check
from tcmgc.towers.tokens.shift import token_shift


class FrameScore(nn.Module):
    """TS2-Net's score of each token, computed from the token and its frame's class token."""

    added = True
    """New weights, which learn at the rate of new ones."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        self.norm = nn.LayerNorm(dim)
        self.local = nn.Linear(dim, half, bias=False)
        self.both = nn.Linear(2 * half, half, bias=False)
        self.out = nn.Linear(half, 1, bias=False)
        self.gelu = nn.GELU()
        _initialise(self)

    def forward(
        self, tokens: Float[Tensor, "rows tokens dim"], rows: Rows
    ) -> Float[Tensor, "rows patches"]:
        """Scores in (-1, 1) of all tokens but the class token."""
        x = self.gelu(self.local(self.norm(tokens)))
        x = torch.cat([x, x[:, :1].expand_as(x)], dim=-1)
        return self.out(self.gelu(self.both(x)))[:, 1:, 0].tanh()


class VideoScore(nn.Module):
    """The score in UCoFiA's tree for text-to-video evaluation.

    It is computed from each token, its frame's class token before the first layer, and the sum over
    the video's frames of the first layer's outputs for class tokens.
    """

    added = True
    """New weights, which learn at the rate of new ones."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * dim)
        self.local = nn.Linear(2 * dim, dim, bias=False)
        self.both = nn.Linear(2 * dim, dim, bias=False)
        self.out = nn.Linear(dim, 1, bias=False)
        self.gelu = nn.GELU()
        _initialise(self)

    def forward(
        self, tokens: Float[Tensor, "rows tokens dim"], rows: Rows
    ) -> Float[Tensor, "rows patches"]:
        """Scores in (-1, 1) of all tokens but the class token."""
        pairs = torch.cat([tokens, tokens[:, :1].expand_as(tokens)], dim=-1)
        x = self.gelu(self.local(self.norm(pairs)))
        whole = rows.spread(x[:, 0]).sum(1)[rows.video]
        x = torch.cat([x, whole[:, None].expand_as(x)], dim=-1)
        return self.out(self.gelu(self.both(x)))[:, 1:, 0].tanh()


SCORES: dict[str, type[FrameScore] | type[VideoScore]] = {
    "frame": FrameScore,
    "video": VideoScore,
}


def _initialise(score: nn.Module) -> None:
    for layer in score.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)


def top_k(scores: Float[Tensor, "rows patches"], k: int) -> Float[Tensor, "rows k patches"]:
    """One-hot rows of the k largest scores, in the order of their positions."""
    places = scores.topk(k, dim=-1).indices.sort(dim=-1).values
    return torch.nn.functional.one_hot(places, scores.shape[-1]).to(scores.dtype)


def perturbed_top_k(
    scores: Float[Tensor, "rows patches"],
    k: int,
    noise: Float[Tensor, "rows samples patches"],
    sigma: float,
) -> Float[Tensor, "rows k patches"]:
    """The mean of :func:`top_k` over noisy scores, which has a gradient (Cordonnier et al., CVPR 2021).

    The Jacobian is that of a Gaussian smoothing: the mean of selection times noise, over sigma. It is
    computed here without keeping a one-hot tensor of every sample.

    Args:
        scores: One per patch.
        k: Number of selected patches.
        noise: Standard normal, one sample of all patches per selection.
        sigma: Standard deviation of the noise on the scores.
    """
    rows, samples, patches = noise.shape
    noisy = scores.detach()[:, None] + sigma * noise
    places = noisy.topk(k, dim=-1, sorted=False).indices.sort(dim=-1).values
    drawn = noise.gather(2, places)
    places, drawn = places.transpose(1, 2), drawn.transpose(1, 2)
    share = scores.new_zeros(rows, k, patches)
    selected = share.scatter_add(2, places, torch.full_like(drawn, 1 / samples))
    jacobian = share.scatter_add(2, places, drawn / (samples * sigma))
    return selected + jacobian * (scores - scores.detach())[:, None]


class ShiftSelect(TokenOperation):
    """Token shift in some blocks; k mixtures of patches of each frame as patch features.

    Args:
        options: Blocks, number of patches, score, noise.
        visual: The tower's image encoder.
        frames: Frames of a video.
        dim: Width of the joint space.
    """

    draws = True

    def __init__(self, options: Options, visual: Any, frames: int, dim: int) -> None:
        super().__init__()
        self.options = options
        self.inside_blocks = bool(options.blocks)
        self.together = options.as_published
        if options.blocks:
            check(visual, "token shift (tokens.blocks)")
            self.blocks = block_numbers(options.blocks, visual, "tokens.blocks")
        found = count(visual)
        if options.patches > found:
            raise ValueError(
                f"tokens.patches: {options.patches} cannot be selected of the tower's {found} patches a frame"
            )
        self.score = SCORES[options.selector](dim)

    def inside(self, block: int, rows: Rows) -> tuple[Change | None, Change | None]:
        """Give attention shifted tokens."""
        if block not in self.blocks:
            return None, None
        return (lambda tokens: token_shift(tokens, rows)), None

    def patches(
        self,
        tokens: Float[Tensor, "rows tokens dim"],
        rows: Rows,
        seeds: Int[Tensor, " videos"] | None,
    ) -> Float[Tensor, "rows k dim"]:
        """The selected patches: in training, mean selections under noise; else those of the highest scores."""
        return self.select(tokens, rows, seeds) @ tokens[:, 1:]

    def select(
        self,
        tokens: Float[Tensor, "rows tokens dim"],
        rows: Rows,
        seeds: Int[Tensor, " videos"] | None,
    ) -> Float[Tensor, "rows k patches"]:
        """Weights of the patches in each mixture."""
        scores, k = self.score(tokens, rows), self.options.patches
        if not self.training and not self.options.as_published:
            return top_k(scores, k)
        if not self.training and seeds is None:
            seeds = rows.video.new_zeros(len(rows.mask))
        noise = self.noise(rows, scores.shape[1], self.seeds_of(seeds))
        return perturbed_top_k(scores, k, noise.to(scores.dtype), self.options.sigma)

    def noise(
        self, rows: Rows, patches: int, seeds: Int[Tensor, " videos"]
    ) -> Float[Tensor, "rows samples patches"]:
        """Standard normal numbers of each frame."""
        place = rows.mask.nonzero()
        return draws.normal(
            draws.seeds(seeds[place[:, 0]], place[:, 1]), self.options.samples, patches
        )
