"""Reading wanted frames: by decoding everything, or only what they depend on."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from jaxtyping import UInt8

from tcmgc.video_file import Deadline, DecodeError, Source, open_video
from tcmgc.video_timeline import Packets, Timeline

Convert = Callable[[av.VideoFrame], UInt8[np.ndarray, "3 size size"]]
Pixels = dict[int, UInt8[np.ndarray, "3 size size"]]
"""By place in display order."""


def decode_all(
    source: Source, wanted: Iterable[int], convert: Convert, deadline: Deadline, until: float | None
) -> tuple[Timeline, Pixels]:
    """Decode from the first packet on, keeping the wanted frames, and learn the true timeline.

    Where timestamps do not ascend in display order, or are not there, frames count as coming at
    the stream's rate. Stops after the first frame at or past ``until`` seconds.

    Raises:
        DecodeError: the decoder noticed damage, or time is over.
    """
    keep = frozenset(wanted)
    pixels: Pixels = {}
    ticks: list[int | None] = []
    last = 0
    with open_video(source, deadline) as (container, stream):
        base, rate = Fraction(stream.time_base or 0), stream.average_rate or stream.guessed_rate
        for packet in container.demux(stream):
            for frame in checked(packet, stream.codec_context, deadline):
                if len(ticks) in keep:
                    pixels[len(ticks)] = convert(frame)
                ticks.append(frame.pts)
                last = frame.duration
            if until is not None and _past(ticks, base, until):
                break
    if not ticks:
        raise DecodeError(deadline.path, "no picture could be decoded")
    times = np.array([tick if tick is not None else -1 for tick in ticks], dtype=np.int64)
    if None in ticks or (np.diff(times) <= 0).any():
        if rate is None:
            raise DecodeError(deadline.path, "neither timestamps nor a frame rate")
        return Timeline.from_count(len(ticks), rate), pixels
    return Timeline.from_ticks(times, last, base), pixels


def decode_needed(
    source: Source, packets: Packets, wanted: Sequence[int], convert: Convert, deadline: Deadline
) -> Pixels | None:
    """Decode only what the wanted frames depend on; None where the outcome is not beyond doubt.

    Runs begin at the last entry before a wanted frame, unless the previous run is already past
    it. Within a run, pictures that no other refers to are left out (H.264). Each wanted
    frame must come out with exactly its packet's timestamp.
    """
    order = packets.display_order() or []
    targets = {order[place]: place for place in wanted}
    by_pts = {packets.pts[index]: place for index, place in targets.items()}
    pixels: Pixels = {}
    feeds = plan_runs(packets, sorted(targets))
    try:
        with open_video(source, deadline) as (container, stream):
            context = stream.codec_context
            skips = context.codec.canonical_name == "h264"
            supply = iter(packets.held) if packets.held is not None else _demux(container, stream)
            at = -1
            for run in feeds:
                if at >= 0:
                    context.flush_buffers()
                floor = packets.pts[run.start]
                for index in run:
                    while at < index:
                        packet = next(supply)
                        at += 1
                    if packet.pts != packets.pts[index]:
                        return None
                    if skips:
                        context.skip_frame = "DEFAULT" if index in targets else "NONREF"
                    _collect(checked(packet, context, deadline), by_pts, floor, convert, pixels)
                _collect(checked(None, context, deadline), by_pts, floor, convert, pixels)
    except (av.FFmpegError, StopIteration):
        return None
    return pixels if len(pixels) == len(targets) else None


def plan_runs(packets: Packets, targets: Sequence[int]) -> list[range]:
    """Stretches of packets to feed, in decoding order, each from an entry to its last target."""
    runs: list[range] = []
    for target in targets:
        entry = max(
            i for i in packets.entries if i <= target and packets.pts[i] <= packets.pts[target]
        )
        if runs and entry <= runs[-1].stop:
            runs[-1] = range(runs[-1].start, target + 1)
        else:
            runs.append(range(entry, target + 1))
    return runs


def checked(
    packet: av.Packet | None, context: av.VideoCodecContext, deadline: Deadline
) -> list[av.VideoFrame]:
    """The frames that a packet brings, none of them damaged."""
    deadline.check()
    frames = context.decode(packet)
    for frame in frames:
        if frame.is_corrupt:
            raise DecodeError(deadline.path, "a picture is damaged")
    return frames


def _collect(
    frames: list[av.VideoFrame],
    by_pts: dict[int, int],
    floor: int,
    convert: Convert,
    pixels: Pixels,
) -> None:
    for frame in frames:
        place = by_pts.get(frame.pts) if frame.pts is not None and frame.pts >= floor else None
        if place is not None and place not in pixels:
            pixels[place] = convert(frame)


def _demux(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    return (packet for packet in container.demux(stream) if packet.size)


def _past(ticks: list[int | None], base: Fraction, until: float) -> bool:
    if not ticks or ticks[-1] is None or ticks[0] is None:
        return False
    return (ticks[-1] - ticks[0]) * base.numerator / base.denominator >= until
