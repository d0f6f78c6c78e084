"""What an index of videos is made with: its windows, and how it keeps them."""

from dataclasses import dataclass
from typing import Literal

LENGTH, HOP = 30.0, 15.0


@dataclass(frozen=True)
class Windowing:
    """Windows of ``length`` seconds, one every ``hop`` seconds.

    A moment of m seconds is completely inside some window if m <= length - hop. The default length
    is that of the longest clips that these models are trained on (10 to 32 s in MSR-VTT, 30 s in
    DiDeMo). Frames are sampled at up to one per second, so a longer window would see less of each
    moment. With half the length as hop, one window contains every moment of 15 s and two windows
    contain every instant, for twice the records of windows that do not overlap.

    Raises:
        ValueError: a length that is not above 0, or a hop that is not in (0, length].
    """

    length: float | int = LENGTH
    hop: float | int = HOP

    def __post_init__(self) -> None:
        if not 0 < self.length < float("inf"):
            raise ValueError(f"window is a length in seconds above 0; got {self.length}")
        if not 0 < self.hop <= self.length:
            raise ValueError(
                f"hop ({self.hop} s) must be above 0 and at most window ({self.length} s): "
                "what lies between two windows would never be found"
            )

    def cut(self, duration: float | int) -> tuple[tuple[float, float], ...]:
        """Start and end of each window, in seconds from the first frame.

        A video of up to ``length`` is one window. The last window of a longer one ends with the
        video, so that no window is short.
        """
        if duration <= self.length:
            return ((0.0, duration),)
        last = duration - self.length
        count = 1
        # The margin prevents rounding from adding a window almost equal to the last one.
        while count * self.hop < last - 1e-6:
            count += 1
        starts = [step * self.hop for step in range(count)]
        return (*((start, start + self.length) for start in starts), (last, duration))


@dataclass(frozen=True)
class IndexSettings:
    """Settings, in addition to the model, that decide the rows of an index; fixed for an index."""

    window: float | int = Windowing.length
    """Length of a window in seconds; shorter videos are one window."""
    hop: float | int = Windowing.hop
    """Seconds from the start of a window to the start of the next."""
    precision: Literal["float16", "float32"] = "float16"
    """Precision of records and vectors."""
    vectors: int = 3
    """Most vectors per window for finding candidates."""
    strip_frames: int = 6
    """Most pictures in a window's thumbnail strip."""
    strip_height: int = 144
    """Height of the strip in pixels."""

    @property
    def windowing(self) -> Windowing:
        """How videos are cut into windows."""
        return Windowing(self.window, self.hop)


Pooling = Literal["mean", "mean-max"]
"""How bare towers score: the sentence with the mean of the frames, or each word with its best frame."""
