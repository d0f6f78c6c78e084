"""Videos for a browser: byte ranges, and re-encoded clips of files that it cannot play."""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tcmgc import storage
from tcmgc.search.files import FileRow
from tcmgc.video.clip import to_mp4

_BLOCK = 1 << 20
_KEPT_BYTES = 256 << 20
"""Memory that re-encoded clips may take."""
_SECONDS = 60.0
"""Time limit for encoding a clip."""

_TYPES = {".webm": "video/webm", ".mkv": "video/x-matroska", ".ogv": "video/ogg"}
_PLAYED = {"h264", "vp8", "vp9", "av1", "theora"}
_CONTAINERS = ("mov", "matroska", "ogg")


@dataclass(frozen=True)
class Range:
    """A part of a file: its first byte and number of bytes."""

    start: int
    length: int


def parse_range(header: str | None, size: int) -> Range | None:
    """The part requested by a ``Range`` header; None for the complete file (RFC 9110, 14.2).

    Several ranges are ignored, which the standard allows.

    Raises:
        ValueError: a range that the file does not have.
    """
    unit, _, rest = (header or "").partition("=")
    first, dash, last = rest.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or "," in rest:
        return None
    if not (first.isdecimal() or (not first and last.isdecimal())) or not (
        last.isdecimal() or not last
    ):
        return None
    if not first:
        length = min(int(last), size)
        start = size - length
    else:
        start = int(first)
        length = min(int(last) if last else size - 1, size - 1) - start + 1
    if start >= size or length <= 0:
        raise ValueError(f"the range {rest!r} is not in a file of {size} bytes")
    return Range(start, length)


def is_played(row: FileRow) -> bool:
    """Whether browsers play the file unchanged, by its container and codec."""
    return row.codec in _PLAYED and row.container.startswith(_CONTAINERS)


def mime(row: FileRow) -> str:
    """The file's type for a browser."""
    return _TYPES.get(os.path.splitext(row.path)[1].lower(), "video/mp4")


def size_of(row: FileRow) -> int:
    """Current size of an indexed file in bytes.

    Raises:
        FileNotFoundError: it was deleted or replaced by a link or something other than a file.
    """
    if storage.is_uri(row.path):
        stamp = storage.stamp(row.path)
        if stamp is None:
            raise FileNotFoundError(row.path)
        return stamp.size
    # A link created later must not lead out of the indexed folders.
    if os.path.realpath(row.path) != row.path or not os.path.isfile(row.path):
        raise FileNotFoundError(row.path)
    return os.stat(row.path).st_size


def read(row: FileRow, part: Range) -> Iterator[bytes]:
    """A part of an indexed file, block by block."""
    if storage.is_uri(row.path):
        system, inner = storage.resolve(row.path)
        with system.open_input_file(inner) as remote:
            remote.seek(part.start)
            yield from _blocks(remote, part.length)
        return
    with open(row.path, "rb") as file:
        file.seek(part.start)
        yield from _blocks(file, part.length)


def _blocks(file: object, left: int) -> Iterator[bytes]:
    while left > 0 and (block := file.read(min(_BLOCK, left))):  # type: ignore[attr-defined]
        left -= len(block)
        yield block


class Clips:
    """Sections of videos re-encoded for a browser; the last ones are kept in memory."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}

    def get(self, row: FileRow, start: float, end: float) -> bytes:
        """An MP4 of a section; concurrent requests for the same one encode it once.

        Raises:
            DecodeError: it cannot be encoded.
        """
        name = hashlib.sha256(
            f"{os.fsencode(row.path)!r} {row.modified} {start} {end}".encode()
        ).hexdigest()
        with self._lock:
            mine = self._busy.setdefault(name, threading.Lock())
        with mine:
            with self._lock:
                if name in self._kept:
                    self._kept.move_to_end(name)
                    return self._kept[name]
            made = to_mp4(row.path, start, end, timeout=_SECONDS)
            with self._lock:
                self._kept[name] = made
                while sum(map(len, self._kept.values())) > _KEPT_BYTES and len(self._kept) > 1:
                    self._kept.popitem(last=False)
                self._busy.pop(name, None)
            return made


def page_folder() -> Path:
    """The page's files."""
    return Path(__file__).parent / "page"
