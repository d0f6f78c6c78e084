"""Open possible videos (local files, URIs and bytes), with one exception type for all errors."""

import contextlib
import io
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream

from tcmgc import storage
from tcmgc.video.declared_size import declared_size

HELD_BYTES = 64 << 20
"""A remote file up to this size is downloaded in one piece; a larger one is read on demand."""

_READ_AHEAD = 4 << 20
_MAX_PIXELS = 1 << 26
_FORMATS = (
    "3gp,amv,asf,asf_o,av1,avi,dv,flv,gif,h261,h263,h264,hevc,ivf,live_flv,m4v,matroska,mjpeg,mov,"
    "mpeg,mpegts,mpegvideo,mxf,nsv,nut,nuv,obu,ogg,rm,swf,vc1,wtv,yuv4mpegpipe,"
    "aac,ac3,aiff,amr,flac,mp3,wav"
)
"""Demuxers for one film in one file: no playlists, no images, no text art. The audio-only ones
are included so that the error can say so."""


_LOGS_ALL = frozenset({"h264"})


class DecodeError(Exception):
    """A video that cannot be read, or only with made-up frames."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class DamagedError(DecodeError):
    """The decoder detected damaged data."""


class Deadline:
    """The time at which processing of a file is aborted."""

    def __init__(self, path: str, seconds: float | int | None) -> None:
        self.path = path
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def check(self) -> None:
        """Raise :class:`DecodeError` if the time has passed."""
        if self._end is not None and time.monotonic() > self._end:
            raise DecodeError(self.path, f"took more than the {self.seconds:g} s allowed")

    def left(self) -> float | None:
        """Seconds left, at least a millisecond; None without a limit."""
        return None if self._end is None else max(self._end - time.monotonic(), 1e-3)


@dataclass(frozen=True)
class Source:
    """A file that can be opened more than once."""

    name: str
    """Its name in error messages."""
    path: str | None
    """Local path or URI; None for bytes."""
    data: bytes | None
    """The complete file, if it is held in memory."""
    size: int

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        """A seekable file object on the content."""
        if self.data is not None:
            yield io.BytesIO(self.data)
        elif storage.is_uri(self.path or ""):
            system, inner = storage.resolve(self.path or "")
            with system.open_input_file(inner) as remote:
                yield remote
        else:
            with open(self.path or "", "rb") as file:
                yield file


def find(path_or_bytes: str | os.PathLike[str] | bytes) -> Source:
    """Check that a file exists, without opening it as a video.

    Raises:
        DecodeError: it does not exist, is not a regular file, or is empty.
    """
    if isinstance(path_or_bytes, bytes | bytearray | memoryview):
        content = bytes(path_or_bytes)
        return _not_empty(Source("<bytes>", None, content, len(content)))
    path = storage.without_scheme(os.fspath(path_or_bytes))
    if not storage.is_uri(path):
        try:
            info = os.stat(path)
        except (OSError, ValueError) as error:
            raise DecodeError(path, _reason(error)) from error
        if not stat.S_ISREG(info.st_mode):
            kind = "a folder" if stat.S_ISDIR(info.st_mode) else "not a regular file"
            raise DecodeError(path, kind)
        return _not_empty(Source(path, str(Path(path).absolute()), None, info.st_size))
    name = storage.plain(path)
    try:
        seen = storage.stamp(path)
        if seen is None:
            raise DecodeError(name, "no such file")
        data: bytes | None = None
        if seen.size <= HELD_BYTES:
            system, inner = storage.resolve(path)
            with system.open_input_file(inner) as remote:
                data = remote.read()
    except OSError as error:
        raise DecodeError(name, _reason(error)) from error
    return _not_empty(Source(name, path, data, seen.size))


@contextlib.contextmanager
def reasons(name: str) -> Iterator[None]:
    """Convert any error from reading a broken file into :class:`DecodeError`."""
    try:
        yield
    except DecodeError:
        raise
    except (av.FFmpegError, OSError, MemoryError, UnicodeError, OverflowError) as error:
        raise DecodeError(name, _reason(error)) from error


@contextlib.contextmanager
def open_video(source: Source, deadline: Deadline) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the container and its main video stream, with damage reported as errors.

    By default FFmpeg conceals damage: it fills lost blocks with plausible data and returns the frame.
    With ``explode``, decoders report what they detect. H.264's decoder also logs all of it,
    and continues if the damaged picture is not shown.

    Raises:
        DecodeError: not a video, no video stream, no decoder, or shorter than its header says.
    """
    with contextlib.ExitStack() as stack:
        target: Any
        if source.data is None and not storage.is_uri(source.path or ""):
            target = f"file:{source.path}"
        else:
            target = stack.enter_context(source.open())
        container = stack.enter_context(_open(target, source, deadline))
        stream = _main_stream(container, source)
        context = stream.codec_context
        context.thread_count = 1
        context.thread_type = "NONE"
        strict = "crccheck+bitstream+buffer"
        if context.codec.canonical_name not in _LOGS_ALL:
            strict += "+explode"
        context.options = {"err_detect": strict, "max_pixels": str(_MAX_PIXELS)}
        yield container, stream


def check_whole(source: Source) -> None:
    """Refuse a file that is shorter than its own header says.

    Raises:
        DecodeError: names both sizes.
    """
    with source.open() as file:
        expected = declared_size(file, source.size)
    if expected is not None and source.size < expected:
        raise DecodeError(
            source.name,
            f"cut short: {source.size:,} bytes of the {expected:,} that its header names",
        )


def _open(target: Any, source: Source, deadline: Deadline) -> InputContainer:
    try:
        return av.open(
            target,
            mode="r",
            container_options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"},
            metadata_errors="replace",
            buffer_size=32768 if source.data is not None else _READ_AHEAD,
            timeout=deadline.left(),
        )
    except (av.InvalidDataError, av.ArgumentError) as error:
        raise DecodeError(
            source.name, "not a video in a format that is read here, or its header is damaged"
        ) from error


def _main_stream(container: InputContainer, source: Source) -> VideoStream:
    videos = [stream for stream in container.streams.video if _kind(stream) == "video"]
    if not videos:
        kinds = sorted({_kind(s) for s in container.streams}, key=lambda kind: (" " in kind, kind))
        raise DecodeError(source.name, f"no video stream; holds {' and '.join(kinds) or 'nothing'}")
    best = container.streams.best("video")
    stream = best if best in videos else videos[0]
    if stream.codec_context is None:
        raise DecodeError(source.name, "no decoder for its video stream")
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return stream


def _kind(stream: Stream) -> str:
    if stream.disposition & Disposition.attached_pic:
        return "a cover picture"
    return "thumbnails" if stream.disposition & Disposition.timed_thumbnails else stream.type


def _not_empty(source: Source) -> Source:
    if not source.size:
        raise DecodeError(source.name, "empty file")
    return source


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{text[:1].lower()}{text[1:]}".strip()
