"""A section of a video as an MP4 that any browser plays: H.264 and AAC."""

import io
import os
from fractions import Fraction
from typing import Any

import av
import numpy as np

from tcmgc.video.file import Deadline, DecodeError, find, reasons
from tcmgc.video.pixels import display_turn, turn

MIME = "video/mp4"


def to_mp4(
    path: str | os.PathLike[str],
    start: float,
    end: float,
    *,
    height: int = 480,
    timeout: float | None = None,
) -> bytes:
    """Decode and re-encode from the last key frame before ``start``; the first picture is at or before it.

    The decoder's substitutes for damaged data are kept: the result is for viewing, not for features.
    If no sound can be decoded, the result has none.

    Args:
        path: local path or URI.
        start: seconds from the first frame.
        end: seconds; end of the section.
        height: higher pictures are scaled down to this height.
        timeout: seconds that it may take.

    Raises:
        DecodeError: not a video, nothing in this section can be decoded, or over time.
    """
    source = find(path)
    deadline = Deadline(source.name, timeout)
    sink = io.BytesIO()
    with (
        reasons(source.name),
        source.open() as file,
        av.open(file, metadata_errors="replace") as container,
    ):
        if not container.streams.video:
            raise DecodeError(source.name, "no video stream")
        with av.open(sink, "w", format="mp4") as output:
            _encode(container, output, start, end, height, deadline)
    return sink.getvalue()


def _encode(
    container: Any, output: Any, start: float, end: float, height: int, deadline: Deadline
) -> None:
    video = container.streams.video[0]
    sound = next(iter(container.streams.audio), None)
    base = float(video.start_time or 0) * float(video.time_base or 0)
    first, last = base + start, base + end
    if start > 0:
        container.seek(int(first / video.time_base), stream=video)
    target, speaker, origin = None, None, 0.0
    streams = [stream for stream in (video, sound) if stream is not None]
    for packet in container.demux(streams):
        deadline.check()
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        for frame in frames:
            if frame.time is None or frame.time < first - 1e-3 or frame.time > last:
                continue
            if isinstance(frame, av.VideoFrame):
                time, upright = frame.time, _upright(frame)
                if target is None:
                    origin = time
                    target = _picture_stream(output, video, upright, height)
                    if sound is not None:
                        speaker = _sound_stream(output, sound)
                picture = upright.reformat(target.width, target.height, "yuv420p")
                picture.pts = round((time - origin) / target.codec_context.time_base)
                picture.time_base = target.codec_context.time_base
                picture.pict_type = av.video.frame.PictureType.NONE
                output.mux(target.encode(picture))
            elif speaker is not None:
                encoder, resampler = speaker
                for part in resampler.resample(frame):
                    output.mux(encoder.encode(part))
        if (
            packet.stream is video
            and packet.dts is not None
            and packet.dts * video.time_base > last
        ):
            break
    if target is None:
        raise DecodeError(deadline.path, "no picture in this stretch could be decoded")
    output.mux(target.encode(None))
    if speaker is not None:
        output.mux(speaker[0].encode(None))


def _upright(frame: av.VideoFrame) -> av.VideoFrame:
    """The picture as shown, after rotation."""
    how = display_turn(frame)
    if not any(how):
        return frame
    turned = np.ascontiguousarray(turn(frame.to_ndarray(format="rgb24"), how))
    return av.VideoFrame.from_ndarray(turned, format="rgb24")


def _picture_stream(output: Any, video: Any, frame: Any, height: int) -> Any:
    rate = video.average_rate or video.guessed_rate or Fraction(25)
    stream = output.add_stream(
        "libx264", rate=rate, options={"preset": "ultrafast", "crf": "26", "tune": "zerolatency"}
    )
    scale = min(1.0, height / frame.height)
    stream.height = max(2, round(frame.height * scale / 2) * 2)
    stream.width = max(2, round(frame.width * scale / 2) * 2)
    stream.pix_fmt = "yuv420p"
    # Pictures may have any times: the rate is only a hint.
    stream.codec_context.time_base = Fraction(1, 90_000)
    return stream


def _sound_stream(output: Any, sound: Any) -> tuple[Any, Any] | None:
    try:
        rate = 48_000 if sound.rate not in (44_100, 48_000) else sound.rate
        encoder = output.add_stream("aac", rate=rate)
        encoder.layout = "stereo"
        return encoder, av.AudioResampler(format="fltp", layout="stereo", rate=rate)
    except (av.FFmpegError, ValueError):
        return None
