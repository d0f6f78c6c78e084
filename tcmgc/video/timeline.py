"""When each frame of a video is on screen, from its packets without decoding them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from jaxtyping import Float64

from tcmgc.video import clock, transport
from tcmgc.video.entries import entry_test
from tcmgc.video.file import HELD_BYTES, Deadline, DecodeError, Source

_TRUSTED_CONTAINERS = ("mov", "matroska")
"""Demuxers whose packets have exactly the timestamps of their frames."""
_NEVER_REORDERED = frozenset({"vp8", "vp9", "av1", "mjpeg", "ffv1", "prores", "png", "gif"})
_MAX_DELAY = 16
"""Most frames by which H.264 and HEVC delay output."""
_BY_DECODING_TIME = frozenset({"avi"})
"""Containers that number their slots in decoding order: FFmpeg's presentation time is an estimate,
and a picture is shown at the slot of the packet for which the decoder returns it."""


@dataclass(frozen=True)
class Timeline:
    """Seconds from the first frame."""

    times: Float64[np.ndarray, " frames"]
    """When each frame is first shown, ascending from 0; of frames at the same time, the last is seen."""
    duration: float
    """When the last one leaves it."""

    @classmethod
    def from_stamps(
        cls, stamps: Sequence[int | None], last: int, base: Fraction, rate: Fraction | None
    ) -> "Timeline":
        """From timestamps in output order (:func:`tcmgc.video.clock.continuous`).

        Args:
            stamps: in units of ``base`` seconds; None for a frame without one.
            last: duration of the last frame; if unknown (0), the average of the others.
            base: seconds per tick.
            rate: frames per second; used if no frame has a timestamp.

        Raises:
            ValueError: neither timestamps nor a frame rate.
        """
        if all(stamp is None for stamp in stamps):
            if rate is None:
                raise ValueError("neither timestamps nor a frame rate")
            return cls.from_count(len(stamps), rate)
        ticks = clock.continuous(stamps, base, rate)
        mean = ticks[-1] / (len(ticks) - 1) if len(ticks) > 1 else 0.0
        end = ticks[-1] + (last if last > 0 else mean or clock.step_of(ticks, base, rate))
        seconds = ticks * base.numerator / base.denominator
        return cls(seconds, float(end * base.numerator / base.denominator))

    @classmethod
    def from_count(cls, frames: int, rate: Fraction) -> "Timeline":
        """A timeline of frames at a constant rate."""
        steps = np.arange(frames + 1) * rate.denominator / rate.numerator
        return cls(steps[:-1], float(steps[-1]))


@dataclass
class Packets:
    """The required data of a video stream's packets, in decoding order."""

    base: Fraction
    """Seconds per tick."""
    rate: Fraction | None = None
    """Frames per second, from the header."""
    by_dts: bool = False
    """Whether pictures are shown at their packets' decoding times (:data:`_BY_DECODING_TIME`)."""
    pts: list[int | None] = field(default_factory=list)
    """Presentation times in ticks."""
    dts: list[int | None] = field(default_factory=list)
    """Decoding times in ticks."""
    durations: list[int] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    """False for packets hidden by an edit list."""
    entries: list[int] = field(default_factory=list)
    """Where decoding can begin: no later picture refers to an earlier one."""
    first_key: int = 0
    """The first packet marked as a key frame; a recording need not begin with one."""
    held: list[av.Packet] | None = field(default_factory=list)
    """The packets themselves, if they are small enough to keep."""
    order: list[int] | None = None
    """All packets by presentation time, if they correspond to frames one to one by timestamps;
    None if that is not certain."""

    def timeline(self) -> Timeline:
        """The expected timeline of the frames; an estimate if ``order`` is None.

        Raises:
            ValueError: neither timestamps nor a frame rate.
        """
        if self.order is not None:
            stamps = [self.pts[place] for place in self.order]
            last = self.durations[self.order[-1]]
            return Timeline.from_stamps(stamps, last, self.base, self.rate)
        shown = [place for place, is_shown in enumerate(self.shown) if is_shown]
        known = [stamp for place in shown if (stamp := self._stamp(place)) is not None]
        if len(known) < len(shown):
            known = []
        dts = [stamp for place in shown if (stamp := self.dts[place]) is not None]
        begins = clock.restarts(dts, self.base) if len(dts) == len(known) else []
        bounds = [0, *begins, len(known)]
        parts = [sorted(known[a:b]) for a, b in itertools.pairwise(bounds)]
        stamps = [stamp for part in parts for stamp in part] or [None] * len(shown)
        return Timeline.from_stamps(stamps, self.durations[shown[-1]], self.base, self.rate)

    def is_regular(self) -> bool:
        """Whether shown pictures are on a regular grid, so that later stamps are unlikely to step back."""
        stamps = [stamp for stamp, shown in zip(self.pts, self.shown, strict=True) if shown]
        if None in stamps:
            return False
        gaps = np.diff(np.sort(np.array(stamps, dtype=np.int64)))
        return bool((gaps > 0).all()) and _on_a_grid(gaps)

    def hide_before(self, first: int | None) -> float:
        """Mark packets before the first picture that a decoder returns as not shown.

        These are the first pictures of a cut, which refer to data before it. Returns the seconds from
        the earliest of them to that picture; 0 if there are none.
        """
        if first is None or first not in self.pts:
            return 0.0
        earliest = first
        for place in range(min(self.pts.index(first) + _MAX_DELAY + 1, len(self.pts))):
            stamp = self.pts[place]
            if self.shown[place] and stamp is not None and stamp < first:
                self.shown[place], self.order = False, None
                earliest = min(earliest, stamp)
        return float((first - earliest) * self.base)

    def _stamp(self, place: int) -> int | None:
        pts, dts = self.pts[place], self.dts[place]
        return dts if self.by_dts or pts is None else pts


def index_timeline(container: InputContainer, stream: VideoStream) -> Timeline | None:
    """The timeline from an MP4 or MOV file's index; None if the index is not sufficient.

    The index has decoding times, so single frames may be a little earlier than shown. It
    does not contain a single frame's duration, nor everything that edit lists hide.
    """
    entries = stream.index_entries
    if not container.format.name.startswith("mov") or not 1 < stream.frames == len(entries):
        return None
    if any(entry.is_discard or not entry.size for entry in entries):
        return None
    stamps = [entry.timestamp for entry in entries]
    return Timeline.from_stamps(stamps, 0, Fraction(stream.time_base or 0), rate_of(stream))


def rate_of(stream: VideoStream) -> Fraction | None:
    """Frames per second according to the headers."""
    return stream.average_rate or stream.guessed_rate


def counts_by_dts(container: InputContainer) -> bool:
    """Whether the container has decoding times only."""
    return container.format.name in _BY_DECODING_TIME


def scan(
    container: InputContainer,
    stream: VideoStream,
    source: Source,
    deadline: Deadline,
    until: float | int | None = None,
) -> Packets:
    """Read every packet of the stream once, up to those that are decoded after ``until`` seconds.

    Raises:
        DecodeError: no packet, a damaged one, or fewer than the container lists.
    """
    packets = Packets(
        Fraction(stream.time_base or 0), rate_of(stream), by_dts=counts_by_dts(container)
    )
    can_enter = entry_test(stream)
    listed = sum(entry.size > 0 for entry in stream.index_entries)
    held_bytes, first, beyond, margin = 0, None, 0, 0.0
    corrupt, keys = list[int](), set[int]()
    for packet in container.demux(stream):
        if not packet.size:
            continue
        deadline.check()
        place = len(packets.pts)
        if packet.is_corrupt:
            corrupt.append(place)
        if packet.is_keyframe:
            keys.add(place)
        if can_enter(packet):
            packets.entries.append(place)
        packets.pts.append(packet.pts)
        packets.dts.append(packet.dts)
        packets.durations.append(packet.duration or 0)
        packets.shown.append(not packet.is_discard)
        held_bytes += packet.size
        if held_bytes > HELD_BYTES:
            packets.held = None
        if packets.held is not None:
            packets.held.append(packet)
        if (
            until is not None
            and packet.pts is not None
            and packet.dts is not None
            and not packet.is_discard
        ):
            first = packet.pts if first is None else min(first, packet.pts)
            late = (min(packet.pts, packet.dts) - first) * packets.base - until > margin
            beyond = beyond + 1 if late else 0
            if beyond > clock.FEW and not margin and not packets.is_regular():
                beyond, margin = 0, clock.LITERAL_SECONDS
            elif beyond > clock.FEW:
                listed = 0  # all that follow in decoding order are shown even later
                break
    if not any(packets.shown):
        raise DecodeError(deadline.path, "no picture in its video stream")
    if container.format.name.startswith("mov") and len(packets.pts) < listed:
        raise DecodeError(
            deadline.path,
            f"cut short: {len(packets.pts)} of the {listed} pictures that its index lists",
        )
    packets.first_key = min(keys, default=0)
    # A key frame that is not the first may follow a lost one that FFmpeg did not report.
    if corrupt or (packets.first_key and container.format.name == "mpegts"):
        read = len(packets.pts)
        begins = all(place + 2 >= read or keys & {place + 1, place + 2} for place in corrupt)
        count = transport.splices(source, stream.id) if begins else None
        if count is None or (corrupt and not count):
            raise DecodeError(
                deadline.path, f"packet {(corrupt or [0])[0]} is damaged or cut short"
            )
    if container.format.name.startswith(_TRUSTED_CONTAINERS):
        codec = stream.codec_context.codec.canonical_name
        packets.order = _order(packets, codec, container.format.name.startswith("mov"))
    return packets


def _order(packets: Packets, codec: str, own_dts: bool) -> list[int] | None:
    """Packets by presentation time, unless something indicates that this is not the output order.

    ``own_dts``: decoding times are stored in the file, not derived from presentation times.
    """
    if None in packets.pts or not all(packets.shown) or packets.entries[:1] != [0]:
        return None
    pts = np.array(packets.pts, dtype=np.int64)
    order = np.argsort(pts, kind="stable")
    gaps = np.diff(pts[order])
    if order[0] != 0 or not (gaps > 0).all():
        return None
    reordered = not (np.diff(order) > 0).all()
    if reordered and codec in _NEVER_REORDERED:
        return None
    if reordered and not _on_a_grid(gaps):
        dts = np.array(packets.dts if own_dts and None not in packets.dts else [], dtype=np.int64)
        if not _is_delayed(dts, pts[order]):
            return None
    return order.tolist()


# Stamps alone do not determine the order in which a decoder returns B-frames, and one that steps
# back changes it. Two conditions exclude such stamps.


def _on_a_grid(gaps: np.ndarray) -> bool:
    """Whether all gaps are multiples of one gap, up to rounding to ticks."""
    steps = np.rint(gaps / np.median(gaps))
    if not (steps >= 1).all():
        return False
    return bool((np.abs(gaps - steps * (gaps.sum() / steps.sum())) <= 1 + 1e-6).all())


def _is_delayed(dts: np.ndarray, shown: np.ndarray) -> bool:
    """Whether decoding times are the presentation times in order, delayed by a few positions."""
    return any(
        bool((dts[delay:] == shown[: len(shown) - delay]).all())
        for delay in range(1, min(_MAX_DELAY + 1, len(dts)))
    )
