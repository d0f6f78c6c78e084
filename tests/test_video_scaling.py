"""Squares by the ways that image encoders want them."""

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torchvision.transforms.v2 import functional as F

from tcmgc.video.pixels import square


def smooth(height: int, width: int) -> np.ndarray:
    """A picture that scaling changes little: waves over the whole of it."""
    y, x = np.mgrid[0:height, 0:width] / (height, width)[0]
    waves = [np.sin(3 * x + shift) * np.cos(2 * y) for shift in (0, 1, 2)]
    return np.clip(127 + 100 * np.stack(waves, axis=-1), 0, 255).astype(np.uint8)


def test_both_sides_are_scaled_or_the_centre_is_cut_out() -> None:
    picture = smooth(64, 160)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    whole = torch.from_numpy(picture).permute(2, 0, 1)
    for kernel in ("bicubic", "bilinear"):
        squashed = square(frame, 48, VideoReformatter(), "squash", kernel)
        expected = F.resize(whole, [48, 48], interpolation=F.InterpolationMode(kernel))
        assert np.abs(squashed.astype(int) - expected.numpy()).max() <= 3
        cut = square(frame, 48, VideoReformatter(), "shortest", kernel)
        expected = F.center_crop(
            F.resize(whole, [48, 120], interpolation=F.InterpolationMode(kernel)), [48, 48]
        )
        assert np.abs(cut.astype(int) - expected.numpy()).max() <= 3
        assert np.abs(cut.astype(int) - squashed).max() > 30


def test_the_kernels_differ_at_edges() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, 32:] = 200
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    sharp = square(frame, 96, VideoReformatter(), "shortest", "bicubic")
    soft = square(frame, 96, VideoReformatter(), "shortest", "bilinear")
    assert sharp.max() > 200  # a bicubic kernel overshoots
    assert soft.max() <= 200
