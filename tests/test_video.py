"""Frames equal a full decode's, whatever the file."""

import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video_clips import draw, expected, full_decode, make, real_clip

from tcmgc.video import DecodeError, probe, sample_frames
from tcmgc.video import sample as video

FULL, NEEDED = "full", "needed"
"""Whether everything was decoded, or only what the wanted frames depend on."""


def grid(fps: float, max_frames: int) -> Callable[[float], list[float]]:
    """The issue's rule, spelled out."""

    def instants(duration: float) -> list[float]:
        found = [k / fps for k in range(int(duration * fps) + 2) if k / fps < duration]
        if len(found) > max_frames:
            found = [found[int(i)] for i in np.linspace(0, len(found) - 1, max_frames)]
        return found

    return instants


@pytest.fixture
def decoded_fully(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every full decode."""
    calls: list[int] = []
    decode_all = video.decode_all
    monkeypatch.setattr(
        video, "decode_all", lambda *a, **k: (calls.append(1), decode_all(*a, **k))[1]
    )
    return calls


X264 = "libx264"
RANDOM_STEPS = np.cumsum(np.random.default_rng(0).integers(1, 30, 50)).tolist()
CLIPS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "h264 mp4": ("a.mp4", X264, {}, NEEDED),
    "h264 mkv": ("a.mkv", X264, {}, NEEDED),
    "h264 mov": ("a.mov", X264, {}, NEEDED),
    "h264 avi": ("a.avi", X264, {}, FULL),
    "h264 flv": ("a.flv", X264, {}, FULL),
    "h264 mts": ("a.mts", X264, {"format": "mpegts"}, FULL),
    "h264 raw": ("a.h264", X264, {}, FULL),
    "h264 keyframes": ("a.mp4", X264, {"keyframes": 8}, NEEDED),
    "h264 only keyframes": ("a.mp4", X264, {"keyframes": 1}, NEEDED),
    "h264 keyframes mkv": ("a.mkv", X264, {"keyframes": 8, "b_frames": 3}, NEEDED),
    "h264 no B": ("a.mp4", X264, {"b_frames": 0, "keyframes": 10}, NEEDED),
    "h264 pyramid": ("a.mp4", X264, {"options": {"x264-params": "bframes=8:b-adapt=0:b-pyramid=normal:ref=4"}}, NEEDED),
    "h264 open gop": ("a.mp4", X264, {"options": {"x264-params": "open-gop=1:keyint=8:min-keyint=1:bframes=3:b-adapt=0"}}, NEEDED),
    "h264 open gop mkv": ("a.mkv", X264, {"options": {"x264-params": "open-gop=1:keyint=8:min-keyint=1:bframes=3:b-adapt=0"}}, NEEDED),
    "h264 gradual refresh": ("a.mp4", X264, {"options": {"x264-params": "intra-refresh=1:keyint=8"}}, NEEDED),
    "h264 interlaced": ("a.mp4", X264, {"options": {"x264-params": "interlaced=1"}}, NEEDED),
    "h264 10 bit": ("a.mp4", X264, {"pixels": "yuv420p10le"}, NEEDED),
    "h264 444": ("a.mp4", X264, {"pixels": "yuv444p", "width": 97, "height": 65}, NEEDED),
    "h264 cavlc slices": ("a.mp4", X264, {"options": {"x264-params": "cabac=0:slices=3"}}, NEEDED),
    "h264 fragmented": ("a.mp4", X264, {"keyframes": 10, "container": {"movflags": "frag_keyframe+empty_moov"}}, NEEDED),
    "h264 index first": ("a.mp4", X264, {"container": {"movflags": "faststart"}}, NEEDED),
    "h264 one frame": ("a.mp4", X264, {"frames": 1}, NEEDED),
    "h264 sub-second": ("a.mp4", X264, {"frames": 7}, NEEDED),
    "h264 VFR": ("a.mp4", X264, {"times": RANDOM_STEPS, "base": Fraction(1, 100)}, NEEDED),
    "h264 VFR mkv": ("a.mkv", X264, {"times": RANDOM_STEPS, "base": Fraction(1, 100)}, FULL),
    "h264 VFR mkv no B": ("a.mkv", X264, {"times": RANDOM_STEPS, "base": Fraction(1, 100), "b_frames": 0}, NEEDED),
    "h264 late start mkv": ("a.mkv", X264, {"times": list(range(100, 150))}, NEEDED),
    "h264 NTSC": ("a.mp4", X264, {"rate": Fraction(30000, 1001)}, NEEDED),
    "h264 half a frame a second": ("a.mp4", X264, {"rate": Fraction(1, 2), "frames": 9}, NEEDED),
    "hevc mp4": ("a.mp4", "libx265", {"options": {"x265-params": "log-level=none"}}, NEEDED),
    "hevc keyframes": ("a.mp4", "libx265", {"options": {"x265-params": "log-level=none:keyint=8:min-keyint=4"}}, NEEDED),
    "hevc closed gop mkv": ("a.mkv", "libx265", {"options": {"x265-params": "log-level=none:keyint=8:open-gop=0"}}, NEEDED),
    "hevc 10 bit": ("a.mp4", "libx265", {"pixels": "yuv420p10le", "options": {"x265-params": "log-level=none"}}, NEEDED),
    "vp8 webm": ("a.webm", "libvpx", {"keyframes": 10}, NEEDED),
    "vp8 alternate references": ("a.webm", "libvpx", {"options": {"auto-alt-ref": "1", "lag-in-frames": "16"}}, NEEDED),
    "vp9 webm": ("a.webm", "libvpx-vp9", {"keyframes": 10}, NEEDED),
    "vp9 alternate references": ("a.webm", "libvpx-vp9", {"options": {"auto-alt-ref": "1", "lag-in-frames": "16"}}, NEEDED),
    "av1 10 bit": ("a.mkv", "libsvtav1", {"pixels": "yuv420p10le", "options": {"preset": "12"}}, NEEDED),
    "vp9 odd": ("a.webm", "libvpx-vp9", {"width": 101, "height": 67}, NEEDED),
    "av1 webm": ("a.webm", "libsvtav1", {"keyframes": 10, "options": {"preset": "12"}}, NEEDED),
    "av1 mp4": ("a.mp4", "libsvtav1", {"options": {"preset": "12"}}, NEEDED),
    "mpeg4 avi": ("a.avi", "mpeg4", {}, FULL),
    "mpeg4 avi B": ("a.avi", "mpeg4", {"b_frames": 2}, FULL),
    "mpeg4 mp4 B": ("a.mp4", "mpeg4", {"b_frames": 2}, NEEDED),
    "mpeg4 3gp": ("a.3gp", "mpeg4", {"width": 176, "height": 144}, NEEDED),
    "h263 3gp": ("a.3gp", "h263", {"width": 176, "height": 144}, NEEDED),
    "mpeg1 mpg": ("a.mpg", "mpeg1video", {}, FULL),
    "mpeg2 mpg": ("a.mpg", "mpeg2video", {"b_frames": 2}, FULL),
    "mpeg2 vob": ("a.vob", "mpeg2video", {"b_frames": 2}, FULL),
    "mpeg2 ts": ("a.ts", "mpeg2video", {"b_frames": 2}, FULL),
    "mpeg2 mkv": ("a.mkv", "mpeg2video", {"b_frames": 2}, NEEDED),
    "wmv2": ("a.wmv", "wmv2", {}, FULL),
    "wmv1": ("a.wmv", "wmv1", {}, FULL),
    "msmpeg4 asf": ("a.asf", "msmpeg4", {}, FULL),
    "flv1": ("a.flv", "flv", {}, FULL),
    "mjpeg avi": ("a.avi", "mjpeg", {"pixels": "yuvj420p"}, FULL),
    "mjpeg mov odd": ("a.mov", "mjpeg", {"pixels": "yuvj420p", "width": 75, "height": 33}, NEEDED),
    "ffv1 mkv odd": ("a.mkv", "ffv1", {"width": 33, "height": 75}, NEEDED),
    "prores mov": ("a.mov", "prores_ks", {"pixels": "yuv422p10le"}, NEEDED),
    "huffyuv avi": ("a.avi", "huffyuv", {"pixels": "yuv422p"}, FULL),
    "rawvideo nut": ("a.nut", "rawvideo", {}, FULL),
    "gif": ("a.gif", "gif", {"pixels": "rgb8"}, FULL),
    "wide": ("a.mp4", X264, {"width": 320, "height": 18}, NEEDED),
    "tall": ("a.mp4", X264, {"width": 16, "height": 300}, NEEDED),
    "tiny": ("a.mkv", "ffv1", {"width": 2, "height": 2}, NEEDED),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:deprecated pixel format")
@pytest.mark.parametrize("name", CLIPS)
def test_equals_a_full_decode(name: str, tmp_path: Path, decoded_fully: list[int]) -> None:
    file, codec, settings, how = CLIPS[name]
    path = make(tmp_path / file, codec, **settings)
    for fps, max_frames in ((1.0, 12), (6.0, 5), (100.0, 12)):
        decoded_fully.clear()
        frames = sample_frames(path, max_frames=max_frames, size=32, fps=fps)
        pixels, times = expected(path, grid(fps, max_frames), 32)
        np.testing.assert_array_equal(frames.timestamps, times)
        np.testing.assert_array_equal(frames.pixels, pixels)
        assert bool(decoded_fully) == (how == FULL)


@pytest.mark.parametrize(
    "name",
    ["h264 keyframes", "h264 open gop", "h264 gradual refresh", "hevc keyframes", "av1 webm"],
)
def test_each_frame_alone_equals_a_full_decode(name: str, tmp_path: Path) -> None:
    file, codec, settings, _ = CLIPS[name]
    path = make(tmp_path / file, codec, **settings)
    pixels, times, _ = full_decode(path, 24)
    for picture, time in zip(pixels, times, strict=True):
        frames = sample_frames(path, max_frames=1, size=24, start=time, end=time + 1e-3)
        np.testing.assert_array_equal(frames.pixels, picture[None])


@pytest.mark.parametrize("name", ["bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4"])
def test_real_clips_equal_a_full_decode(name: str, decoded_fully: list[int]) -> None:
    path = real_clip(name)
    frames = sample_frames(path)
    pixels, times = expected(path, grid(1.0, 12), 224)
    np.testing.assert_array_equal(frames.pixels, pixels)
    np.testing.assert_array_equal(frames.timestamps, times)
    assert frames.pixels.shape == (len(times), 3, 224, 224)
    assert frames.pixels.dtype == np.uint8
    assert frames.pixels.flags.c_contiguous
    assert not decoded_fully


def test_an_hour_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """In a process of its own, so that its peak is the decoder's."""
    path = make(
        tmp_path / "hour.mp4", width=640, height=360, frames=450, rate=Fraction(1, 8),
        options={"preset": "ultrafast"}, keyframes=50,
    )  # fmt: skip
    code = (
        "import resource, sys; from tcmgc.video import sample_frames\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "frames = sample_frames(sys.argv[1])\n"
        "assert len(frames) == 12 and frames.timestamps[-1] == 3592, frames.timestamps\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert int(out.stdout) < 80_000  # KiB; the 450 pictures would be 311 MB as RGB


def test_windows_and_samplers(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", frames=100, keyframes=10)
    for sampler, instants in {
        "uniform": lambda duration: [1.0, 2.0, 3.0],
        "middle": lambda duration: [0.75 + (i + 0.5) * 2.5 / 4 for i in range(4)],
    }.items():
        frames = sample_frames(path, 4, 16, start=0.75, end=3.25, sampler=sampler)
        pixels, times = expected(path, instants, 16)
        np.testing.assert_array_equal(frames.pixels, pixels)
        np.testing.assert_array_equal(frames.timestamps, times)
    one = sample_frames(path, 4, 16, start=0.75, end=3.25, sampler="random", seed=1)
    same = sample_frames(path, 4, 16, start=0.75, end=3.25, sampler="random", seed=1)
    other = sample_frames(path, 4, 16, start=0.75, end=3.25, sampler="random", seed=2)
    np.testing.assert_array_equal(one.timestamps, same.timestamps)
    assert (one.timestamps != other.timestamps).any()
    edges = 0.75 + np.arange(5) * 2.5 / 4
    assert (one.timestamps <= edges[1:]).all()
    assert (one.timestamps > edges[:-1] - 0.04).all()
    assert sample_frames(path, start=1.3, end=1.7).timestamps.tolist() == [1.28]
    with pytest.raises(DecodeError, match="begins at 4 s, the video ends at 4 s"):
        sample_frames(path, start=4.0)


def test_bytes_and_paths_give_the_same(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4")
    from_bytes = sample_frames(path.read_bytes(), size=16)
    for name in (path, str(path), f"file://{path}"):
        np.testing.assert_array_equal(sample_frames(name, size=16).pixels, from_bytes.pixels)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirror", [False, True])
def test_turned_as_the_display_matrix_says(degrees: int, mirror: bool, tmp_path: Path) -> None:
    def setup(stream: Any) -> None:
        stream.set_display_rotation(degrees, hflip=mirror)

    path = make(
        tmp_path / "a.mp4", "png", pixels="rgb24", frames=1, width=60, height=40, setup=setup
    )
    picture = np.rot90(draw(0, 60, 40), degrees // 90)  # both count against the clock
    if mirror:
        picture = picture[:, ::-1]
    height, width = picture.shape[:2]
    top, left = (height - 40) // 2, (width - 40) // 2
    shown = picture[top : top + 40, left : left + 40].transpose(2, 0, 1)
    np.testing.assert_array_equal(sample_frames(path, size=40).pixels, shown[None])
    info = probe(path)
    assert (info.width, info.height) == (width, height)


def test_near_pillows_bicubic() -> None:
    from PIL import Image

    path = real_clip("bigbuckbunny.mp4")
    mine = sample_frames(path).pixels
    with av.open(str(path)) as container:
        images = [frame.to_image() for frame in container.decode(video=0)][::25]
    for square, image in zip(mine, images, strict=True):
        scaled = image.resize((398, 224), Image.Resampling.BICUBIC).crop((87, 0, 311, 224))
        theirs = np.asarray(scaled).transpose(2, 0, 1).astype(int)
        assert np.abs(theirs - square).mean() < 2


def test_pixels_are_those_of_this_decoder_version() -> None:
    """If another PyAV gives other pixels, raise DECODER_VERSION, so that caches are not mixed."""
    import zlib

    frames = sample_frames(real_clip("carphone_pristine.mp4"), size=64)
    assert video.DECODER_VERSION == 2
    assert zlib.crc32(frames.pixels.tobytes()) == 1936120937


def test_a_lying_header_does_not_set_the_duration(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mkv")
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3  # Duration, a float of 8 bytes
    for claim in (500.0, 2e6):
        data[at : at + 8] = struct.pack(">d", claim)
        # A checksum that no longer holds would be another matter.
        at_crc = data.index(b"\x15\x49\xa9\x66")
        data[at_crc + 5 : at_crc + 6] = b"\xec"
        lying = tmp_path / "lying.mkv"
        lying.write_bytes(data)
        assert sample_frames(lying, size=16).timestamps.tolist() == [0.0, 1.0]
        assert probe(lying).duration == 2.0


def test_probe(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", rate=Fraction(30000, 1001), frames=60)
    info = probe(path)
    assert info.codec == "h264"
    assert (info.width, info.height, info.frames, info.size) == (96, 64, 60, path.stat().st_size)
    assert info.duration == pytest.approx(60 * 1001 / 30000)
    assert info.frame_rate == pytest.approx(30000 / 1001)


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(DecodeError("a.mp4", "no")))
    assert (error.path, error.reason, str(error)) == ("a.mp4", "no", "a.mp4: no")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_frames": 0}, "max_frames must be at least 1; got 0"),
        ({"fps": 0.0}, "fps must be above 0"),
        ({"start": -1.0}, "start is in seconds"),
        ({"start": 2.0, "end": 1.0}, "must come after start"),
        ({"size": 0}, "side of the square"),
    ],
)
def test_refuses_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_frames("nowhere.mp4", **settings)


def test_a_window_is_not_read_beyond_its_end(tmp_path: Path) -> None:
    from tcmgc.video.file import Deadline, find, open_video
    from tcmgc.video.timeline import scan

    path = make(tmp_path / "a.mkv", frames=200, keyframes=10)
    source = find(path)
    with open_video(source, Deadline("a.mkv", None)) as (container, stream):
        packets = scan(container, stream, source, Deadline("a.mkv", None), until=2)
    assert 50 < len(packets.pts) < 60
    frames = sample_frames(path, max_frames=4, size=16, fps=2, end=2)
    pixels, times = expected(path, lambda duration: [0.0, 0.5, 1.0, 1.5], 16)
    np.testing.assert_array_equal(frames.pixels, pixels)
    np.testing.assert_array_equal(frames.timestamps, times)


def test_threads_do_not_hear_of_each_others_damage(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    whole = make(tmp_path / "a.mkv", "ffv1").read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1

    def outcome(data: bytes) -> str:
        try:
            return str(len(sample_frames(data, size=32)))
        except DecodeError:
            return "damaged"

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(outcome, [whole, bytes(damaged)] * 20))
    assert outcomes == ["2", "damaged"] * 20
