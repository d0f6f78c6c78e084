"""What can be read off packets: where decoding can begin, and bytes that no encoder writes."""

import re
from collections.abc import Callable, Iterator

import av
from av.video.stream import VideoStream

_INTRA = frozenset(
    {"dnxhd", "dvvideo", "ffvhuff", "huffyuv", "jpeg2000", "magicyuv", "mjpeg", "prores"}
    | {"rawvideo", "utvideo", "v210", "v410", "png"}
)
"""Every picture stands for itself."""
_BY_KEYFRAME = frozenset({"vp9", "av1"})
"""A key frame resets all references, and containers flag nothing else."""
_FORBIDDEN = re.compile(rb"\0\0(?:[\1\2]|\0+[^\0])")
"""Kept out of NAL units by emulation prevention (ISO/IEC 14496-10 and 23008-2, 7.4.1 and 7.4.2)."""

PacketTest = Callable[[av.Packet], bool]


def entry_test(stream: VideoStream) -> PacketTest:
    """A test for one stream's packets: whether decoding can begin here, and give the same pictures.

    "Key frame" in a container is not enough for H.264 and HEVC: in an open group of pictures, and
    with gradual refresh, pictures after it refer to pictures before. Instantaneous refreshes (NAL
    unit type 5; in HEVC, all random access types, 16 to 21) do not have this.
    For other codecs only the first packet counts.
    """
    codec = stream.codec_context.codec.canonical_name
    if codec in _INTRA:
        return lambda packet: True
    if codec in _BY_KEYFRAME:
        return lambda packet: packet.is_keyframe
    width = _prefix_width(stream)
    if width:
        refresh = _is_h264_refresh if codec == "h264" else _is_hevc_refresh
        return lambda packet: (
            packet.is_keyframe
            and any(refresh(unit[0]) for unit in _units(memoryview(packet), width))
        )
    started = False

    def first_only(packet: av.Packet) -> bool:
        nonlocal started
        was, started = started, True
        return not was and packet.is_keyframe

    return first_only


def forbidden_test(stream: VideoStream) -> PacketTest:
    """A test for one stream's packets: whether H.264 or HEVC holds bytes that it cannot hold.

    Decoders read over a block of zeros without a word; it is the trace of a transfer or a disk
    that went wrong. Zeros at the end of a unit are padding.
    """
    width = _prefix_width(stream)
    if not width:
        return lambda packet: False
    return lambda packet: any(map(_FORBIDDEN.search, _units(memoryview(packet), width)))


def _prefix_width(stream: VideoStream) -> int:
    """Bytes of the lengths before NAL units (ISO/IEC 14496-15); 0 where there are none."""
    place = {"h264": 4, "hevc": 21}.get(stream.codec_context.codec.canonical_name)
    extra = stream.codec_context.extradata or b""
    if place is None or len(extra) <= place or extra[0] != 1:
        return 0
    return (extra[place] & 3) + 1


def _units(data: memoryview, width: int) -> Iterator[memoryview]:
    """The NAL units; stops at the first length that does not fit."""
    offset = 0
    while offset + width < len(data):
        length = int.from_bytes(data[offset : offset + width])
        offset += width
        if not 0 < length <= len(data) - offset:
            return
        yield data[offset : offset + length]
        offset += length


def _is_h264_refresh(header: int) -> bool:
    return header & 31 == 5


def _is_hevc_refresh(header: int) -> bool:
    return 16 <= header >> 1 & 63 <= 21
