"""The visual tower: an open_clip image encoder over the frames of videos."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from tcmgc.towers.tokens.operation import Rows, TokenOperation, encode

Pixels = UInt8[Tensor, "videos frames 3 size size"] | Float[Tensor, "videos frames 3 size size"]


class VisualTower(nn.Module):
    """Frames' pixels to features in the joint space.

    Args:
        clip: An open_clip model.
        operation: The operation on tokens inside; None runs the image encoder unchanged.
        mean: Of red, green and blue, in [0, 1].
        std: Their standard deviations.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        clip: Any,
        operation: TokenOperation | None = None,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.visual = clip.visual
        self.operation = operation
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)

    def train(self, mode: bool = True) -> "VisualTower":
        """Set the mode of the token operation; the encoder stays in evaluation mode.

        Batch normalisation thus uses its stored statistics, and features depend neither on other
        frames of a batch nor on workers, chunks or pieces. There is no dropout, which would
        use PyTorch's generator.
        """
        super().train(mode)
        self.visual.eval()
        return self

    def forward(
        self,
        pixels: Pixels,
        frame_mask: Bool[Tensor, "videos frames"],
        *,
        encode_padding: bool = False,
        seeds: Int[Tensor, " videos"] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Frame features (videos, frames, dim), the mask of real ones, and patches of each frame or None.

        Features of padded frames are zero, or with ``encode_padding`` those of a blank frame (zeros
        after normalising). Padded frames are always encoded if the operation lets them take part.

        Args:
            pixels: Decoded frames, which are normalised here; floating-point ones are
                already normalised, and their content in padded frames is encoded unchanged.
            frame_mask: True for real frames.
            encode_padding: Encode padded frames, too, for systems in which they take part.
            seeds: In training, one seed per video for operations that draw random numbers.
        """
        together = self.operation is not None and self.operation.together
        everything = together or (encode_padding and pixels.is_floating_point())
        rows = Rows(torch.ones_like(frame_mask) if everything else frame_mask)
        frames = self._normalised(pixels[rows.mask])
        if everything and not pixels.is_floating_point():
            frames = frames * frame_mask.view(-1, 1, 1, 1)
        features, patches, left = self._encode(frames, rows, seeds)
        mask = frame_mask if self.operation is None else self.operation.frame_mask(frame_mask)
        blank = None
        if encode_padding and not everything and not bool(frame_mask.all()):
            blank = self._blank(frames)
        return (
            _filled(left, features, None if blank is None else blank[0]),
            mask,
            None
            if patches is None
            else _filled(left, patches, None if blank is None else blank[1]),
        )

    def _normalised(self, pixels: Tensor) -> Tensor:
        frames = pixels.to(self.mean.dtype)
        return frames if pixels.is_floating_point() else (frames - self.mean) / self.std

    def _encode(
        self, frames: Tensor, rows: Rows, seeds: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Rows]:
        if self.operation is None:
            return self.visual(frames), None, rows
        return encode(self.visual, self.operation, frames, rows, seeds)

    def _blank(self, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of a frame of zeros, alone in its video."""
        count = 1 if self.operation is None else self.operation.segment
        rows = Rows(torch.ones(1, count, dtype=torch.bool, device=frames.device))
        zeros = frames.new_zeros(count, *frames.shape[1:])
        seeds = torch.zeros(1, dtype=torch.int64, device=frames.device)
        features, patches, _ = self._encode(zeros, rows, seeds)
        return features, patches


def _filled(rows: Rows, features: Tensor, blank: Tensor | None) -> Tensor:
    """Features by video and frame; frames without a row are zero, or ``blank``."""
    out = features.new_zeros(*rows.mask.shape, *features.shape[1:])
    if blank is not None:
        out = out + blank
    places = rows.mask.view(*rows.mask.shape, *[1] * (features.dim() - 1))
    return out.masked_scatter(places, features)
