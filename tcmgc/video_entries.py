"""At which packets decoding can begin and give the same pictures as from the start."""

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


def entry_test(stream: VideoStream) -> Callable[[av.Packet], bool]:
    """A test for one stream's packets.

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
    if codec in ("h264", "hevc"):
        extra = stream.codec_context.extradata or b""
        place = 4 if codec == "h264" else 21
        if len(extra) > place and extra[0] == 1:  # length-prefixed units (ISO/IEC 14496-15)
            width = (extra[place] & 3) + 1
            refresh = _is_h264_refresh if codec == "h264" else _is_hevc_refresh
            return lambda packet: (
                packet.is_keyframe
                and any(refresh(first) for first in _units(memoryview(packet), width))
            )
    started = False

    def first_only(packet: av.Packet) -> bool:
        nonlocal started
        was, started = started, True
        return not was and packet.is_keyframe

    return first_only


def _units(data: memoryview, width: int) -> Iterator[int]:
    """First byte of each NAL unit; stops at the first length that does not fit."""
    offset = 0
    while offset + width < len(data):
        length = int.from_bytes(data[offset : offset + width])
        offset += width
        if not 0 < length <= len(data) - offset:
            return
        yield data[offset]
        offset += length


def _is_h264_refresh(header: int) -> bool:
    return header & 31 == 5


def _is_hevc_refresh(header: int) -> bool:
    return 16 <= header >> 1 & 63 <= 21
