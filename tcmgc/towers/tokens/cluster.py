"""CenterCLIP's token clustering: a few frames become one segment, whose patches are reduced to centres."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tcmgc.config.tokens import Cluster as Options
from tcmgc.towers import draws
from tcmgc.towers.tokens import medoids, spectral
from tcmgc.towers.tokens.operation import Rows, TokenOperation, block_numbers, check


class Cluster(TokenOperation):
    """At the start of some blocks, joins frames to segments and reduces their patches.

    A segment's class token is the mean of its frames' class tokens. The choice of patches has no gradient.

    Args:
        options: Blocks, segments, clusters and how they are found.
        visual: The tower's image encoder.
        frames: Frames of a video.
        dim: Width of the joint space.
    """

    def __init__(self, options: Options, visual: Any, frames: int, dim: int) -> None:
        super().__init__()
        check(visual, "token clustering")
        self.options = options
        self.together = options.as_published
        self.draws = options.algorithm == "sparse_sampling"
        self.segment = frames // options.segments[-1]
        self.patches_before = len(visual.positional_embedding) - 1
        blocks = block_numbers(options.blocks, visual, "tokens.blocks")
        if list(blocks) != sorted(set(blocks)):
            raise ValueError(f"tokens.blocks must ascend; got blocks {blocks}")
        self.steps: dict[int, tuple[int, int]] = {}
        before, tokens = frames, self.patches_before
        for block, segments, clusters in zip(
            blocks, options.segments, options.clusters, strict=True
        ):
            if before % segments:
                raise ValueError(
                    f"tokens.segments: {before} frames cannot be joined to {segments} segments of the same length; "
                    "choose a divisor of data.max_frames"
                )
            if clusters > tokens and options.algorithm != "pooling":
                raise ValueError(
                    f"tokens.clusters: {clusters} clusters are more than a frame's {tokens} tokens"
                )
            self.steps[block] = before // segments, clusters
            before, tokens = segments, tokens if options.algorithm == "pooling" else clusters
        self.embeddings = nn.ParameterDict()
        if options.cluster_embedding and options.algorithm in ("kmedoids", "spectral"):
            for block, (_, clusters) in self.steps.items():
                start = visual.positional_embedding.detach()[1 : clusters + 1]
                self.embeddings[str(block)] = nn.Parameter(start.clone())

    def frame_mask(self, mask: Bool[Tensor, "videos frames"]) -> Bool[Tensor, "videos frames_left"]:
        """Segments with a real frame; as published, segments whose last frame is real."""
        segments = mask.unflatten(1, (-1, self.segment))
        return segments[..., -1] if self.options.as_published else segments.any(-1)

    def before(
        self,
        block: int,
        tokens: Float[Tensor, "rows tokens width"],
        rows: Rows,
        seeds: Int[Tensor, " videos"] | None,
    ) -> tuple[Float[Tensor, "rows_left tokens_left width"], Rows]:
        """Segments of frames, each with its class token and the centres of its patches."""
        if block not in self.steps:
            return tokens, rows
        length, clusters = self.steps[block]
        mask = rows.mask.unflatten(1, (-1, length))
        there = mask.any(-1)
        frames = rows.spread(tokens).unflatten(1, (-1, length))[there]
        valid = mask[there]
        if self.options.algorithm == "pooling":
            return _mean(frames, valid), Rows(there)
        first = _mean(frames[:, :, :1], valid)
        patches = frames[:, :, 1:].flatten(1, 2)
        real = valid.repeat_interleave(frames.shape[2] - 1, dim=1)
        if self.options.algorithm == "sparse_sampling":
            places = self._sample(real.sum(1), clusters, there, seeds)
            centres = patches.gather(1, places[..., None].expand(-1, -1, patches.shape[-1]))
        else:
            centres = self._centres(patches, real, clusters, length)
        if str(block) in self.embeddings:
            centres = centres + self.embeddings[str(block)].to(centres.dtype)
        return torch.cat([first, centres], dim=1), Rows(there)

    def _centres(
        self,
        patches: Float[Tensor, "segments points width"],
        real: Bool[Tensor, "segments points"],
        clusters: int,
        length: int,
    ) -> Float[Tensor, "segments clusters width"]:
        with torch.autocast(patches.device.type, enabled=False):
            assigned, places = self.cluster(patches.detach().float(), real, clusters, length)
        if self.options.aggregation == "mean":
            return medoids.mean_of_clusters(patches, assigned, clusters)
        return patches.gather(1, places[..., None].expand(-1, -1, patches.shape[-1]))

    def cluster(
        self,
        points: Float[Tensor, "segments points width"],
        real: Bool[Tensor, "segments points"],
        clusters: int,
        length: int,
    ) -> tuple[Int[Tensor, "segments points"], Int[Tensor, "segments clusters"]]:
        """The cluster of each point, and the clusters' medoids."""
        o = self.options
        norms = points.norm(dim=-1)
        if o.algorithm == "spectral":
            tokens = points.shape[1] // length
            wide = tokens >= 100
            allowed = None
            if o.spatial_temporal:
                window = 19 if wide else 9
                allowed = spectral.grid_neighbourhood(length, tokens, window, 7).to(points.device)
            neighbours = 0
            if o.graph == "knn":
                neighbours = o.neighbours or 5 * length + 5 * wide
            weights = spectral.affinity(
                points, o.sigma, neighbours=neighbours, valid=real, allowed=allowed
            )
            points, norms = spectral.embedding(weights, clusters)
        elif o.normalise:
            # All norms are 1 afterwards, so the first medoid is the one with the largest norm before.
            points = points / (norms[..., None] + 1e-6)
        return medoids.k_medoids(
            medoids.distances(points, metric=o.distance, p=o.p),
            norms,
            clusters,
            points=points,
            valid=real,
            threshold=o.threshold,
            iterations=o.iterations,
        )

    def _sample(
        self,
        counts: Int[Tensor, " segments"],
        clusters: int,
        there: Bool[Tensor, "videos segments_a_video"],
        seeds: Int[Tensor, " videos"] | None,
    ) -> Int[Tensor, "segments clusters"]:
        """Positions of tokens, one in each equal part of a segment: its centre; in training, a random one."""
        part = torch.arange(clusters, device=counts.device)
        if not self.training:
            length = counts.double()[:, None] / clusters
            return (length / 2 + length * part).long()
        place = there.nonzero()
        own = draws.seeds(self.seeds_of(seeds)[place[:, 0]], place[:, 1])
        width = (counts // clusters)[:, None]
        return part * width + (draws.uniform(own, clusters) * width).long()


def _mean(
    frames: Float[Tensor, "segments frames tokens width"], valid: Bool[Tensor, "segments frames"]
) -> Float[Tensor, "segments tokens width"]:
    """Mean over real frames; the others are zero."""
    return frames.sum(1) / valid.sum(1)[:, None, None]
