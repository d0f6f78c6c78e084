"""Tests on packets: whether decoding can begin there, and whether they contain illegal bytes."""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av
from av.video.stream import VideoStream

_INTRA = frozenset(
    {"dnxhd", "dvvideo", "ffvhuff", "huffyuv", "jpeg2000", "magicyuv", "mjpeg", "prores"}
    | {"rawvideo", "utvideo", "v210", "v410", "png"}
)
"""Every picture is independent of others."""
_BY_KEYFRAME = frozenset({"vp9", "av1"})
"""A key frame resets all references, and containers flag nothing else."""
_FORBIDDEN = re.compile(rb"\0\0(?:[\1\2]|\0+[^\0])")
"""Excluded from NAL units by emulation prevention (ISO/IEC 14496-10 and 23008-2, 7.4.1 and 7.4.2)."""
_START = re.compile(rb"\x00\x00\x01")

PacketTest = Callable[[av.Packet], bool]


@dataclass(frozen=True)
class NalUnits:
    """The format of NAL units in a stream of H.264 or HEVC."""

    codec: str
    """h264 or hevc."""
    width: int
    """Bytes of the length before each unit (ISO/IEC 14496-15); 0: start codes (Annex B)."""

    @classmethod
    def of(cls, stream: VideoStream) -> "NalUnits | None":
        """The stream's format; None for other codecs."""
        codec = stream.codec_context.codec.canonical_name
        place = {"h264": 4, "hevc": 21}.get(codec)
        if place is None:
            return None
        extra = stream.codec_context.extradata or b""
        packed = len(extra) > place and extra[0] == 1
        return cls(codec, (extra[place] & 3) + 1 if packed else 0)

    def split(self, packet: av.Packet) -> Iterator[memoryview]:
        """The packet's units without lengths or start codes; stops at a length that does not fit."""
        data = memoryview(packet)
        if not self.width:
            starts = [match.end() for match in _START.finditer(data)]
            for begin, after in itertools.pairwise([*starts, len(data) + 3]):
                if begin < after - 3:
                    yield data[begin : after - 3]
            return
        offset = 0
        while offset + self.width < len(data):
            length = int.from_bytes(data[offset : offset + self.width])
            offset += self.width
            if not 0 < length <= len(data) - offset:
                return
            yield data[offset : offset + length]
            offset += length

    def kind(self, unit: memoryview) -> int:
        """The unit's type."""
        return unit[0] & 31 if self.codec == "h264" else unit[0] >> 1 & 63

    def decides_pictures(self, unit: memoryview) -> bool:
        """True for slices and parameter sets; false for messages, fillers and unspecified types."""
        if self.codec == "h264":
            return self.kind(unit) in (1, 2, 3, 4, 5, 7, 8)
        return self.kind(unit) <= 34

    def refreshes(self, unit: memoryview) -> bool:
        """Whether no later picture refers to an earlier one.

        A container's key-frame flag is not sufficient: in an open group of pictures, and with gradual
        refresh, pictures after it refer to pictures before. That cannot happen at instantaneous
        refreshes (unit type 5; in HEVC, all random access types, 16 to 21).
        """
        return self.kind(unit) == 5 if self.codec == "h264" else 16 <= self.kind(unit) <= 21

    def is_referred_to(self, packet: av.Packet) -> bool:
        """Whether other pictures may be predicted from this one, according to H.264; true for HEVC."""
        if self.codec != "h264":
            return True
        return any(unit[0] & 0x60 and self.kind(unit) <= 5 for unit in self.split(packet))

    def without_messages(self, packet: av.Packet) -> av.Packet | None:
        """The packet without units that do not affect pictures; None if it has none or only such units."""
        units = list(self.split(packet))
        kept = [bytes(unit) for unit in units if self.decides_pictures(unit)]
        if not kept or len(kept) == len(units):
            return None
        start = b"\0\0\1" if not self.width else None
        out = av.Packet(b"".join((start or len(u).to_bytes(self.width)) + u for u in kept))
        out.pts, out.dts, out.time_base = packet.pts, packet.dts, packet.time_base
        return out


def entry_test(stream: VideoStream) -> PacketTest:
    """A test for one stream's packets: whether decoding that begins there gives the same pictures.

    For unknown codecs, only the first packet passes.
    """
    codec = stream.codec_context.codec.canonical_name
    if codec in _INTRA:
        return lambda packet: True
    if codec in _BY_KEYFRAME:
        return lambda packet: packet.is_keyframe
    units = NalUnits.of(stream)
    if units is not None:
        return lambda packet: (
            packet.is_keyframe and any(units.refreshes(unit) for unit in units.split(packet))
        )
    started = False

    def first_only(packet: av.Packet) -> bool:
        nonlocal started
        was, started = started, True
        return not was and packet.is_keyframe

    return first_only


def forbidden_test(units: NalUnits | None) -> PacketTest:
    """A test for packets: whether pictures of H.264 or HEVC contain forbidden bytes.

    Decoders silently skip a block of zeros, which a failed transfer or disk leaves
    behind. Zeros at the end of a unit are padding.
    """
    if units is None:
        return lambda packet: False
    return lambda packet: any(
        units.decides_pictures(unit) and _FORBIDDEN.search(unit) for unit in units.split(packet)
    )
