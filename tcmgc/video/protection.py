"""Detect encrypted files, which would otherwise be reported as damaged."""

import re

from tcmgc.video.file import Source

_READ = 16 << 20
_SCHEME = re.compile(rb"schm.{4}(.{4})", re.DOTALL)
_MATROSKA_ENCRYPTION = re.compile(rb"\x47\xe1[\x81-\x84]")  # ContentEncAlgo (RFC 9559, 5.1.4.1.31)
_ASF_ENCRYPTION = {
    bytes.fromhex("FBB3112223BDD211B4B700A0C955FC6E"): "Windows Media DRM",
    bytes.fromhex("14E68A292226174CB935DAE07EE9289C"): "Windows Media DRM",
    bytes.fromhex("3385054369A9E642AC7E6D1D2E64B4A8"): "PlayReady",
}
"""Content Encryption, Extended and Advanced Content Encryption Objects (ASF specification)."""


def encryption(source: Source) -> str | None:
    """The scheme by which pictures are encrypted; None if nothing indicates encryption."""
    with source.open() as file:
        head = file.read(_READ)
        tail = b""
        if source.size > len(head):
            file.seek(max(source.size - _READ, len(head)))
            tail = file.read(_READ)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return (
            "Matroska content encryption" if _MATROSKA_ENCRYPTION.search(head, 0, 1 << 20) else None
        )
    for mark, name in _ASF_ENCRYPTION.items():
        if head[:4] == b"\x30\x26\xb2\x75" and mark in head[: 1 << 20]:
            return name
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
        return _of_boxes(head) or _of_boxes(tail)
    if head[:1] == b"G" and head[188:189] == b"G":
        scrambled = any(head[at + 3] & 0x80 for at in range(0, len(head) - 188, 188))
        return "scrambled transport stream" if scrambled else None
    return None


def _of_boxes(data: bytes) -> str | None:
    """Sample entries for encrypted video (ISO/IEC 14496-12, 8.12; Apple's own)."""
    if b"stsd" in data and b"drmi" in data:
        return "FairPlay"
    if b"stsd" not in data or b"encv" not in data:
        return None
    scheme = _SCHEME.search(data, data.index(b"encv"))
    return scheme[1].decode("ascii", "replace") if scheme else "of an unknown scheme"
