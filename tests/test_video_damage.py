"""Files that are not videos, not whole, or not right: an error with a reason, never a made-up frame."""

import io
import os
import random
import time
import wave
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from video_clips import draw, expected, make, real_clip

from tcmgc.video import DecodeError, probe, sample_frames
from tcmgc.video.declared_size import declared_size


def audio(path: Path, codec: str) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=44100)
        for step in range(20):
            sound = np.zeros((1, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, step * 1024
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def sound(path: Path) -> Path:
    with wave.open(str(path), "w") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(8000))
    return path


def picture(path: Path) -> Path:
    sink = io.BytesIO()
    Image.fromarray(draw(0, 64, 48)).save(sink, "JPEG")
    return written(path, sink.getvalue())


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


NOT_VIDEOS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (lambda d: written(d / "a.mp4", b""), "empty file"),
    "missing": (lambda d: d / "a.mp4", "no such file or directory"),
    "a folder": (lambda d: d, "a folder"),
    "a pipe": (lambda d: pipe(d / "a.mp4"), "not a regular file"),
    "a device": (lambda d: Path("/dev/zero"), "not a regular file"),
    "a name with a null": (lambda d: Path("a\0b"), "null byte"),
    "zeros": (lambda d: written(d / "a.mp4", bytes(50_000)), "not a video"),
    "text": (lambda d: written(d / "a.txt", b"some words\n" * 999), "not a video"),
    "text by a video's name": (lambda d: written(d / "a.mp4", b"some words\n" * 999), "not a video"),
    "text that FFmpeg would draw": (lambda d: written(d / "a.nfo", b"\x1b[31mred\n" * 99), "not a video"),
    "a web page": (lambda d: written(d / "a.mp4", b"<!DOCTYPE html><p>404"), "not a video"),
    "a play list": (lambda d: written(d / "a.mp4", b"#EXTM3U\n#EXTINF:9,\n/b.ts\n"), "not a video"),
    "a list of files": (lambda d: written(d / "a.mp4", b"ffconcat version 1.0\nfile /b.ts\n"), "not a video"),
    "a picture": (lambda d: picture(d / "a.mp4"), "not a video"),
    "a sound": (lambda d: sound(d / "a.wav"), "no video stream; holds audio"),
    "a sound in MP4": (lambda d: audio(d / "a.mp4", "aac"), "no video stream; holds audio"),
    "a sound in Matroska": (lambda d: audio(d / "a.mkv", "aac"), "no video stream; holds audio"),
    "absurd sizes": (lambda d: written(d / "a.gif", b"GIF89a" + b"\xff" * 4 + bytes(99)), "damaged: Picture size 65535x65535"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_VIDEOS)
@pytest.mark.parametrize("read", [sample_frames, probe])
def test_not_a_video(name: str, read: Callable[[Path], Any], tmp_path: Path) -> None:
    build, reason = NOT_VIDEOS[name]
    path = build(tmp_path)
    with pytest.raises(DecodeError) as caught:
        read(path)
    assert reason in caught.value.reason
    assert caught.value.path == str(path)


@pytest.mark.parametrize("seed", range(10))
def test_random_bytes(seed: int) -> None:
    with pytest.raises(DecodeError, match="not a video"):
        sample_frames(random.Random(seed).randbytes(20_000))


CUT = {
    "a.mp4": ("libx264", {}),
    "first.mp4": ("libx264", {"container": {"movflags": "faststart"}}),
    "pieces.mp4": ("libx264", {"keyframes": 9, "container": {"movflags": "frag_keyframe+empty_moov"}}),
    "a.mov": ("mpeg4", {}),
    "a.3gp": ("mpeg4", {}),
    "a.mkv": ("libx264", {}),
    "a.webm": ("libvpx", {}),
    "a.avi": ("mpeg4", {}),
    "a.wmv": ("wmv2", {}),
    "a.ts": ("libx264", {}),
    "a.gif": ("gif", {"pixels": "rgb8"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CUT)
def test_cut_short(name: str, tmp_path: Path) -> None:
    codec, settings = CUT[name]
    path = make(tmp_path / name, codec, **settings)
    sample_frames(path, size=16)
    data = path.read_bytes()
    for share in (0.03, 0.3, 0.6, 0.9, 0.999):
        cut = data[: int(len(data) * share)]
        if name == "a.ts" and len(cut) % 188 == 0:
            cut = cut[:-1]  # a stream cut between packets is a shorter stream
        with pytest.raises(DecodeError):
            sample_frames(cut, size=16)
    if name != "a.gif":  # its last byte is a mark after the last picture
        with pytest.raises(DecodeError, match="cut short"):
            sample_frames(data[:-1], size=16)


def test_what_files_say_of_their_size(tmp_path: Path) -> None:
    for name in ("a.mp4", "pieces.mp4", "a.mkv", "a.avi", "a.wmv", "a.ts"):
        codec, settings = CUT[name]
        data = make(tmp_path / name, codec, **settings).read_bytes()
        assert declared_size(io.BytesIO(data), len(data)) == len(data)
        assert (declared_size(io.BytesIO(data[:-5]), len(data) - 5) or 0) > len(data) - 5
        if name != "a.ts":
            # What was appended by others is no harm.
            assert (declared_size(io.BytesIO(data + bytes(9)), len(data) + 9) or 0) <= len(data) + 9
    data = make(tmp_path / "a.mpg", "mpeg2video").read_bytes()
    assert declared_size(io.BytesIO(data), len(data)) is None


def harm(path: Path, tries: int, seed: int = 0) -> Counter[str]:
    """Flip one bit at a time, everywhere: what comes of it."""
    data = path.read_bytes()
    right = sample_frames(data, size=32)
    rng, outcomes = random.Random(seed), Counter[str]()
    for _ in range(tries):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            frames = sample_frames(bytes(flipped), size=32, timeout=20)
        except DecodeError:
            outcomes["noticed"] += 1
        else:
            same = (
                frames.pixels.shape == right.pixels.shape and (frames.pixels == right.pixels).all()
            )
            outcomes["harmless" if same else "unnoticed"] += 1
    return outcomes


@pytest.mark.parametrize(
    ("name", "codec", "settings", "least"),
    [
        ("a.mkv", "ffv1", {}, 1.0),  # carries checksums
        ("a.mp4", "libx264", {}, 0.85),
        ("a.mp4", "mpeg4", {}, 0.75),
        ("a.mpg", "mpeg2video", {"b_frames": 2}, 0.75),
    ],
)
def test_flipped_bits_are_noticed_where_the_code_has_room_for_it(
    name: str, codec: str, settings: dict[str, Any], least: float, tmp_path: Path
) -> None:
    """No decoder can notice all: a flip may turn one legal stream into another (see tcmgc.video)."""
    path = make(tmp_path / name, codec, width=160, height=120, **settings)
    outcomes = harm(path, 100)
    assert outcomes["noticed"] >= 20
    assert outcomes["noticed"] >= least * (outcomes["noticed"] + outcomes["unnoticed"])


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_block_of_zeros_is_noticed(codec: str, tmp_path: Path) -> None:
    """Decoders read over it; but neither H.264 nor HEVC may hold three zero bytes in a row."""
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = make(tmp_path / "a.mp4", codec, width=160, height=120, options=options)
    data = path.read_bytes()
    with av.open(str(path)) as container:
        # The first begins with a message of the encoder, which is no picture.
        packets = [p for p in container.demux(video=0) if p.size > 400][1:]
    assert len(packets) > 5
    for packet in packets:
        assert packet.pos is not None
        zeroed = bytearray(data)
        zeroed[packet.pos + 200 : packet.pos + 216] = bytes(16)
        with pytest.raises(DecodeError, match="damaged"):
            sample_frames(bytes(zeroed), size=32, fps=25, max_frames=50)


def test_a_missing_reference_is_not_made_up(tmp_path: Path) -> None:
    """Plain FFmpeg drops pictures without an error."""
    options = {"x265-params": "log-level=none:keyint=60:bframes=0"}
    units = make(tmp_path / "a.hevc", "libx265", options=options).read_bytes().split(b"\0\0\0\1")
    slices = [i for i, unit in enumerate(units) if unit and unit[0] >> 1 == 1]  # TRAIL_R
    del units[slices[20]]
    data = b"\0\0\0\1".join(units)
    with av.open(io.BytesIO(data)) as container:
        assert list(container.decode(video=0))
    with pytest.raises(DecodeError, match="damaged"):
        sample_frames(data, size=32)


def test_a_recording_that_begins_in_the_middle_begins_at_its_first_key_frame(
    tmp_path: Path,
) -> None:
    options = {"x264-params": "keyint=20:scenecut=0"}
    data = make(tmp_path / "a.ts", frames=60, options=options).read_bytes()
    path = written(tmp_path / "late.ts", data[188 * 14 :])
    frames = sample_frames(path, size=32)
    pixels, times = expected(path, lambda duration: [0.0, 1.0], 32)
    np.testing.assert_array_equal(frames.pixels, pixels)
    np.testing.assert_array_equal(frames.timestamps, times)


def test_hidden_frames_of_an_edit_list_stay_hidden(tmp_path: Path) -> None:
    path = make(
        tmp_path / "a.mp4",
        times=list(range(-12, 38)),
        container={"avoid_negative_ts": "disabled"},
    )
    frames = sample_frames(path, size=32, fps=5)
    pixels, times = expected(path, lambda duration: [k / 5 for k in range(8)], 32)
    np.testing.assert_array_equal(frames.pixels, pixels)
    np.testing.assert_array_equal(frames.timestamps, times)


def test_a_size_that_changes_on_the_way(tmp_path: Path) -> None:
    first = make(tmp_path / "a.h264", frames=30).read_bytes()
    second = make(tmp_path / "b.h264", frames=30, width=64, height=96).read_bytes()
    path = written(tmp_path / "c.h264", first + second)
    frames = sample_frames(path, size=32)
    pixels, _ = expected(path, lambda duration: [0.0, 1.0, 2.0], 32)
    np.testing.assert_array_equal(frames.pixels, pixels)


def test_time_is_limited() -> None:
    path = real_clip("bigbuckbunny.mp4")
    begin = time.monotonic()
    with pytest.raises(DecodeError, match=r"took more than the 0.02 s allowed"):
        sample_frames(path, timeout=0.02)
    assert time.monotonic() - begin < 5


def test_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4")
    assert av.logging.get_level() is None
    sample_frames(path, size=16)
    assert av.logging.get_level() is None
    assert av.logging.get_skip_repeated()
