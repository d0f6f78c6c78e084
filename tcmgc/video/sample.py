"""Frames of a video at chosen instants, identical to those of a full decode, or an error.

**Damage.** FFmpeg conceals it: lost blocks are filled with plausible data, missing references are
made up. Here a decoder's errors, its log, its own mark of a broken picture, a file shorter than its
header says, missing packets of a transport stream, and bytes that H.264 and HEVC forbid
all raise :class:`DecodeError`. Data that are not shown may be damaged: pictures that an edit list hides
and no other refers to, the leading pictures of an open group at the start of a cut, and
metadata messages (:class:`tcmgc.video.decode.Decoder`).
No decoder can detect everything: in entropy-coded data most flips turn one legal stream into another.
The shares of files with one flipped bit that gave different frames and no error were 3 % (H.264), 8 to 10 %
(MPEG-4, MPEG-2, WMV), 57 % (HEVC), 68 to 77 % (VP8, VP9), 0 to 1 % (AV1) and none (FFV1, which
carries checksums); of files with 512 zeroed bytes, 0 to 1 % (H.264, HEVC, MPEG-4, MPEG-2), 2 to 3 % (AV1),
5 % (WMV), 69 to 80 % (VP8, VP9): ``python benchmarks/damage.py --tries 150``. Where that matters,
compare the files with the checksums of their publisher.
Only data that the wanted frames depend on are decoded, so damage elsewhere in a file has no effect.

**Time.** Stamps that repeat, step back or restart are interpreted as FFmpeg's best effort does
(:mod:`tcmgc.video.clock`). ``python benchmarks/fuzz.py`` compares files of every kind with FFmpeg.

**Hangs.** ``timeout`` is checked between packets. A decoder that hangs or dies inside one packet can
only be ended from outside: decode in a separate process, as the pipeline's actors do.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import Float64, UInt8

from tcmgc.video.decode import decode_all, decode_needed, first_picture
from tcmgc.video.file import Deadline, DecodeError, Source, check_whole, find, open_video, reasons
from tcmgc.video.pixels import Kernel, Resize, display_turn, square
from tcmgc.video.protection import encryption
from tcmgc.video.sampling import Number, Sampler, check_sampling, on_screen, sample_instants
from tcmgc.video.timeline import Packets, Timeline, index_timeline, scan

__all__ = ["DECODER_VERSION", "DecodeError", "Frames", "VideoInfo", "probe", "sample_frames"]


DECODER_VERSION = 2
"""Incremented whenever the same call on the same file gives different pixels; part of caches' keys."""


@dataclass(frozen=True)
class Frames:
    """Pictures of one video."""

    pixels: UInt8[np.ndarray, "frames 3 size size"]
    """RGB."""
    timestamps: Float64[np.ndarray, " frames"]
    """When each of them is first shown, in seconds from the first frame of the video."""

    def __len__(self) -> int:
        return len(self.timestamps)


@dataclass(frozen=True)
class VideoInfo:
    """Information from a file's headers and packets, without decoding its pictures."""

    container: str
    codec: str
    width: int
    """Size as shown, after rotation."""
    height: int
    frames: int
    duration: float
    """Seconds from the first frame to the end of the last."""
    frame_rate: float
    """Frames per second on average."""
    size: int
    """Bytes."""
    lost_start: float = 0.0
    """Seconds at the start without a picture, since they refer to data that a cut removed: the clock
    begins at the first whole picture."""


def sample_frames(
    path_or_bytes: str | os.PathLike[str] | bytes,
    max_frames: int = 12,
    size: int = 224,
    fps: Number = 1.0,
    start: Number = 0.0,
    end: Number | None = None,
    sampler: Sampler = "uniform",
    timeout: Number | None = None,
    seed: int | Sequence[int] = 0,
    resize: Resize = "shortest",
    kernel: Kernel = "bicubic",
) -> Frames:
    """The frames on screen at the instants of :func:`tcmgc.video.sampling.sample_instants`.

    The frame on screen at t is the last one whose timestamp, counted from the first frame, is not
    later than t (see :mod:`tcmgc.video.clock` for stamps that do not ascend). The duration is that of
    the pictures found: the last timestamp plus the duration of the last frame; the container's
    header is not used. Frames are rotated by the display matrix and scaled to a square
    (:func:`tcmgc.video.pixels.square`).

    Packets are read first, without decoding. If container and codec guarantee that packets have
    their frames' timestamps, only data that the wanted frames depend on are decoded, and the
    frames are verified; otherwise the complete video is decoded. Memory: a few full-size frames,
    and up to 64 MiB of compressed packets. One thread.

    Args:
        path_or_bytes: local path, URI, or the file's content.
        size: side of the square, pixels.
        timeout: seconds that the file may take, checked between packets. It cannot stop a decoder
            that hangs inside one packet: run decoding in a process that can be ended.
        seed: decides the instants of the ``random`` sampler.
        resize: how frames are made square.
        kernel: interpolation of scaling.

    Raises:
        DecodeError: not a video, truncated, damaged, without pictures in the window, or over time.
        ValueError: a setting out of range.
    """
    check_sampling(max_frames=max_frames, fps=fps, start=start, end=end, sampler=sampler)
    if size < 1:
        raise ValueError(f"size is the side of the square in pixels, at least 1; got {size}")
    source = find(path_or_bytes)
    deadline = Deadline(source.name, timeout)
    scaler = VideoReformatter()

    def convert(frame):  # type: ignore[no-untyped-def]
        try:
            return square(frame, size, scaler, resize, kernel)
        except ValueError as error:
            raise DecodeError(source.name, str(error)) from error

    def places(timeline: Timeline) -> list[int]:
        instants = sample_instants(
            timeline.duration,
            max_frames=max_frames,
            fps=fps,
            start=start,
            end=end,
            sampler=sampler,
            seed=seed,
        )
        return on_screen(timeline.times, instants).tolist()

    with reasons(source.name), _protection_named(source):
        packets, timeline = _scan(source, deadline, end)
        wanted = places(timeline) if start < timeline.duration else []
        pixels = None
        if packets.order is not None and wanted:
            pixels = decode_needed(source, packets, wanted, convert, deadline)
        while pixels is None or not pixels.keys() >= set(wanted):
            if packets.order is None or wanted:
                timeline, pixels = decode_all(source, packets, wanted, convert, deadline, until=end)
            if start >= timeline.duration:
                raise DecodeError(
                    source.name,
                    f"the clip begins at {start:g} s, the video ends at {timeline.duration:g} s",
                )
            wanted = places(timeline)
    return Frames(np.stack([pixels[place] for place in wanted]), timeline.times[wanted])


def probe(
    path_or_bytes: str | os.PathLike[str] | bytes, timeout: Number | None = None
) -> VideoInfo:
    """Information from a video's headers, checked by decoding its first picture.

    For MP4 and MOV the index is read; for all other formats, all packets.

    Raises:
        DecodeError: as :func:`sample_frames`, but damage inside later pictures is not detected.
    """
    source = find(path_or_bytes)
    deadline = Deadline(source.name, timeout)
    with reasons(source.name), _protection_named(source):
        check_whole(source)
        with open_video(source, deadline) as (container, stream):
            kind, codec = container.format.name, stream.codec_context.codec.canonical_name
            timeline = index_timeline(container, stream)
            frame, from_first = first_picture(container, stream, deadline)
        lost = 0.0
        if timeline is None or not from_first:
            packets, timeline = _scan(source, deadline)
            lost = packets.hide_before(frame.pts)
            if lost:
                timeline = packets.timeline()
    swap, *_ = display_turn(frame)
    width, height = (frame.height, frame.width) if swap else (frame.width, frame.height)
    return VideoInfo(
        container=kind,
        codec=codec,
        width=width,
        height=height,
        frames=len(timeline.times),
        duration=timeline.duration,
        frame_rate=len(timeline.times) / timeline.duration,
        size=source.size,
        lost_start=lost,
    )


@contextlib.contextmanager
def _protection_named(source: Source) -> Iterator[None]:
    """Report a decoding error of an encrypted file as encryption."""
    try:
        yield
    except (DecodeError, av.FFmpegError) as error:
        cut = isinstance(error, DecodeError) and error.reason.startswith("cut short")
        scheme = None if cut else encryption(source)
        if scheme is None:
            raise
        raise DecodeError(
            source.name, f"encrypted ({scheme}): protected video cannot be decoded without its key"
        ) from error


def _scan(
    source: Source, deadline: Deadline, until: Number | None = None
) -> tuple[Packets, Timeline]:
    check_whole(source)
    with open_video(source, deadline) as (container, stream):
        packets = scan(container, stream, source, deadline, until)
    try:
        return packets, packets.timeline()
    except ValueError as error:
        raise DecodeError(source.name, str(error)) from error
