"""Transformers over frames: the paper's encoder (Eq. 1), CLIP4Clip's seqTransf and TS2-Net's over patches."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tcmgc.config.temporal import PatchTransformer as PatchOptions
from tcmgc.config.temporal import Temporal
from tcmgc.towers.activation import QuickGELU


class FeedForward(nn.Module):
    """Linear to four times the width, QuickGELU, linear back."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(dim, 4 * dim)
        self.gelu = QuickGELU()
        self.c_proj = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Applied to the last axis."""
        return self.c_proj(self.gelu(self.c_fc(x)))


class Block(nn.Module):
    """Pre-norm transformer block with a mask over keys; parameter names are CLIP's.

    Args:
        dim: Width.
        heads: Attention heads; 0: one for every 64 channels.
        eps: Added to the variance by the layer norms.
    """

    def __init__(self, dim: int, heads: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.heads = heads or max(dim // 64, 1)
        if dim % self.heads:
            raise ValueError(f"temporal.heads: {self.heads} heads do not divide the width {dim}")
        self.ln_1 = nn.LayerNorm(dim, eps)
        self.attn = nn.MultiheadAttention(dim, self.heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(dim, eps)
        self.mlp = FeedForward(dim)

    def forward(
        self, x: Float[Tensor, "videos frames dim"], mask: Bool[Tensor, "videos frames"]
    ) -> Float[Tensor, "videos frames dim"]:
        """Attention over real frames and the feed-forward layer, each with its residual."""
        x = x + self._attend(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))

    def first(
        self, x: Float[Tensor, "videos frames dim"], mask: Bool[Tensor, "videos frames"]
    ) -> Float[Tensor, "videos dim"]:
        """The first frame of :meth:`forward`'s result, without computing the others."""
        dim, normed = x.shape[2], self.ln_1(x)
        weight, bias = self.attn.in_proj_weight, self.attn.in_proj_bias
        query = F.linear(normed[:, :1], weight[:dim], bias[:dim])
        rest = F.linear(normed, weight[dim:], bias[dim:]).unflatten(2, (2, self.heads, -1))
        key, value = rest.permute(2, 0, 3, 1, 4)
        query = query.unflatten(2, (self.heads, -1)).transpose(1, 2)
        x = x[:, 0] + self._mix(query, key, value, mask)[:, 0]
        return x + self.mlp(self.ln_2(x))

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        videos, frames, _ = x.shape
        projected = F.linear(x, self.attn.in_proj_weight, self.attn.in_proj_bias)
        query, key, value = projected.view(videos, frames, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self._mix(query, key, value, mask)

    def _mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Attention of all heads (videos, heads, frames, width of a head), and the output projection."""
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        return self.attn.out_proj(out.transpose(1, 2).flatten(2))


class TemporalEncoder(nn.Module):
    """Transformer over frames with a table of positions: Transformer-Enc(v + P).

    Args:
        options: Layers, heads, residual.
        dim: Width of the frames.
        frames: Rows of the position table.
    """

    def __init__(self, options: Temporal | PatchOptions, dim: int, frames: int) -> None:
        super().__init__()
        self.residual = options.residual
        self.positions = nn.Embedding(frames, dim)
        layers = options.layers
        blocks = [Block(dim, options.heads, options.norm_eps) for _ in range(layers)]
        self.blocks = nn.ModuleList(blocks)
        nn.init.normal_(self.positions.weight, std=0.01)
        for block in blocks:
            nn.init.normal_(block.attn.in_proj_weight, std=dim**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=(2 * dim * layers) ** -0.5)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * dim) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=(2 * dim * layers) ** -0.5)

    def forward(
        self,
        frames: Float[Tensor, "videos frames dim"],
        mask: Bool[Tensor, "videos frames"],
        patches: Float[Tensor, "videos frames patches dim"] | None = None,
    ) -> Float[Tensor, "videos frames dim"]:
        """Frames that have attended to each other, but never to a padded frame.

        If a video has no real frame, all of its frames are attended to.

        Raises:
            ValueError: more frames than the position table has.
        """
        return self.encode(frames, mask)

    def encode(
        self, tokens: Float[Tensor, "videos tokens dim"], mask: Bool[Tensor, "videos tokens"]
    ) -> Float[Tensor, "videos tokens dim"]:
        """The transformer over any tokens."""
        if tokens.shape[1] > len(self.positions.weight):
            raise ValueError(
                f"temporal: {tokens.shape[1]} tokens a video, but positions for {len(self.positions.weight)}"
            )
        mask = mask | ~mask.any(dim=1, keepdim=True)
        x = tokens + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        return x + tokens if self.residual else x

    def initialise_from(self, blocks: nn.ModuleList, positions: Float[Tensor, "words dim"]) -> None:
        """Initialise from a text tower's first blocks and position embeddings, as CLIP4Clip does.

        Raises:
            ValueError: the tower is narrower, shorter or shallower than this encoder.
        """
        start_from(blocks, positions, self.blocks, self.positions, "temporal.initialise_from_text")


@torch.no_grad()
def start_from(
    blocks: nn.ModuleList,
    positions: Float[Tensor, "words dim"],
    into: nn.ModuleList,
    table: nn.Embedding,
    field: str,
) -> None:
    """Copy a text tower's first blocks and position embeddings.

    Args:
        blocks: The text tower's blocks.
        positions: The text tower's position embeddings.
        into: Blocks to initialise.
        table: Position embeddings to initialise.
        field: The config field that requested this, for the error message.

    Raises:
        ValueError: the tower is narrower, shorter or shallower than the destination.
    """
    own = table.weight
    if positions.shape[1] != own.shape[1] or len(positions) < len(own) or len(blocks) < len(into):
        raise ValueError(
            f"{field}: the text tower ({len(blocks)} layers, {tuple(positions.shape)} positions) "
            f"cannot start {len(into)} layers with positions {tuple(own.shape)}; switch it off"
        )
    own.copy_(positions[: len(own)])
    for mine, theirs in zip(into, blocks, strict=False):
        mine.load_state_dict(theirs.state_dict(), strict=True)


class PatchTransformer(TemporalEncoder):
    """TS2-Net's transformer over each frame's feature and patches; only the frames are kept.

    Args:
        options: Layers, heads, patches per frame.
        dim: Width of the frames.
        frames: Frames of a video.
    """

    def __init__(self, options: PatchOptions, dim: int, frames: int) -> None:
        super().__init__(options, dim, frames * (1 + options.patches))
        self.as_published = options.as_published

    def forward(
        self,
        frames: Float[Tensor, "videos frames dim"],
        mask: Bool[Tensor, "videos frames"],
        patches: Float[Tensor, "videos frames patches dim"] | None = None,
    ) -> Float[Tensor, "videos frames dim"]:
        """Frames that have attended to all frames and patches.

        Raises:
            ValueError: there are no patches, or too many.
        """
        if patches is None:
            raise ValueError("temporal: PatchTransformer needs the patches of a token operation")
        tokens = torch.cat([frames[:, :, None], patches], dim=2)
        each = tokens.shape[2]
        # As published, the mask is repeated end to end instead of entry by entry.
        whole = self.as_published
        mask = mask.repeat(1, each) if whole else mask.repeat_interleave(each, dim=1)
        return self.encode(tokens.flatten(1, 2), mask)[:, ::each]
