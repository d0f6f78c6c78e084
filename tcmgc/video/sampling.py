"""The instants at which a video is sampled: pure arithmetic, no file is opened here."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64, Int64

Number = float | int
Sampler = Literal["uniform", "middle", "random"]


def sample_instants(
    duration: Number,
    *,
    max_frames: int = 12,
    fps: Number = 1.0,
    start: Number = 0.0,
    end: Number | None = None,
    sampler: Sampler = "uniform",
    seed: int | Sequence[int] = 0,
) -> Float64[np.ndarray, " instants"]:
    """Instants within [start, min(end, duration)), in seconds from the first frame, ascending.

    * ``uniform`` (CLIP4Clip): the instants k / fps, k = 0, 1, 2, ..., in the window;
      if there are more than ``max_frames``, those at linspace(0, count - 1, max_frames) truncated
      to integers. A window between two of them is sampled at its beginning.
    * ``middle`` (X-Pool): the middles of ``max_frames`` equal segments of the window.
    * ``random``: one uniformly drawn instant in each of these segments, decided by ``seed``.

    Raises:
        ValueError: a setting out of range, or a window that begins at or after ``duration``.
    """
    check_sampling(max_frames=max_frames, fps=fps, start=start, end=end, sampler=sampler)
    if not start < duration:
        raise ValueError(f"the clip begins at {start:g} s, but the video lasts {duration:g} s")
    stop = duration if end is None else min(end, duration)
    if sampler == "uniform":
        first, last = _ceil_grid(start, fps), _ceil_grid(stop, fps)
        if first == last:
            return np.array([start], dtype=np.float64)
        count = last - first
        if count > max_frames:
            return (first + np.linspace(0, count - 1, max_frames, dtype=np.int64)) / fps
        return np.arange(first, last) / fps
    offsets = np.full(max_frames, 0.5)
    if sampler == "random":
        offsets = np.random.default_rng(seed).random(max_frames)
    return start + (np.arange(max_frames) + offsets) * ((stop - start) / max_frames)


def on_screen(
    times: Float64[np.ndarray, " frames"], instants: Float64[np.ndarray, " instants"]
) -> Int64[np.ndarray, " instants"]:
    """Index of the frame on screen at each instant: the last one whose time is not later.

    ``times`` ascend from 0.
    """
    return np.searchsorted(times, instants, side="right").astype(np.int64) - 1


def check_sampling(
    *, max_frames: int, fps: Number, start: Number, end: Number | None, sampler: str
) -> None:
    """Refuse settings that select no instants.

    Raises:
        ValueError: names the setting, the expected values and the given one.
    """
    if sampler not in get_args(Sampler):
        known = ", ".join(get_args(Sampler))
        raise ValueError(f"sampler is {sampler!r}; known are {known}")
    if max_frames < 1:
        raise ValueError(f"max_frames must be at least 1; got {max_frames}")
    if not 0 < fps < np.inf:
        raise ValueError(f"fps must be above 0 frames a second; got {fps}")
    if not 0 <= start < np.inf:
        raise ValueError(f"start is in seconds from the first frame, 0 or more; got {start}")
    if end is not None and not end > start:
        raise ValueError(f"end ({end} s) must come after start ({start} s)")


def _ceil_grid(time: Number, fps: Number) -> int:
    """Smallest k with k / fps >= time, in the same floating-point arithmetic as the instants."""
    step = int(np.ceil(time * fps))
    while step > 0 and (step - 1) / fps >= time:
        step -= 1
    while step / fps < time:
        step += 1
    return step
