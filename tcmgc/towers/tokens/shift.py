"""Shifts over time: some tokens or channels are taken from a neighbouring frame."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tcmgc.config.tokens import ChannelShift as Options
from tcmgc.towers.tokens.operation import Change, Rows, TokenOperation, block_numbers, check


def token_shift(
    tokens: Float[Tensor, "rows tokens width"], rows: Rows
) -> Float[Tensor, "rows tokens width"]:
    """TS2-Net's shift of complete patch tokens between neighbouring frames.

    With n tokens and a fold of n // 7, tokens 1, 1 + fold, 1 + 2 fold, ... come from the previous frame,
    tokens 4, 4 + fold, ... from the next one. The class token stays; so do tokens without a
    neighbour. (With a fold of 3 the two overlap, and the next frame counts, if there is one.)

    Raises:
        ValueError: fewer than 7 tokens.
    """
    count = tokens.shape[1]
    if count < 7:
        raise ValueError(
            f"tokens.blocks: a shift needs at least 6 patches a frame; got {count - 1}"
        )
    fold = count // 7
    source = torch.arange(len(tokens), device=tokens.device)[:, None].repeat(1, count)
    for first, (place, there) in ((1, rows.before), (4, rows.after)):
        source[:, first::fold] = torch.where(there[:, None], place[:, None], source[:, first::fold])
    return tokens[source, torch.arange(count, device=tokens.device)]


def channel_shift(
    tokens: Float[Tensor, "rows tokens width"], rows: Rows, of: slice
) -> Float[Tensor, "rows tokens width"]:
    """CenterCLIP's shift of an eighth of the channels each way.

    The first eighth comes from the next frame, the second from the previous one; zero if there is
    no such frame.

    Args:
        tokens: The class token first.
        rows: Which frames they are.
        of: The tokens that are shifted.
    """
    fold = tokens.shape[2] // 8
    moved = tokens[:, of]
    parts = [
        moved[place, :, channels] * there[:, None, None]
        for (place, there), channels in (
            (rows.after, slice(0, fold)),
            (rows.before, slice(fold, 2 * fold)),
        )
    ]
    out = tokens.clone()
    out[:, of, : 2 * fold] = torch.cat(parts, dim=2)
    return out


class ChannelShift(TokenOperation):
    """CenterCLIP's ``temporal_shift`` (patches) and ``token_shift`` (class token).

    Args:
        options: Which tokens, and before which blocks.
        visual: The tower's image encoder.
        frames: Frames of a video.
        dim: Width of the joint space.
    """

    def __init__(self, options: Options, visual: Any, frames: int, dim: int) -> None:
        super().__init__()
        check(visual, "a shift of channels")
        self.blocks = block_numbers(options.blocks, visual, "tokens.blocks")
        self.together = options.as_published
        self.of = slice(1, None) if options.of == "patches" else slice(0, 1)

    def before(
        self,
        block: int,
        tokens: Float[Tensor, "rows tokens width"],
        rows: Rows,
        seeds: Int[Tensor, " videos"] | None,
    ) -> tuple[Float[Tensor, "rows tokens width"], Rows]:
        """Shift the tokens that enter the block."""
        if block in self.blocks:
            tokens = channel_shift(tokens, rows, self.of)
        return tokens, rows

    def inside(self, block: int, rows: Rows) -> tuple[Change | None, Change | None]:
        """Shift the class token again, between attention and feed-forward layer."""
        if block not in self.blocks or self.of.start:
            return None, None
        return None, lambda tokens: channel_shift(tokens, rows, self.of)
