"""From the time stamps of pictures to ascending times: pure arithmetic, no file is opened here.

Stamps of real files repeat, step back, and restart where files were joined. The rule here is
FFmpeg's: each picture has its best-effort time, and the last picture whose time is not later than t
is on screen at t. Two corrections are added, for cases in which that rule would show one picture
instead of many: a clock that restarts continues where the previous one ended, and a few stamps that
step back by more than a second are set to the time of the picture before them.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Float64

FEW = 3
"""This many stamps in a row may be wrong; more that agree with each other are a new clock."""
_LOOK_BACK = 8
_LOOK_AHEAD = 250
LITERAL_SECONDS = 2.0
"""Single stamps may step back by this much and still count as correct."""
_AROUND_BREAK = 6
"""Irregular gaps allowed near each restart of a clock with a constant rate."""


class BestEffort:
    """FFmpeg's estimate of each decoded picture's time, called once per picture in output order.

    The presentation stamp counts until presentation stamps have failed to ascend more often than
    decoding stamps; from then on the decoding stamp counts (FFmpeg, libavcodec/decode.c).
    """

    def __init__(self) -> None:
        self._pts = _Ascent()
        self._dts = _Ascent()

    def __call__(self, pts: int | None, dts: int | None) -> int | None:
        """The time in ticks; None if the picture has no stamp."""
        if dts is not None:
            self._dts.see(dts)
        elif pts is not None:
            self._dts.last = pts
        if pts is not None:
            self._pts.see(pts)
        elif dts is not None:
            self._pts.last = dts
        if pts is not None and (self._pts.faults <= self._dts.faults or dts is None):
            return pts
        return dts


class _Ascent:
    """Counts how often a sequence failed to ascend."""

    def __init__(self) -> None:
        self.last: int | None = None
        self.faults = 0

    def see(self, stamp: int) -> None:
        self.faults += self.last is not None and stamp <= self.last
        self.last = stamp


def continuous(
    stamps: Sequence[int | None], base: Fraction, rate: Fraction | None
) -> Float64[np.ndarray, " pictures"]:
    """Times in ticks of ``base`` seconds, ascending (not strictly) from 0, first picture at 0.

    Args:
        stamps: in output order; None for a picture without one; at least one picture has a stamp.
        base: seconds per tick.
        rate: pictures per second, for those without a stamp and where a clock restarts.
    """
    ticks = _filled(stamps, base, rate)
    if (np.diff(ticks) > 0).all():
        return ticks - ticks[0]
    ticks = _joined(ticks, base, rate)
    return np.maximum(np.minimum.accumulate(ticks[::-1])[::-1] - ticks[0], 0.0)


def restarts(stamps: Sequence[int], base: Fraction) -> list[int]:
    """Restarts of the clock: indices into ``stamps``, ascending."""
    return _breaks(np.asarray(stamps, dtype=np.float64), base)[0]


def step_of(ticks: np.ndarray, base: Fraction, rate: Fraction | None) -> float:
    """Ticks between pictures: those of the rate if stamps agree with it, else their median."""
    nominal = float(1 / (rate * base)) if rate else 0.0
    gaps = np.diff(ticks)
    gaps = gaps[gaps > 0]
    if not len(gaps):
        return nominal or 1.0
    median = float(np.median(gaps))
    return nominal if nominal and abs(nominal - median) <= 1 else median


def _filled(
    stamps: Sequence[int | None], base: Fraction, rate: Fraction | None
) -> Float64[np.ndarray, " pictures"]:
    """Place pictures without a stamp evenly between their neighbours, one step apart at the ends."""
    ticks = np.array([np.nan if stamp is None else stamp for stamp in stamps], dtype=np.float64)
    known = np.flatnonzero(~np.isnan(ticks))
    if len(known) == len(ticks):
        return ticks
    first, last = known[0], known[-1]
    step = float(1 / (rate * base)) if rate else step_of(ticks[known], base, None)
    places = np.arange(len(ticks))
    filled = np.interp(places, known, ticks[known])
    filled[:first] = ticks[first] - step * (first - places[:first])
    filled[last + 1 :] = ticks[last] + step * (places[last + 1 :] - last)
    return filled


def _joined(
    ticks: Float64[np.ndarray, " pictures"], base: Fraction, rate: Fraction | None
) -> Float64[np.ndarray, " pictures"]:
    """Concatenate the parts of a broken clock, without stamps that are far off."""
    begins, wrong = _breaks(ticks, base)
    step = step_of(ticks, base, rate)
    irregular = int((np.abs(np.diff(ticks) - step) > 1 + 1e-6).sum())
    if begins and irregular <= _AROUND_BREAK * len(begins):
        return step * np.arange(len(ticks))  # stamps next to a break are often estimates
    out = ticks.copy()
    for place in wrong:
        out[place] = out[place - 1]
    bounds = [0, *begins, len(ticks)]
    for before, begin, end in zip(bounds, bounds[1:], bounds[2:], strict=False):
        step = step_of(out[before:begin], base, rate)
        out[begin:end] += out[begin - 1] + step - out[begin]
    return out


def _breaks(ticks: Float64[np.ndarray, " pictures"], base: Fraction) -> tuple[list[int], list[int]]:
    """Where the clock restarts, and which stamps are far off."""
    begins: list[int] = []
    wrong: list[int] = []
    start, skip = 0, 0
    for place in (np.flatnonzero(np.diff(ticks) < 0) + 1).tolist():
        recent = np.sort(ticks[max(start, place - _LOOK_BACK) : place])
        if place < skip or (recent > ticks[place]).sum() <= FEW:
            continue  # a stamp or two ahead of time: superseded by those that follow
        level, ahead = recent[-1 - FEW], ticks[place : place + _LOOK_AHEAD]
        above = np.flatnonzero(ahead >= level)
        back = int(above[0]) if len(above) else len(ahead)
        if back > FEW and not (
            len(above) and ahead[back] - ahead[back - 1] > (level - ahead[0]) / 2
        ):
            begins.append(place)
            start = place
        elif float((recent[-1] - ahead[0]) * base) > LITERAL_SECONDS:
            wrong += range(place, place + back)
            skip = place + back
    return begins, wrong
