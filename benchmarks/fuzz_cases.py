"""The files of fuzz.py: irregular videos, each determined by a random generator."""

import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import video_bytes as bytes_of
from video_bytes import numbered, remuxed

LIMIT = 60
"""Seconds that a program may take."""
X264, X265 = "libx264", "libx265"
SETTINGS: dict[str, dict[str, Any]] = {
    X264: {"options": {"preset": "ultrafast", "x264-params": "bframes=2:b-adapt=0"}},
    X265: {"options": {"preset": "ultrafast", "x265-params": "log-level=none:bframes=2:pools=1"}},
    "libsvtav1": {"options": {"preset": "12", "svtav1-params": "lp=1"}},
    "libvpx": {"options": {"deadline": "realtime", "cpu-used": "8"}},
    "libvpx-vp9": {"options": {"deadline": "realtime", "cpu-used": "8"}},
    "mjpeg": {"pixels": "yuvj420p"},
    "huffyuv": {"pixels": "yuv422p"},
    "prores_ks": {"pixels": "yuv422p10le"},
    "gif": {"pixels": "rgb8"},
}
PAIRS = {
    "mp4": [X264, X265, "libsvtav1", "mpeg4", "mjpeg"],
    "mov": [X264, "mpeg4", "prores_ks", "mjpeg"],
    "mkv": [X264, X265, "libvpx", "libvpx-vp9", "libsvtav1", "mpeg4", "mpeg2video", "ffv1"],
    "webm": ["libvpx", "libvpx-vp9", "libsvtav1"],
    "avi": [X264, "mpeg4", "mjpeg", "msmpeg4", "huffyuv"],
    "flv": [X264, "flv"],
    "ts": [X264, X265, "mpeg2video"],
    "m2ts": [X264, "mpeg2video"],
    "mpg": ["mpeg1video", "mpeg2video"],
    "vob": ["mpeg2video"],
    "wmv": ["wmv1", "wmv2"],
    "3gp": ["mpeg4", X264],
    "h264": [X264],
    "nut": [X264, "mpeg4"],
    "gif": ["gif"],
}
REORDERED = ("mpeg4", "mpeg2video", "mpeg1video")
STAMPED = ("mp4", "mkv", "flv", "ts")
FORMATS = {"ts": "mpegts", "m2ts": "mpegts", "vob": "vob"}


@dataclass
class Case:
    """A file and its known properties."""

    path: Path
    codec: str
    truth: list[float] | None = None
    """When its pictures are shown, if the builder knows better than ffprobe."""
    whole: Path | None = None
    """The undamaged file."""


Builder = Callable[[random.Random, Path], Case]


def made(rng: random.Random, folder: Path, name: str, suffix: str, codec: str, **more: Any) -> Case:
    settings: dict[str, Any] = {"frames": rng.randint(25, 60), "rate": rng.choice([10, 24, 25, 30])}
    settings |= SETTINGS.get(codec, {}) | {"format": FORMATS.get(suffix)}
    if codec in REORDERED:
        settings |= {"b_frames": rng.choice([0, 2]), "rate": rng.choice([24, 25, 30])}
    if codec == X264:
        settings["b_frames"] = rng.choice([0, 2])
        params = f"bframes={settings['b_frames']}:b-adapt=0:scenecut=0"
        params += rng.choice(["", ":open-gop=1:min-keyint=2", ":intra-refresh=1", ":interlaced=1"])
        settings["options"] = settings["options"] | {"x264-params": params}
    settings["keyframes"] = rng.choice([6, 12, 250])
    settings |= more
    return Case(numbered(folder / f"{name}.{suffix}", codec, **settings), codec)


def pair(rng: random.Random, suffixes: list[str] | tuple[str, ...]) -> tuple[str, str]:
    suffix = rng.choice(suffixes)
    return suffix, rng.choice(PAIRS[suffix])


def plain(rng: random.Random, folder: Path) -> Case:
    return made(rng, folder, "a", *pair(rng, list(PAIRS)))


def unsteady(rng: random.Random) -> dict[str, Any]:
    """Frames at intervals of 10 to 400 ms; a tick is 10 ms."""
    gaps = [rng.choice([1, 2, 4, 10, 40]) for _ in range(60)]
    times = np.cumsum([0, *gaps]).tolist()
    return {"times": times, "base": Fraction(1, 100), "frames": rng.randint(30, 60)}


def variable(rng: random.Random, folder: Path) -> Case:
    suffix, codec = pair(rng, ["mp4", "mkv", "webm", "flv", "ts", "mov"])
    if suffix == "ts" and codec == "mpeg2video":
        codec = X264  # MPEG-2 has a fixed rate
    return made(rng, folder, "a", suffix, codec, **unsteady(rng))


def bad_stamps(rng: random.Random, folder: Path) -> Case:
    suffix = rng.choice(STAMPED)
    codec = rng.choice([one for one in PAIRS[suffix] if one in (X264, "mpeg4", "libvpx", "flv")])
    case = made(rng, folder, "a", suffix, codec, **unsteady(rng))
    back = rng.choice([0, 1, 3, 50])  # ticks before the previous frame; 0: the same time

    def change(times: list[int]) -> list[int]:
        ticks = {"mp4": 1, "ts": 900}.get(suffix, 10)
        order, new = sorted(times), list(times)
        for place in rng.sample(range(2, len(times)), max(1, len(times) // 100)):
            before = order[max(order.index(times[place]) - 1, 0)]
            new[place] = max(before - back * ticks, order[0])
        return new

    case.path.write_bytes(bytes_of.with_times(case.path.read_bytes(), suffix, change))
    return case


def empty_chunks(rng: random.Random, folder: Path) -> Case:
    case = made(rng, folder, "a", *pair(rng, ["avi"]))
    holes = {rng.randrange(25): rng.randint(1, 9) for _ in range(rng.randint(1, 8))}
    case.path.write_bytes(bytes_of.avi_with_holes(case.path.read_bytes(), holes))
    return case


def cut(rng: random.Random, folder: Path) -> Case:
    """A cut by ``ffmpeg -c copy``, into the same or another container."""
    suffix, codec = pair(rng, ["mp4", "mkv", "ts", "flv"])
    if codec in ("libsvtav1", "mjpeg"):
        codec = X264  # ffmpeg 5 shows what edit lists hide of these
    params = f"bframes={rng.choice([0, 2, 3])}:b-adapt=0:scenecut=0:repeat-headers=1"
    params += rng.choice(
        ["", ":open-gop=1:min-keyint=2", ":b-pyramid=normal:open-gop=1:min-keyint=2"]
    )
    more: dict[str, Any] = {"frames": 60, "keyframes": rng.choice([6, 12, 24])}
    if codec == X264:
        more["options"] = {"preset": "veryfast", "x264-params": params}
    case = made(rng, folder, "a", suffix, codec, **more)
    target = folder / f"b.{rng.choice(['mp4', 'mkv', suffix])}"
    start = ["-ss", f"{rng.uniform(0.2, 1.2):.2f}"]
    words = [*start, "-i", case.path] if rng.random() < 0.5 else ["-i", case.path, *start]
    length = ["-t", f"{rng.uniform(0.4, 2):.2f}"] if rng.random() < 0.5 else []
    ffmpeg(*words, *length, "-c", "copy", target)
    return Case(target, codec)


def joined(rng: random.Random, folder: Path) -> Case:
    """Two concatenated files; all clocks and counters restart."""
    suffix = rng.choice(["ts", "m2ts", "vob", "mpg", "webm", "mkv", "h264"])
    codec = rng.choice(PAIRS[suffix] if suffix != "mkv" else [X264, "libvpx"])
    rate, counts = rng.choice([10, 25]), [rng.randint(20, 50) for _ in range(2)]
    more: dict[str, Any] = {"rate": rate}
    if codec == X264:
        more["options"] = {"preset": "ultrafast", "x264-params": "bframes=2:b-adapt=0"}
    if suffix == "h264" or codec in ("mpeg1video", "mpeg2video"):
        more["rate"] = rate = 25  # the default of raw streams; allowed by MPEG
    parts = [
        made(rng, folder, f"part{n}", suffix, codec, frames=count, first=n * counts[0], **more)
        for n, count in enumerate(counts)
    ]
    path = folder / f"a.{suffix}"
    path.write_bytes(b"".join(part.path.read_bytes() for part in parts))
    return Case(path, codec, [n / rate for n in range(sum(counts))])


def sizes(rng: random.Random, folder: Path) -> Case:
    """Placeholders for sizes, and other data at the end."""
    suffix, codec = pair(rng, ["avi", "mp4", "mov", "mkv"])
    case = made(rng, folder, "a", suffix, codec)
    data = case.path.read_bytes()
    if suffix == "avi":
        size = rng.choice([0, 0x7FFFFFFF, 0xFFFFFFFF, len(data)])
        data = data[:4] + size.to_bytes(4, "little") + data[8:]
    else:
        data += rng.choice(
            [b"\r\n--boundary--\r\n", b"TAG" + bytes(125), bytes(40), b"abcdefghijkl"]
        )
    case.path.write_bytes(data)
    if suffix == "avi" and rng.random() < 0.3:
        case.path.write_bytes(ffmpeg("-i", case.path, "-c", "copy", "-f", "avi", "-"))
    return case


def edits(rng: random.Random, folder: Path) -> Case:
    case = made(rng, folder, "a", "mp4", rng.choice([X264, "mpeg4"]), rate=25, frames=60)
    data = case.path.read_bytes()
    if b"elst" not in data:
        return case
    scale, media = 1000, 12800
    first = int.from_bytes(data[(at := data.index(b"elst") + 16) : at + 4])
    begin = rng.randrange(0, 40)
    length = rng.randrange(10, 60 - begin) if rng.random() < 0.7 else 60 - begin
    with av.open(str(case.path)) as container:
        base = container.streams.video[0].time_base
        media = base.denominator if base else media
    edit = (length * scale // 25, begin * media // 25 + first)
    case.path.write_bytes(bytes_of.with_edits(data, [edit]))
    return case


def messages(rng: random.Random, folder: Path) -> Case:
    """Malformed or private metadata messages."""
    codec = rng.choice([X264, X265, "mjpeg"])
    suffix = "avi" if codec == "mjpeg" else rng.choice(["mp4", "mkv"])
    case = made(rng, folder, "a", suffix, codec)
    if codec == "mjpeg":
        note = rng.choice([b"\xff\xe0\0\4AV", b"\xff\xe1\0\x0eExif\0\0garb", b"\xff\xe4\0\7maker"])
        target = remuxed(case.path, folder / "b.avi", lambda n, d: d[:2] + note + d[2:])
    else:
        head = {X264: [b"\x06", b"\x18", b"\x7e", b"\x0c"], X265: [b"\x4e\x01", b"\x60\x01"]}[codec]
        body = rng.choice(
            [b"\5\xff\x20abc\x80", b"\5\x10" + bytes(20) + b"\x80", b"\x89\x30\0\1\x80"]
        )
        unit = rng.choice(head) + body
        target = remuxed(
            case.path,
            folder / f"b.{suffix}",
            lambda n, d: len(unit).to_bytes(4) + unit + d if n % 5 else d,
        )
    return Case(target, codec)


def damaged(how: Callable[[random.Random, bytearray], bytes]) -> Builder:
    def build(rng: random.Random, folder: Path) -> Case:
        suffixes = ["ts", "m2ts"] if how is lost_packets else [s for s in PAIRS if s != "gif"]
        case = made(rng, folder, "a", *pair(rng, suffixes))
        path = folder / f"damaged{case.path.suffix}"
        path.write_bytes(how(rng, bytearray(case.path.read_bytes())))
        return Case(path, case.codec, whole=case.path)

    return build


def truncated(rng: random.Random, data: bytearray) -> bytes:
    return bytes(data[: rng.randrange(len(data) // 10, len(data))])


def flipped(rng: random.Random, data: bytearray) -> bytes:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def zeroed(rng: random.Random, data: bytearray) -> bytes:
    at, count = rng.randrange(len(data)), rng.choice([16, 64, 512])
    data[at : at + count] = bytes(min(count, len(data) - at))
    return bytes(data)


def lost_packets(rng: random.Random, data: bytearray) -> bytes:
    width = 188 if data[188] == 0x47 else 192
    at = rng.randrange(12, len(data) // width) * width  # a file without its beginning is valid
    return bytes(data[:at] + data[at + width * rng.randint(1, 4) :])


GOOD: dict[str, Builder] = {
    "codecs and containers": plain,
    "variable rate": variable,
    "bad stamps": bad_stamps,
    "empty AVI chunks": empty_chunks,
    "cut with -c copy": cut,
    "joined": joined,
    "sizes, tails": sizes,
    "edit lists": edits,
    "messages, notes": messages,
}
BAD: dict[str, Builder] = {
    "cut short": damaged(truncated),
    "a bit flipped": damaged(flipped),
    "a block of zeros": damaged(zeroed),
    "packets lost (ts)": damaged(lost_packets),
}


def ffmpeg(*words: Any) -> bytes:
    run = ["ffmpeg", "-y", "-hide_banner", "-loglevel", "quiet", *map(str, words)]
    return subprocess.run(run, capture_output=True, check=False, timeout=LIMIT).stdout
