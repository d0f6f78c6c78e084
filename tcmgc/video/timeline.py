"""When each frame of a video is on screen, read off its packets without decoding them."""

import itertools
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from jaxtyping import Float64

from tcmgc.video.entries import entry_test
from tcmgc.video.file import HELD_BYTES, Deadline, DecodeError

_TRUSTED_CONTAINERS = ("mov", "matroska")
"""Demuxers whose packets carry the very timestamps of the frames in them."""


@dataclass(frozen=True)
class Timeline:
    """Seconds from the first frame."""

    times: Float64[np.ndarray, " frames"]
    """When each frame comes on screen: ascending from 0."""
    duration: float
    """When the last one leaves it."""

    @classmethod
    def from_ticks(cls, ticks: np.ndarray, last: int, base: Fraction) -> "Timeline":
        """From ascending timestamps in units of ``base`` seconds; ``last``: how long the last frame stands.

        Where that is not known (0), it stands as long as the others on average, or one tick.
        """
        ticks = ticks - ticks[0]
        end = float(ticks[-1]) + last
        if last <= 0:
            end = float(ticks[-1]) + (ticks[-1] / (len(ticks) - 1) if len(ticks) > 1 else 1)
        seconds = ticks * base.numerator / base.denominator
        return cls(seconds, end * base.numerator / base.denominator)

    @classmethod
    def from_count(cls, frames: int, rate: Fraction) -> "Timeline":
        """Frames that come at a constant rate."""
        steps = np.arange(frames + 1) * rate.denominator / rate.numerator
        return cls(steps[:-1], float(steps[-1]))


@dataclass
class Packets:
    """The packets of a video stream in decoding order, what is needed of each."""

    base: Fraction
    """Seconds a tick."""
    pts: list[int] = field(default_factory=list)
    """Presentation time in ticks; frames that an edit list hides are left out of the timeline."""
    durations: list[int] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    entries: list[int] = field(default_factory=list)
    """Where decoding can begin: no later picture refers to one before."""
    first_key: int = 0
    """The first packet marked as a key frame: a recording may begin in the middle of things."""
    held: list[av.Packet] | None = field(default_factory=list)
    """The packets themselves where they are few enough bytes to keep."""
    trusted: bool = True
    """Whether packets and frames correspond one to one, by timestamps."""

    def timeline(self, rate: Fraction | None) -> Timeline:
        """What the frames' timeline should turn out to be.

        Raises:
            ValueError: neither timestamps nor a frame rate.
        """
        order = self.display_order()
        if order is None:
            if rate is None:
                raise ValueError("neither timestamps nor a frame rate")
            return Timeline.from_count(sum(self.shown), rate)
        ticks = np.array([self.pts[i] for i in order], dtype=np.int64)
        return Timeline.from_ticks(ticks, self.durations[order[-1]], self.base)

    def display_order(self) -> list[int] | None:
        """Shown packets by presentation time; None where some have none, or two the same."""
        return self._order

    _order: list[int] | None = None


def index_timeline(container: InputContainer, stream: VideoStream) -> Timeline | None:
    """The timeline by an MP4 or MOV file's index; None where there is none or it is not complete.

    The index has decoding times, so that single frames may come a little earlier than shown.
    """
    entries = stream.index_entries
    if not container.format.name.startswith("mov") or not 0 < stream.frames == len(entries):
        return None
    ticks = np.array([entry.timestamp for entry in entries], dtype=np.int64)
    return Timeline.from_ticks(ticks, 0, Fraction(stream.time_base or 0))


def scan(
    container: InputContainer,
    stream: VideoStream,
    deadline: Deadline,
    until: float | int | None = None,
) -> Packets:
    """Read every packet of the stream once, up to those that are decoded after ``until`` seconds.

    Raises:
        DecodeError: no packet, a damaged one, or fewer than the container lists.
    """
    packets = Packets(base=Fraction(stream.time_base or 0))
    can_enter = entry_test(stream)
    held_bytes, listed = 0, len(stream.index_entries)
    times_known, any_key, first = True, False, None
    for packet in container.demux(stream):
        if not packet.size:
            continue
        deadline.check()
        if packet.is_corrupt:
            raise DecodeError(deadline.path, f"packet {len(packets.pts)} is damaged or cut short")
        times_known &= packet.pts is not None
        if packet.is_keyframe and not any_key:
            any_key, packets.first_key = True, len(packets.pts)
        if can_enter(packet):
            packets.entries.append(len(packets.pts))
        packets.pts.append(packet.pts if packet.pts is not None else 0)
        packets.durations.append(packet.duration or 0)
        packets.shown.append(not packet.is_discard)
        held_bytes += packet.size
        if held_bytes > HELD_BYTES:
            packets.held = None
        if packets.held is not None:
            packets.held.append(packet)
        if until is not None and packet.pts is not None and packet.dts is not None:
            first = packet.pts if first is None else min(first, packet.pts)
            if (min(packet.pts, packet.dts) - first) * packets.base > until:
                listed = 0  # what follows in decoding order is shown later still
                break
    if not any(packets.shown):
        raise DecodeError(deadline.path, "no picture in its video stream")
    if container.format.name.startswith("mov") and len(packets.pts) < listed:
        raise DecodeError(
            deadline.path,
            f"cut short: {len(packets.pts)} of the {listed} pictures that its index lists",
        )
    _judge(packets, container.format.name, times_known)
    return packets


def _judge(packets: Packets, container: str, times_known: bool) -> None:
    order = sorted(
        (i for i, shown in enumerate(packets.shown) if shown), key=packets.pts.__getitem__
    )
    distinct = all(packets.pts[a] < packets.pts[b] for a, b in itertools.pairwise(order))
    if times_known and distinct:
        packets._order = order
    packets.trusted = (
        packets._order is not None
        and container.startswith(_TRUSTED_CONTAINERS)
        and all(packets.shown)
        and packets.entries[:1] == [0]
        and order[0] == 0
    )
