"""Interface of token operations, and the loop over the tower's blocks that applies them.

The blocks, embeddings and norms are open_clip's. Only the loop over the blocks is ours, because
an operation changes tokens between them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tcmgc.towers import patches

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Rows:
    """Which frame of which video each row of a batch of frames is.

    Rows are in the order of videos, and in a video in the order of frames.
    """

    mask: Bool[Tensor, "videos frames"]
    """True for frames that have a row."""

    @cached_property
    def video(self) -> Int[Tensor, " rows"]:
        """The video of each row."""
        return self.mask.nonzero()[:, 0]

    @cached_property
    def before(self) -> tuple[Int[Tensor, " rows"], Bool[Tensor, " rows"]]:
        """The row of the previous frame, and whether there is one; otherwise the row itself."""
        return self._neighbour(-1)

    @cached_property
    def after(self) -> tuple[Int[Tensor, " rows"], Bool[Tensor, " rows"]]:
        """The row of the next frame; see :attr:`before`."""
        return self._neighbour(1)

    def _neighbour(self, step: int) -> tuple[Tensor, Tensor]:
        own = torch.arange(len(self.video), device=self.mask.device)
        other = (own + step).clamp(0, max(len(own) - 1, 0))
        there = (self.video[other] == self.video) & (other != own)
        return torch.where(there, other, own), there

    def spread(self, rows: Float[Tensor, "rows ..."]) -> Float[Tensor, "videos frames ..."]:
        """A tensor of rows arranged by video and frame; zero for frames without a row."""
        out = rows.new_zeros(*self.mask.shape, *rows.shape[1:])
        out[self.mask] = rows
        return out


class TokenOperation(nn.Module):
    """Changes tokens inside the visual tower; the base class changes nothing.

    Blocks are counted from 0.
    """

    together = False
    """Whether padded frames are encoded with the others and take part, as zeros after normalising."""
    inside_blocks = True
    """Whether it changes tokens inside the encoder; otherwise it only uses the encoder's patches."""
    segment = 1
    """Number of frames that are joined to one."""
    draws = False
    """Whether a training step draws random numbers and needs ``seeds``."""

    def embed(
        self, visual: Any, frames: Float[Tensor, "rows 3 size size"], rows: Rows
    ) -> Float[Tensor, "rows tokens width"]:
        """Turn normalised frames into the tokens that enter the first block, the class token first."""
        return visual._embeds(frames)

    def before(
        self,
        block: int,
        tokens: Float[Tensor, "rows tokens width"],
        rows: Rows,
        seeds: Int[Tensor, " videos"] | None,
    ) -> tuple[Float[Tensor, "rows_left tokens_left width"], Rows]:
        """The tokens that enter a block."""
        return tokens, rows

    def inside(self, block: int, rows: Rows) -> tuple[Change | None, Change | None]:
        """Changes to the normalised input of a block's attention, and to the tokens after it."""
        return None, None

    def patches(
        self,
        tokens: Float[Tensor, "rows tokens dim"],
        rows: Rows,
        seeds: Int[Tensor, " videos"] | None,
    ) -> Float[Tensor, "rows patches dim"] | None:
        """Patch features from all tokens in the joint space, the frame's feature first."""
        return None

    def frame_mask(self, mask: Bool[Tensor, "videos frames"]) -> Bool[Tensor, "videos frames_left"]:
        """Which of the tower's output frames are real."""
        return mask

    @staticmethod
    def seeds_of(seeds: Tensor | None) -> Tensor:
        """The seeds.

        Raises:
            ValueError: there are none.
        """
        if seeds is None:
            raise ValueError(
                "a token operation that draws in training needs a seed for every video"
            )
        return seeds


def encode(
    visual: Any,
    operation: TokenOperation,
    frames: Float[Tensor, "rows 3 size size"],
    rows: Rows,
    seeds: Int[Tensor, " videos"] | None,
) -> tuple[Tensor, Tensor | None, Rows]:
    """Frame features (rows, dim), patches (rows, patches, dim) or None, and the remaining rows.

    Args:
        visual: An open_clip image encoder; a ``VisionTransformer`` if the operation works inside its
            blocks (see :func:`check`).
        operation: The operation on its tokens.
        frames: Normalised pixels.
        rows: Which frames they are.
        seeds: In training, seeds of random numbers.
    """
    if not operation.inside_blocks:
        pooled, others = patches.of_any(visual, frames)
        return pooled, operation.patches(patches.joint(pooled, others), rows, seeds), rows
    tokens = operation.embed(visual, frames, rows)
    for number, block in enumerate(visual.transformer.resblocks):
        tokens, rows = operation.before(number, tokens, rows, seeds)
        changes = operation.inside(number, rows)
        if visual.transformer.grad_checkpointing and torch.is_grad_enabled():
            tokens = checkpoint(_through, block, tokens, *changes, use_reentrant=False)
        else:
            tokens = _through(block, tokens, *changes)
    pooled, others = patches.of_vision_transformer(visual, tokens)
    return pooled, operation.patches(patches.joint(pooled, others), rows, seeds), rows


def _through(block: Any, x: Tensor, normed: Change | None, middle: Change | None) -> Tensor:
    """Run a block of open_clip, with changes to the attention's input and to the tokens after it."""
    if normed is None and middle is None:
        return block(x)
    inner = block.ln_1(x) if normed is None else normed(block.ln_1(x))
    if hasattr(block, "attention"):
        attended = block.attention(inner)
    else:
        attended = block.ln_attn(block.attn(inner))
    x = x + block.ls_1(attended)
    if middle is not None:
        x = middle(x)
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def check(visual: nn.Module, what: str) -> None:
    """Refuse towers without the tokens that an operation needs.

    Raises:
        ValueError: the tower is not open_clip's own vision transformer.
    """
    import open_clip

    if not isinstance(visual, open_clip.transformer.VisionTransformer):
        raise ValueError(
            f"tokens: {what} works inside the blocks of open_clip's own vision transformer, and this tower is "
            f"a {type(visual).__name__}; choose one such as ViT-B-32-quickgelu, or a method that leaves tokens alone"
        )


def block_numbers(blocks: tuple[int, ...], visual: Any, field: str) -> tuple[int, ...]:
    """Block numbers counted from 0; negative ones count from the end as in Python.

    Raises:
        ValueError: the tower has no such block.
    """
    layers = len(visual.transformer.resblocks)
    wrong = [block for block in blocks if not -layers <= block < layers]
    if wrong:
        raise ValueError(
            f"{field}: the tower has {layers} blocks, 0 to {layers - 1}, and no block {wrong[0]}"
        )
    return tuple(block % layers for block in blocks)
