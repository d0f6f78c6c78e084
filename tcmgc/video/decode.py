"""Decode the wanted frames: from a full decode, or from only the packets that they depend on."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from jaxtyping import UInt8

from tcmgc.video.clock import FEW, LITERAL_SECONDS, BestEffort
from tcmgc.video.decoder_log import Complaint, listening
from tcmgc.video.entries import NalUnits, forbidden_test
from tcmgc.video.file import DamagedError, Deadline, DecodeError, Source, open_video
from tcmgc.video.timeline import Packets, Timeline, counts_by_dts, rate_of

Convert = Callable[[av.VideoFrame], UInt8[np.ndarray, "3 size size"]]
Pixels = dict[int, UInt8[np.ndarray, "3 size size"]]
"""Frames by position in display order."""

_NOT_OF_PICTURES = re.compile(
    r"\bSEI\b|buffering period|recovery_frame_cnt"  # H.264, HEVC
    r"|\bAPP\d? ?\b|\bEXIF\b|\bICC|^(app|com): |decode_app"  # JPEG
)
"""Decoders' complaints about metadata that do not affect the picture."""
_OF_MEMORY = re.compile(r"mmco: unref short failure")
"""A picture that the stream discards is missing, as at the start of a cut."""


class Decoder:
    """One stream's strict decoder: an unreliable picture is an error if it is shown.

    Pictures that are not shown may be unreliable: those before the first one in display order that
    come after it in decoding order (the leading pictures of an open group whose references were
    cut off), and pictures that an edit list hides and no other refers to.
    """

    def __init__(
        self, stream: VideoStream, deadline: Deadline, complaints: list[Complaint]
    ) -> None:
        self.context, self.deadline, self.complaints = stream.codec_context, deadline, complaints
        self._units = NalUnits.of(stream)
        self._has_forbidden = forbidden_test(self._units)
        self._begun, self._first = False, 0
        """Whether there was a packet, and the first one's presentation time."""
        self._leading = self._opening = False
        """Whether the packet precedes the first one in display order; and whether it may still
        refer to data before the first packet."""
        self._doubtful: set[int] = set()

    def feed(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """Decode a packet and return the decoder's pictures; None drains the decoder.

        Raises:
            DamagedError: the decoder reports an error, in its result, its log or the picture.
            DecodeError: the timeout has passed.
        """
        self.deadline.check()
        if packet is not None:
            self._note(packet)
        frames, reason = self._decode(packet)
        if reason:
            if packet is None or not self._is_unseen(packet):
                raise DamagedError(self.deadline.path, f"damaged: {reason}")
            if packet.pts is not None:
                self._doubtful.add(packet.pts)
        frames = [frame for frame in frames if frame.pts not in self._doubtful]
        if any(frame.is_corrupt for frame in frames):
            raise DamagedError(self.deadline.path, "damaged: a broken picture")
        return frames

    def _note(self, packet: av.Packet) -> None:
        if not self._begun:
            self._begun, self._first = True, packet.pts or 0
            self._leading = packet.pts is not None
            self._opening = self._units is not None and not any(
                map(self._units.refreshes, self._units.split(packet))
            )
            return
        self._leading &= packet.pts is not None and packet.pts < self._first
        self._opening &= not packet.is_keyframe

    def _decode(self, packet: av.Packet | None) -> tuple[list[av.VideoFrame], str]:
        """The decoder's pictures, and what is wrong with the packet's picture."""
        if packet is not None and self._has_forbidden(packet):
            return [], "bytes that the code does not allow"
        before = len(self.complaints)
        try:
            frames = self.context.decode(packet)
        except av.FFmpegError as error:
            reason = self._said(before) or (error.strerror or "no reason given").lower()
            bare = self._units.without_messages(packet) if packet and self._units else None
            if bare is None:
                return [], reason
            frames, again = self._decode(bare)
            return frames, reason if again else ""
        return frames, self._said(before)

    def _said(self, before: int) -> str:
        """The last complaint about pictures since then."""
        for _, _, message in reversed(self.complaints[before:]):
            forgiven = _NOT_OF_PICTURES.search(message) or (
                self._opening and _OF_MEMORY.match(message)
            )
            if not forgiven:
                return message.strip()
        return ""

    def _is_unseen(self, packet: av.Packet) -> bool:
        if self._leading and packet.pts != self._first:
            return True
        return (
            packet.is_discard and self._units is not None and not self._units.is_referred_to(packet)
        )


def decode_all(
    source: Source,
    packets: Packets,
    wanted: Iterable[int],
    convert: Convert,
    deadline: Deadline,
    until: float | int | None,
) -> tuple[Timeline, Pixels]:
    """Decode from the first packet on, keep the wanted frames, and determine the true timeline.

    Frames have FFmpeg's best-effort times, or, without stamps, those of the stream's rate. Stops
    two seconds after ``until``, if the clock has not stepped back before. Pictures
    before the first key frame are dropped if they cannot be decoded.

    Raises:
        DecodeError: the decoder noticed damage, or the timeout has passed.
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
    stamps: list[int | None] = []
    with open_video(source, deadline) as (container, stream), listening() as complaints:
        base, rate = Fraction(stream.time_base or 0), rate_of(stream)
        by_dts, best_effort = counts_by_dts(container), BestEffort()
        past, last = _Past(until, base), 0
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
                if len(stamps) in keep:
                    pixels[len(stamps)] = convert(frame)
                if by_dts:
                    stamps.append(packet.dts if packet is not None else None)
                else:
                    stamps.append(best_effort(frame.pts, frame.dts))
                last = frame.duration
            if past(stamps):
                break
    if not stamps:
        raise DecodeError(deadline.path, "no picture could be decoded")
    try:
        return Timeline.from_stamps(stamps, last, base, rate), pixels
    except ValueError as error:
        raise DecodeError(deadline.path, str(error)) from error


class _Past:
    """Whether enough frames are past a moment to be sure that no later frame is before it."""

    def __init__(self, until: float | int | None, base: Fraction) -> None:
        self.until, self.base = until, base
        self._seen = self._beyond = 0
        self._high: int | None = None
        self._stepped_back = False

    def __call__(self, stamps: list[int | None]) -> bool:
        if self.until is None or not stamps or stamps[0] is None:
            return False
        for stamp in stamps[self._seen :]:
            if stamp is None:
                self._stepped_back = True
                continue
            self._stepped_back |= self._high is not None and (
                (self._high - stamp) * self.base > _SMALL_STEP
            )
            self._high = stamp if self._high is None else max(stamp, self._high)
            beyond = (stamp - stamps[0]) * self.base - self.until > LITERAL_SECONDS
            self._beyond = self._beyond + 1 if beyond else 0
        self._seen = len(stamps)
        return self._beyond > FEW and not self._stepped_back


_SMALL_STEP = Fraction(1, 4)
"""Seconds that single stamps may step back without counting as a restart of the clock."""


def decode_needed(
    source: Source, packets: Packets, wanted: Sequence[int], convert: Convert, deadline: Deadline
) -> Pixels | None:
    """Decode only what the wanted frames depend on; None if the result is not certain.

    Runs begin at the last entry point before a wanted frame, unless the previous run is already past
    it. Within a run, pictures that no other refers to are skipped (H.264). Frames must have
    ascending timestamps, and each wanted frame exactly that of its packet.

    Raises:
        DecodeError: the timeout has passed.
    """
    order = packets.order or []
    targets = {order[place]: place for place in wanted}
    by_pts = {packets.pts[index]: place for index, place in targets.items()}
    pixels: Pixels = {}
    try:
        with open_video(source, deadline) as (container, stream), listening() as complaints:
            context = stream.codec_context
            decoder = Decoder(stream, deadline, complaints)
            skips = context.codec.canonical_name == "h264"
            supply = enumerate(packets.held or _demux(container, stream))
            for number, run in enumerate(plan_runs(packets, sorted(targets))):
                if number:
                    context.flush_buffers()
                last = packets.pts[run.start] or 0
                for index in [*run, None]:
                    packet = None
                    if index is not None:
                        packet = next(packet for at, packet in supply if at == index)
                        if packet is None or packet.pts != packets.pts[index]:
                            return None
                        if skips:
                            context.skip_frame = "DEFAULT" if index in targets else "NONREF"
                    for frame in decoder.feed(packet):
                        if frame.pts is None or frame.pts < last:
                            return None
                        last = frame.pts
                        if (place := by_pts.get(frame.pts)) is not None:
                            pixels[place] = convert(frame)
    except (DamagedError, StopIteration):
        return None
    return pixels if len(pixels) == len(targets) else None


def first_picture(
    container: InputContainer, stream: VideoStream, deadline: Deadline
) -> tuple[av.VideoFrame, bool]:
    """The first picture that can be decoded, and whether it is from the first packet.

    Pictures before the first key frame may be broken.

    Raises:
        DecodeError: there is none, or it is damaged.
    """
    begun, begin = False, None
    with listening() as complaints:
        decoder = Decoder(stream, deadline, complaints)
        for number, packet in enumerate(_demux(container, stream)):
            if packet is not None and packet.is_keyframe and not begun:
                begun, decoder = True, Decoder(stream, deadline, complaints)
            if packet is not None and not number:
                begin = packet.pts
            try:
                frames = decoder.feed(packet)
            except DamagedError:
                if begun or packet is None:
                    raise
                continue
            if frames:
                return frames[0], frames[0].pts == begin
    raise DecodeError(deadline.path, "no picture could be decoded")


def plan_runs(packets: Packets, targets: Sequence[int]) -> list[range]:
    """Ranges of packets to decode, in decoding order, each from an entry point to its last target."""
    runs: list[range] = []
    pts = [stamp or 0 for stamp in packets.pts]  # all are known if there is an order
    for target in targets:
        entry = max(i for i in packets.entries if i <= target and pts[i] <= pts[target])
        if runs and entry <= runs[-1].stop:
            runs[-1] = range(runs[-1].start, target + 1)
        else:
            runs.append(range(entry, target + 1))
    return runs


def _demux(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet | None]:
    """The stream's packets, and None after the last."""
    for packet in container.demux(stream):
        if packet.size:
            yield packet
    yield None
