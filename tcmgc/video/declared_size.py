"""The size that a file declares: finds truncated downloads without decoding anything.

Containers declare the sizes of their parts; FFmpeg reads what is there and does not report missing
parts. If the writer did not know a size, as for output to a pipe, the parts inside are checked
instead. MPEG program streams, FLV, MXF and raw streams declare no sizes, and transport
streams only the size of a packet: one that is cut between two packets cannot be distinguished from
a shorter video.
"""

import re
import struct
from typing import Protocol, runtime_checkable

_MATROSKA_SEGMENT = 0x18538067
_ASF_FILE_PROPERTIES = bytes.fromhex("A1DCAB8C47A9CF118EE400C00C205365")
_ASF_HEADER = bytes.fromhex("3026B2758E66CF11A6D900AA0062CE6C")
_BOXES = frozenset(
    b"ftyp moov mdat moof mfra styp sidx ssix prft emsg meta udta uuid pdin wide free skip pnot PICT".split()
)
"""Top-level boxes (ISO/IEC 14496-12, 4.2 and 8; QuickTime)."""
_PADDING = frozenset([b"free", b"skip", b"wide"])
_UNKNOWN_RIFF = (0x7FFFFFFF, 0xFFFFFFFF)
"""Sizes, except for the last 16 bits, that mean "unknown"; 0 does, too."""
_CHUNK = re.compile(rb"\d\d[a-z]{2}|ix\d\d|idx1|indx|LIST|JUNK|RIFF|vprp|_PMX", re.IGNORECASE)
_RIFF_SLACK = 16
"""Writers miscount by up to this many bytes, for example by including their own headers."""


@runtime_checkable
class Seekable(Protocol):
    """The methods that a file object must have."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes."""

    def seek(self, position: int, /) -> int:
        """Go to a position."""


def declared_size(file: Seekable, size: int) -> int | None:
    """Bytes that the file must have by its own declaration; None if it declares no size.

    Reads box and chunk headers only: MP4 and MOV boxes, RIFF (AVI), Matroska's segment, ASF's
    file properties; a whole number of packets for MPEG transport streams.
    """
    file.seek(0)
    head = file.read(512)
    if head[:4] == b"RIFF":
        return _riff(file, size)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _matroska(head, file)
    if head[:16] == _ASF_HEADER:
        return _asf(head, file)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"):
        return _boxes(file, size)
    for packet, sync in ((188, 0), (192, 4)):  # transport stream, without and with time codes
        if size > 2 * packet and head[sync] == head[sync + packet] == 0x47:
            return -(-size // packet) * packet
    return None


def _boxes(file: Seekable, size: int) -> int:
    """End of the last top-level box (ISO/IEC 14496-12, 4.2).

    A file with its index and its media is complete, even if other data follow.
    """
    offset, seen = 0, set[bytes]()
    while offset + 8 <= size:
        file.seek(offset)
        head = file.read(16)
        length, kind = struct.unpack(">I4s", head[:8])
        if length == 1 and len(head) == 16:
            length = struct.unpack(">Q", head[8:])[0]
        if length == 0:
            return size
        if length < 8 or not all(32 <= byte < 127 or byte == 0xA9 for byte in kind):
            return size  # padding after the last box
        if offset + length > size:
            foreign = kind not in _BOXES or kind in _PADDING
            if foreign and {b"moov", b"mdat"} <= seen:
                return size
        seen.add(kind)
        offset += length
    return offset


def _riff(file: Seekable, size: int) -> int | None:
    """End of the last RIFF part, or of its last chunk if the part's own size cannot be right.

    An AVI file whose movie and index end within the file is complete.
    """
    offset = 0
    while offset + 12 <= size:
        file.seek(offset)
        mark, length = struct.unpack("<4sI", file.read(8))
        if mark != b"RIFF":
            return offset  # other data after the last part
        end = offset + 8 + length
        unknown = length == 0 or any(length >> 16 == one >> 16 for one in _UNKNOWN_RIFF)
        if unknown or end > size:
            inner, indexed = _chunks(file, offset + 12, size)
            return inner if unknown or indexed or end - size <= _RIFF_SLACK else end
        offset = end + (end & 1)
    return offset


def _chunks(file: Seekable, offset: int, size: int) -> tuple[int, bool]:
    """End of the last chunk that begins within the file, and whether an index is among them."""
    end, indexed = offset, False
    while offset + 8 <= size:
        file.seek(offset)
        mark, length, kind = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
        if mark == b"LIST" and kind in (b"movi", b"rec ") and offset + 8 + length > size:
            offset += 12  # its length was not known either: descend into it
            continue
        if not _CHUNK.match(mark):
            break  # other data after the last chunk
        end = offset + 8 + length
        indexed |= mark == b"idx1" and end <= size
        offset = end + (end & 1)
    return end, indexed


def _matroska(head: bytes, file: Seekable) -> int | None:
    """End of the segment, past the EBML header (RFC 8794)."""
    header, offset = _ebml_size(head, 4)
    if header is None:
        return None
    segment = offset + header
    file.seek(segment)
    start = file.read(12)
    if len(start) < 12 or struct.unpack(">I", start[:4])[0] != _MATROSKA_SEGMENT:
        return None
    length, after = _ebml_size(start, 4)
    return None if length is None else segment + after + length


def _ebml_size(data: bytes, offset: int) -> tuple[int | None, int]:
    """A variable-length size and where it ends; None for "unknown" (all ones), as in live streams."""
    first = data[offset]
    width = 9 - first.bit_length()
    if width > 8 or offset + width > len(data):
        return None, offset
    value = int.from_bytes(data[offset : offset + width]) & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), offset + width


def _asf(head: bytes, file: Seekable) -> int | None:
    """The file size in the file properties object; 0 and the broadcast flag mean unknown."""
    length = min(struct.unpack("<Q", head[16:24])[0], 1 << 20)
    file.seek(0)
    header = file.read(length)
    at = header.find(_ASF_FILE_PROPERTIES)
    if at < 0 or at + 92 > len(header):
        return None
    size, flags = (
        struct.unpack_from("<Q", header, at + 40)[0],
        struct.unpack_from("<I", header, at + 88)[0],
    )
    return None if flags & 1 or not size else size
