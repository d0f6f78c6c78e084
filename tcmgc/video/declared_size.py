"""How long a file says it is: cut downloads, found without decoding anything.

Containers name the sizes of their parts; FFmpeg reads what is there and says nothing of the rest.
MPEG program streams, FLV, MXF and raw streams name none, and transport streams no more than the size
of a packet: one that is cut between two packets is a shorter video, and nothing can tell it from one.
"""

import struct
from typing import Protocol, runtime_checkable

_MATROSKA_SEGMENT = 0x18538067
_ASF_FILE_PROPERTIES = bytes.fromhex("A1DCAB8C47A9CF118EE400C00C205365")
_ASF_HEADER = bytes.fromhex("3026B2758E66CF11A6D900AA0062CE6C")


@runtime_checkable
class Seekable(Protocol):
    """What is asked of a file object."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes."""

    def seek(self, position: int, /) -> int:
        """Go to a position."""


def declared_size(file: Seekable, size: int) -> int | None:
    """Bytes that the file must have by its own account; None where it does not say.

    Reads box and chunk headers only: MP4 and MOV boxes, RIFF (AVI), Matroska's segment, ASF's
    file properties; a whole number of packets for MPEG transport streams.
    """
    file.seek(0)
    head = file.read(512)
    if head[:4] == b"RIFF":
        return 8 + struct.unpack("<I", head[4:8])[0] if len(head) >= 8 else None
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _matroska(head, file)
    if head[:16] == _ASF_HEADER:
        return _asf(head, file)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"):
        return _boxes(file, size)
    for packet, sync in ((188, 0), (192, 4)):  # transport stream; the same with time codes
        if size > 2 * packet and head[sync] == head[sync + packet] == 0x47:
            return -(-size // packet) * packet
    return None


def _boxes(file: Seekable, size: int) -> int:
    """End of the last top-level box (ISO/IEC 14496-12, 4.2)."""
    offset = 0
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
        offset += length
    return offset


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
    """A variable-length size and where it ends; None for "unknown", all ones, as live streams have."""
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
