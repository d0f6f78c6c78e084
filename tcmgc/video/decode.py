"""Reading wanted frames: by decoding everything, or only what they depend on."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from jaxtyping import UInt8

from tcmgc.video.decoder_log import Complaint, listening
from tcmgc.video.entries import forbidden_test
from tcmgc.video.file import DamagedError, Deadline, DecodeError, Source, open_video
from tcmgc.video.timeline import Packets, Timeline

Convert = Callable[[av.VideoFrame], UInt8[np.ndarray, "3 size size"]]
Pixels = dict[int, UInt8[np.ndarray, "3 size size"]]
"""By place in display order."""


class Decoder:
    """One stream's decoder, strict: a picture that it is not sure of is an error."""

    def __init__(
        self, stream: VideoStream, deadline: Deadline, complaints: list[Complaint]
    ) -> None:
        self.context, self.deadline, self.complaints = stream.codec_context, deadline, complaints
        self._has_forbidden = forbidden_test(stream)

    def feed(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """The pictures that come out; None drains the decoder.

        Raises:
            DamagedError: the decoder reports an error, in its result, its log or the picture.
            DecodeError: time is over.
        """
        self.deadline.check()
        before = len(self.complaints)
        if packet is not None and self._has_forbidden(packet):
            raise DamagedError(self.deadline.path, "damaged: bytes that the code does not allow")
        try:
            frames = self.context.decode(packet)
        except av.FFmpegError as error:
            raise DamagedError(
                self.deadline.path, f"damaged: {self._last(error.strerror or 'no reason given')}"
            ) from error
        if len(self.complaints) > before or any(frame.is_corrupt for frame in frames):
            raise DamagedError(self.deadline.path, f"damaged: {self._last('a broken picture')}")
        return frames

    def _last(self, otherwise: str) -> str:
        return self.complaints[-1][2].strip() if self.complaints else otherwise.lower()


def decode_all(
    source: Source,
    packets: Packets,
    wanted: Iterable[int],
    convert: Convert,
    deadline: Deadline,
    until: float | int | None,
) -> tuple[Timeline, Pixels]:
    """Decode from the first packet on, keeping the wanted frames, and learn the true timeline.

    Where timestamps do not ascend in display order, or are not there, frames count as coming at
    the stream's rate. Stops after the first frame at or past ``until`` seconds. What comes before
    the first key frame is let go where it cannot be decoded.

    Raises:
        DecodeError: the decoder noticed damage, or time is over.
    """
    keep = frozenset(wanted)
    try:
        return _decode_from(0, packets.first_key, source, keep, convert, deadline, until)
    except _BeforeKeyframeError:
        return _decode_from(packets.first_key, 0, source, keep, convert, deadline, until)


class _BeforeKeyframeError(Exception):
    pass


def _decode_from(
    begin: int,
    first_key: int,
    source: Source,
    keep: frozenset[int],
    convert: Convert,
    deadline: Deadline,
    until: float | int | None,
) -> tuple[Timeline, Pixels]:
    pixels: Pixels = {}
    ticks: list[int | None] = []
    last, ascending = 0, True
    with open_video(source, deadline) as (container, stream), listening() as complaints:
        base, rate = Fraction(stream.time_base or 0), stream.average_rate or stream.guessed_rate
        decoder = Decoder(stream, deadline, complaints)
        for number, packet in enumerate(_demux(container, stream)):
            if number < begin:
                continue
            try:
                frames = decoder.feed(packet)
            except DamagedError as error:
                if number < first_key:
                    raise _BeforeKeyframeError from error
                raise
            for frame in frames:
                if len(ticks) in keep:
                    pixels[len(ticks)] = convert(frame)
                ascending &= frame.pts is not None and (not ticks or frame.pts > (ticks[-1] or 0))
                ticks.append(frame.pts)
                last = frame.duration
            if until is not None and ascending and ticks and _seconds(ticks, base) >= until:
                break
    return _timeline(ticks, last, base, rate, deadline), pixels


def _timeline(
    ticks: list[int | None], last: int, base: Fraction, rate: Fraction | None, deadline: Deadline
) -> Timeline:
    if not ticks:
        raise DecodeError(deadline.path, "no picture could be decoded")
    times = np.array([-1 if tick is None else tick for tick in ticks], dtype=np.int64)
    if None not in ticks and (np.diff(times) > 0).all():
        return Timeline.from_ticks(times, last, base)
    if rate is None:
        raise DecodeError(deadline.path, "neither timestamps nor a frame rate")
    return Timeline.from_count(len(ticks), rate)


def decode_needed(
    source: Source, packets: Packets, wanted: Sequence[int], convert: Convert, deadline: Deadline
) -> Pixels | None:
    """Decode only what the wanted frames depend on; None where the outcome is not beyond doubt.

    Runs begin at the last entry before a wanted frame, unless the previous run is already past
    it. Within a run, pictures that no other refers to are left out (H.264). Each wanted
    frame must come out with exactly its packet's timestamp.

    Raises:
        DecodeError: time is over.
    """
    order = packets.display_order() or []
    targets = {order[place]: place for place in wanted}
    by_pts = {packets.pts[index]: place for index, place in targets.items()}
    pixels: Pixels = {}
    try:
        with open_video(source, deadline) as (container, stream), listening() as complaints:
            context = stream.codec_context
            decoder = Decoder(stream, deadline, complaints)
            skips = context.codec.canonical_name == "h264"
            supply = enumerate(packets.held or _demux(container, stream))
            for run in plan_runs(packets, sorted(targets)):
                if pixels:
                    context.flush_buffers()
                for index in run:
                    packet = next(packet for at, packet in supply if at == index)
                    if packet is None or packet.pts != packets.pts[index]:
                        return None
                    if skips:
                        context.skip_frame = "DEFAULT" if index in targets else "NONREF"
                    _collect(decoder.feed(packet), by_pts, packets.pts[run.start], convert, pixels)
                _collect(decoder.feed(None), by_pts, packets.pts[run.start], convert, pixels)
    except (DamagedError, StopIteration):
        return None
    return pixels if len(pixels) == len(targets) else None


def first_picture(
    container: InputContainer, stream: VideoStream, deadline: Deadline
) -> av.VideoFrame:
    """The first picture that can be decoded.

    Raises:
        DecodeError: there is none, or it is damaged.
    """
    with listening() as complaints:
        decoder = Decoder(stream, deadline, complaints)
        for packet in _demux(container, stream):
            for frame in decoder.feed(packet):
                return frame
    raise DecodeError(deadline.path, "no picture could be decoded")


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


def _demux(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet | None]:
    """The stream's packets, and None after the last."""
    for packet in container.demux(stream):
        yield packet if packet.size else None


def _seconds(ticks: list[int | None], base: Fraction) -> float:
    """From the first frame to the last one so far."""
    return ((ticks[-1] or 0) - (ticks[0] or 0)) * base.numerator / base.denominator
