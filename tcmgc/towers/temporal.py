"""Frame encoders: what happens between CLIP's frames and the heads (Eq. 1)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tcmgc.config import Temporal
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
    """Pre-norm transformer block with a mask over keys; parameter names are CLIP's."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"temporal.heads: {heads} heads do not divide the width {dim}")
        self.heads = heads
        self.ln_1 = nn.LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim)

    def forward(
        self, x: Float[Tensor, "videos frames dim"], mask: Bool[Tensor, "videos frames"]
    ) -> Float[Tensor, "videos frames dim"]:
        """Attention over real frames and the feed-forward layer, each with its residual."""
        x = x + self._attend(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        videos, frames, dim = x.shape
        projected = F.linear(x, self.attn.in_proj_weight, self.attn.in_proj_bias)
        query, key, value = projected.view(videos, frames, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        return self.attn.out_proj(out.transpose(1, 2).reshape(videos, frames, dim))


class TemporalEncoder(nn.Module):
    """Transformer over frames with a table of positions: Transformer-Enc(v + P).

    Args:
        options: Layers (the paper has 3, its released code 4), attention heads, residual.
        dim: Width of the frames.
        frames: Rows of the position table.
    """

    def __init__(self, options: Temporal, dim: int, frames: int) -> None:
        super().__init__()
        layers, heads = options.layers, options.heads
        self.residual = options.residual
        self.positions = nn.Embedding(frames, dim)
        blocks = [Block(dim, heads) for _ in range(layers)]
        self.blocks = nn.ModuleList(blocks)
        nn.init.normal_(self.positions.weight, std=0.01)
        for block in blocks:
            nn.init.normal_(block.attn.in_proj_weight, std=dim**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=(2 * dim * layers) ** -0.5)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * dim) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=(2 * dim * layers) ** -0.5)

    def forward(
        self, frames: Float[Tensor, "videos frames dim"], mask: Bool[Tensor, "videos frames"]
    ) -> Float[Tensor, "videos frames dim"]:
        """Frames that have seen each other; a padded frame is never looked at."""
        x = frames + self.positions.weight[: frames.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        return x + frames if self.residual else x

    @torch.no_grad()
    def initialise_from(self, blocks: nn.ModuleList, positions: Float[Tensor, "words dim"]) -> None:
        """Start from a text tower's first blocks and positions, as CLIP4Clip does.

        Raises:
            ValueError: the tower is narrower, shorter or shallower than this encoder.
        """
        own = self.positions.weight
        if (
            positions.shape[1] != own.shape[1]
            or len(positions) < len(own)
            or len(blocks) < len(self.blocks)
        ):
            raise ValueError(
                f"temporal.initialise_from_text: the text tower ({len(blocks)} layers, {tuple(positions.shape)} positions) "
                f"cannot start {len(self.blocks)} layers with positions {tuple(own.shape)}; switch it off"
            )
        own.copy_(positions[: len(own)])
        for mine, theirs in zip(self.blocks, blocks, strict=False):
            mine.load_state_dict(theirs.state_dict(), strict=True)
