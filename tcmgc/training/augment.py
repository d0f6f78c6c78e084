"""Training augmentation of whole videos, on the device that holds them. Off by default: the paper has none."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

Pixels = UInt8[Tensor, "videos frames 3 size size"] | Float[Tensor, "videos frames 3 size size"]


def random_resized_crop_flip(
    pixels: Pixels,
    generator: torch.Generator,
    *,
    scale: tuple[float, float] = (0.5, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    share: tuple[int, slice] | None = None,
) -> Pixels:
    """One random crop and one random flip per video, the same for all its frames.

    X-Pool's RandomResizedCrop and RandomHorizontalFlip. The crop's share of the area is uniform in
    ``scale``, its width over height log-uniform in ``ratio``, narrowed if it would not fit;
    its position is uniform. It is scaled back to the full square, bicubic. Padding frames stay zero.

    Args:
        pixels: videos, uint8 or float, on any device.
        generator: source of all random numbers, on any device.
        scale: shares of the area.
        ratio: width over height.
        share: size of the batch that ``pixels`` are a part of, and which part: random numbers are
            drawn for the whole batch, so they do not depend on the number of workers. None: all of it.

    Returns:
        The same shape and type; uint8 is rounded and clamped.
    """
    total, mine = share or (len(pixels), slice(None))
    boxes = crop_boxes(total, generator, scale, ratio)[mine]
    flips = torch.rand(total, generator=generator, device=generator.device)[mine] < 0.5
    return crop_resize(pixels, boxes.to(pixels.device), flips.to(pixels.device))


def crop_boxes(
    videos: int,
    generator: torch.Generator,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Float[Tensor, "videos 4"]:
    """Left, top, width and height of random crops, as shares of the square's side."""
    draws = torch.rand(videos, 4, generator=generator, device=generator.device)
    area = scale[0] + (scale[1] - scale[0]) * draws[:, 0]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    # Width and height are sqrt(area * aspect) and sqrt(area / aspect); neither may pass 1.
    aspect = torch.exp(low + (high - low) * draws[:, 1]).clamp(area, 1 / area)
    width, height = (area * aspect).sqrt(), (area / aspect).sqrt()
    left, top = (1 - width) * draws[:, 2], (1 - height) * draws[:, 3]
    return torch.stack([left, top, width, height], dim=1)


def crop_resize(
    pixels: Pixels, boxes: Float[Tensor, "videos 4"], flips: Bool[Tensor, " videos"]
) -> Pixels:
    """Each video's box, scaled to the full square and mirrored if ``flips`` is set."""
    videos, frames, channels, size, _ = pixels.shape
    left, top, width, height = boxes.unbind(1)
    zero = torch.zeros_like(left)
    across = torch.where(flips, -width, width)
    # Normalised coordinates run from -1 to 1 over the square.
    to_source = torch.stack(
        [across, zero, 2 * left + width - 1, zero, height, 2 * top + height - 1], dim=1
    ).view(videos, 2, 3)
    grid = F.affine_grid(to_source, [videos, 1, size, size], align_corners=False)
    stacked = pixels.reshape(videos, frames * channels, size, size)
    real = stacked if pixels.is_floating_point() else stacked.float()
    cropped = F.grid_sample(
        real, grid.to(real.dtype), mode="bicubic", padding_mode="reflection", align_corners=False
    )
    if not pixels.is_floating_point():
        cropped = cropped.round().clamp(0, 255).to(pixels.dtype)
    return cropped.view_as(pixels)
