"""What people's files have gone through, each picture with its number on it."""

import itertools
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import video_bytes
from video_bytes import avi_with_holes, number, numbered, remuxed, with_edits, with_times

from tcmgc.video import DecodeError, probe, sample_frames

X264, X265 = "libx264", "libx265"
QUIET = {"x265-params": "log-level=none"}
OPEN = {
    "x264-params": "open-gop=1:keyint=12:min-keyint=2:bframes=3:b-adapt=0:scenecut=0:repeat-headers=1"
}


def seen(source: Path | bytes, fps: float = 5.0, **window: float) -> list[int]:
    frames = sample_frames(source, 1000, 48, fps, **window)  # type: ignore[arg-type]
    return [number(picture) for picture in frames.pixels]


def on_screen(times: Sequence[float], instants: Sequence[float]) -> list[int]:
    """The last picture whose time is not later, by plain search."""
    return [max(i for i, time in enumerate(times) if time <= at) for at in instants]


def grid(fps: float, start: float, end: float) -> list[float]:
    return [n / fps for n in range(1000) if start <= n / fps < end]


GAPS = np.random.default_rng(1).choice([2, 4, 20, 40], 99)
STAMPS = [0, *np.cumsum(GAPS).tolist()]


def with_bad_stamps(kind: str, step: int) -> Callable[[list[int]], list[int]]:
    """Pictures 30 and 70 come at, or before, the time of the one before them."""
    tick = {"mkv": 10, "flv": 10, "ts": 900}[kind]

    def change(times: list[int]) -> list[int]:
        order, new = sorted(times), list(times)
        for place in (30, 70):
            new[times.index(order[place])] = order[place - 1] - step * tick
        return new

    return change


@pytest.mark.parametrize("kind", ["mkv", "flv", "ts"])
@pytest.mark.parametrize("step", [0, 1, 60])
def test_a_variable_rate_with_a_bad_stamp_in_fifty(kind: str, step: int, tmp_path: Path) -> None:
    format = "mpegts" if kind == "ts" else None
    path = numbered(
        tmp_path / f"a.{kind}",
        frames=100,
        times=STAMPS,
        base=Fraction(1, 100),
        b_frames=0,
        format=format,
    )
    assert seen(path) == on_screen([s / 100 for s in STAMPS], grid(5, 0, len(seen(path)) / 5))
    data = with_times(path.read_bytes(), kind, with_bad_stamps(kind, step))
    stamps = list(STAMPS)
    for place in (30, 70):
        stamps[place] = STAMPS[place - 1] - step
    times = [stamp / 100 for stamp in stamps]
    found = seen(data)
    assert found == on_screen(times, grid(5, 0, len(found) / 5))
    assert len(found) >= 5 * times[-1]
    for start, end in ((3, 6), (STAMPS[68] / 100, STAMPS[72] / 100), (times[-5], times[-1] + 9)):
        instants = grid(5, start, min(end, times[-1] + 0.005))
        assert seen(data, start=start, end=end)[: len(instants)] == on_screen(times, instants)
    assert probe(data).duration == pytest.approx(len(found) / 5, abs=0.41)


def test_repeated_decoding_times_in_an_mp4(tmp_path: Path) -> None:
    path = numbered(tmp_path / "a.mp4", frames=100, times=STAMPS, base=Fraction(1, 100), b_frames=0)
    data = video_bytes.mp4_with_repeated_decoding_times(path.read_bytes(), [30, 70])
    times = [STAMPS[n - (n in (30, 70))] / 100 for n in range(100)]
    found = seen(data)
    assert found == on_screen(times, grid(5, 0, len(found) / 5))


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "flv"])
def test_bad_stamps_among_b_frames_move_no_other_picture_by_much(kind: str, tmp_path: Path) -> None:
    options = {"x264-params": "bframes=2:b-adapt=0"}
    path = numbered(
        tmp_path / f"a.{kind}", frames=100, times=STAMPS, base=Fraction(1, 100), options=options,
        format="mpegts" if kind == "ts" else None,
    )  # fmt: skip
    right = seen(path)

    def change(times: list[int]) -> list[int]:
        order, new = sorted(times), list(times)
        for place in (30, 70):
            new[times.index(order[place])] = order[place - 1]
        return new

    found = seen(with_times(path.read_bytes(), kind, change))
    assert abs(len(found) - len(right)) <= 1
    assert max(abs(a - b) for a, b in zip(found, right, strict=False)) <= 2


def test_more_pictures_than_ticks(tmp_path: Path) -> None:
    path = numbered(tmp_path / "a.mkv", frames=500, rate=2000)
    assert probe(path).duration == pytest.approx(0.25, abs=0.001)
    for n, found in enumerate(seen(path, fps=100)):
        assert abs(found - 20 * n) <= 1


@pytest.mark.parametrize(
    ("codec", "settings"),
    [
        (X264, {"options": {"x264-params": "bframes=2:b-adapt=0"}}),
        (X264, {"b_frames": 0}),
        ("mpeg4", {"b_frames": 2}),
        ("mpeg4", {}),
        ("mjpeg", {"pixels": "yuvj420p"}),
        ("huffyuv", {"pixels": "yuv422p"}),
    ],
)
@pytest.mark.filterwarnings("ignore:deprecated pixel format")
def test_empty_chunks_of_an_avi_are_time(
    codec: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    path = numbered(tmp_path / "a.avi", codec, frames=100, **settings)
    assert seen(path, fps=1) == [0, 25, 50, 75]
    data = avi_with_holes(path.read_bytes(), dict.fromkeys(range(2, 100, 3), 2))
    assert seen(data, fps=1) == [0, 15, 30, 45, 60, 75, 90]
    assert probe(data).duration == pytest.approx(100 / 25 * 5 / 3, abs=0.1)


def later_keys(path: Path) -> list[int]:
    """Key frames other than the first, in decoding order."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    return [n for n, packet in enumerate(packets) if packet.is_keyframe and n]


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4"])
def test_a_cut_from_open_groups_begins_at_its_first_whole_picture(
    suffix: str, tmp_path: Path
) -> None:
    source = numbered(tmp_path / "a.ts", frames=80, options=OPEN, format="mpegts")
    for key in later_keys(source):
        path = remuxed(
            source, tmp_path / f"b.{suffix}", lambda n, data: data, begin=key,
            format="mpegts" if suffix == "ts" else None,
        )  # fmt: skip
        with av.open(str(source)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
            first = sorted(p.pts or 0 for p in packets).index(packets[key].pts or 0)
        assert seen(path) == list(range(first, 80, 5)), key
        info = probe(path)
        assert info.frames == 80 - first
        # An MP4's edit list hides the leading pictures by itself: nothing that it shows is lost.
        lost = 0.0 if suffix == "mp4" else (first - key) / 25
        assert info.lost_start == pytest.approx(lost, abs=0.001)
    assert probe(source).lost_start == 0


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4"])
def test_a_cut_from_gradual_refresh_says_how_much_later_it_begins(
    suffix: str, tmp_path: Path
) -> None:
    options = {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}
    source = numbered(tmp_path / "a.ts", frames=80, options=options, format="mpegts")
    key = later_keys(source)[0]
    path = remuxed(
        source, tmp_path / f"b.{suffix}", lambda n, data: data, begin=key,
        format="mpegts" if suffix == "ts" else None,
    )  # fmt: skip
    first, *rest = seen(path)
    assert first > key
    assert rest == list(range(first + 5, 80, 5))
    info = probe(path)
    assert info.lost_start == pytest.approx((first - key) / 25, abs=0.001)
    assert info.duration == pytest.approx((80 - first) / 25, abs=0.001)


def test_a_cut_whose_shown_pictures_are_not_whole_is_refused(tmp_path: Path) -> None:
    source = numbered(tmp_path / "a.ts", frames=80, options=OPEN, format="mpegts")
    key = later_keys(source)[1]
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    first = packets[key].pts or 0
    referred = next(
        n for n in range(key + 1, len(packets)) if (packets[n].pts or 0) > first
    )  # the first picture after the key frame that is not leading: others are made from it
    damage = lambda n, data: data[: len(data) // 2] if n == referred else data  # noqa: E731
    path = remuxed(source, tmp_path / "b.mkv", damage, begin=key)
    with pytest.raises(DecodeError, match="damaged"):
        seen(path)


@pytest.mark.parametrize("options", [OPEN, {"x264-params": "keyint=250:bframes=2:b-adapt=0"}])
def test_what_an_edit_list_hides_may_be_doubtful_if_nothing_rests_on_it(
    options: dict[str, str], tmp_path: Path
) -> None:
    path = numbered(tmp_path / "a.mp4", frames=60, options=options)
    data = path.read_bytes()
    first = struct.unpack(">i", data[(at := data.index(b"elst") + 16) : at + 4])[0]
    hidden = with_edits(data, [(1200, 30 * 512 + first)])
    assert seen(hidden) == list(range(30, 60, 5))
    info = probe(hidden)
    assert (info.frames, info.duration) == (30, pytest.approx(1.2))
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    alone = next(p for p in packets[3:] if bytes(p)[4] & 0x60 == 0 and p.size > 14)
    at = alone.pos or 0
    broken = bytearray(hidden)
    broken[at + 8 : at + alone.size] = bytes(255 - n % 7 for n in range(alone.size - 8))
    assert seen(bytes(broken)) == list(range(30, 60, 5))
    whole = bytearray(data)
    whole[at + 8 : at + alone.size] = broken[at + 8 : at + alone.size]
    with pytest.raises(DecodeError, match="damaged"):
        seen(bytes(whole), fps=25)


@pytest.mark.parametrize(
    ("suffix", "codec", "settings"),
    [
        ("ts", X264, {"options": {"x264-params": "bframes=2"}, "format": "mpegts"}),
        ("m2ts", X264, {"format": "mpegts"}),
        ("ts", "mpeg2video", {"b_frames": 2, "format": "mpegts"}),
        ("m2ts", "mpeg2video", {"format": "mpegts"}),
        ("ts", X265, {"options": QUIET, "format": "mpegts"}),
        ("vob", "mpeg2video", {"b_frames": 2, "format": "vob"}),
        ("mpg", "mpeg1video", {}),
        ("webm", "libvpx", {}),
        ("mkv", X264, {}),
        ("h264", X264, {}),
    ],
)
def test_whole_files_one_behind_the_other(
    suffix: str, codec: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    count = 2 if suffix in ("webm", "mkv") else 3  # FFmpeg reads no third segment
    parts = [
        numbered(tmp_path / f"{n}.{suffix}", codec, frames=30, first=30 * n, **settings)
        for n in range(count)
    ]
    data = b"".join(part.read_bytes() for part in parts)
    assert seen(data) == list(range(0, 30 * count, 5))
    assert seen(data, start=0.6, end=1.15) == [15, 20, 25]
    if suffix in ("ts", "mpg", "vob", "m2ts"):
        assert probe(data).duration == pytest.approx(3.6, abs=0.1)


@pytest.mark.parametrize("suffix", ["ts", "m2ts"])
def test_lost_packets_are_no_splice(suffix: str, tmp_path: Path) -> None:
    parts = [
        numbered(
            tmp_path / f"{n}.{suffix}", frames=40, first=40 * n, keyframes=10, b_frames=0, format="mpegts"
        ).read_bytes()
        for n in range(2)
    ]  # fmt: skip
    width = 188 if suffix == "ts" else 192
    data = b"".join(parts)
    head = width - 188
    video = [
        at
        for at in range(0, len(data), width)
        if (data[at + head + 1] & 31) << 8 | data[at + head + 2]
        == (256 if suffix == "ts" else 4113)
    ]
    noticed, last = 0, max(at for at in video if at < len(parts[0]))
    for at in set(video[5:-5]) - {last}:  # what is lost right at a splice, no counter knows
        try:
            found = seen(data[:at] + data[at + width :])
        except DecodeError:
            noticed += 1
        else:
            pytest.fail(f"{at // width} is lost, and {found} are shown")
    assert noticed == len(video[5:-5]) - 1


AVI_SIZES = {
    "right": None,
    "none": 0,
    "largest": 0xFFFFFFFF,
    "half": 0x7FFFFFFF,
    "with its header": 8,
}


@pytest.mark.parametrize("size", AVI_SIZES)
def test_sizes_of_an_avi_that_are_no_promise(size: str, tmp_path: Path) -> None:
    data = numbered(tmp_path / "a.avi", "mpeg4", frames=60).read_bytes()
    claim = {None: len(data) - 8, 8: len(data)}.get(AVI_SIZES[size], AVI_SIZES[size])
    assert claim is not None
    claimed = data[:4] + struct.pack("<I", claim) + data[8:]
    assert seen(claimed) == list(range(0, 60, 5))
    assert seen(claimed + b"\r\n--part--\r\n") == list(range(0, 60, 5))
    # Written to a pipe: no size is known, and there is no index.
    end = claimed.index(b"idx1")
    at = claimed.index(b"movi") - 4
    piped = claimed[:at] + b"\xff" * 4 + claimed[at + 4 : end]
    if claim > len(data):
        assert seen(piped) == list(range(0, 60, 5))
    for cut in (len(data) * 2 // 3, len(data) - 700, end - 3):
        with pytest.raises(DecodeError, match=r"cut short|index"):
            seen(claimed[:cut])


@pytest.mark.parametrize(
    "tail",
    [
        b"\r\n--boundary--\r\n",
        b"some words behind it all",
        b"TAG" + bytes(125),
        bytes(40),
        b"\0\0\1\0free",
    ],
)
@pytest.mark.parametrize("flags", [{}, {"movflags": "faststart"}])
def test_what_others_put_behind_an_mp4(tail: bytes, flags: dict[str, str], tmp_path: Path) -> None:
    data = numbered(tmp_path / "a.mp4", container=flags).read_bytes()
    assert seen(data + tail) == list(range(0, 50, 5))
    with pytest.raises(DecodeError, match="cut short"):
        seen(data[:-30])
    with pytest.raises(DecodeError, match="cut short"):
        seen(data + b"\0\0\x10\0mdat1234")


def test_a_sample_without_bytes_is_no_missing_picture(tmp_path: Path) -> None:
    path = numbered(tmp_path / "a.mp4", "mjpeg", pixels="yuvj420p", frames=25)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][12]
    assert packet.pos is not None
    data = path.read_bytes()
    data = data[: packet.pos] + data[packet.pos + packet.size :]
    media = data.index(b"mdat")
    length = struct.unpack(">I", data[media - 4 : media])[0] - packet.size
    data = data[: media - 4] + struct.pack(">I", length) + data[media:]
    sizes, offsets = data.index(b"stsz") + 16 + 4 * 12, data.index(b"stco")
    data = data[:sizes] + bytes(4) + data[sizes + 4 :]
    for n in range(struct.unpack(">I", data[offsets + 8 : offsets + 12])[0]):
        at = offsets + 12 + 4 * n
        place = struct.unpack(">I", data[at : at + 4])[0]
        moved = place - packet.size if place > packet.pos else place
        data = data[:at] + struct.pack(">I", moved) + data[at + 4 :]
    assert seen(data, fps=25) == [n - (n == 12) for n in range(25)]


UNITS = {
    X264: [
        b"\x06\x05\xff\x20abc\x80", b"\x06\x01\x01\xff\x80", b"\x06\x89\x30\0\x01\x80",
        b"\x06\x05\x10" + bytes(20) + b"\x80", b"\x06\x00\x04\x00\x81\x11\x22\x80",
        b"\x18" + bytes(30) + b"abc", b"\x7e\0\0\0\0\2hello", b"\x0c\xff\x80",
    ],
    X265: [
        b"\x4e\x01\x05\xff\x20abc\x80", b"\x4e\x01\x05\x10" + bytes(20) + b"\x80",
        b"\x60\x01" + bytes(30) + b"abc", b"\x7e\x01\0\0\0\0\2hello",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("codec", "place"), [(c, n) for c in UNITS for n in range(len(UNITS[c]))])
@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_messages_beside_pictures_may_be_wrong(
    codec: str, place: int, suffix: str, tmp_path: Path
) -> None:
    options, unit = (QUIET if codec == X265 else {}), UNITS[codec][place]
    format = "mpegts" if suffix == "ts" else None
    source = numbered(tmp_path / f"a.{suffix}", codec, options=options, format=format)

    def change(count: int, data: bytes) -> bytes:
        if count % 7 != 3:
            return data
        if suffix == "ts":
            return data[:6] + b"\0\0\0\1" + unit + data[6:]
        return len(unit).to_bytes(4) + unit + data

    path = remuxed(source, tmp_path / f"b.{suffix}", change, format=format)
    assert seen(path) == list(range(0, 50, 5))


@pytest.mark.parametrize(
    "note",
    [
        b"\xff\xe0\0\4AV", b"\xff\xe0\xff\xf0JFIF\0", b"\xff\xe1\0\x28Exif\0\0" + b"garbage!" * 4,
        b"\xff\xe4\0\x08\xff\xd8make", b"\xff\xfe\0\x06note",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:deprecated pixel format")
def test_notes_beside_a_jpeg_may_be_wrong(note: bytes, tmp_path: Path) -> None:
    source = numbered(tmp_path / "a.avi", "mjpeg", pixels="yuvj420p")
    path = remuxed(source, tmp_path / "b.avi", lambda n, data: data[:2] + note + data[2:])
    assert seen(path) == list(range(0, 50, 5))
    cut = remuxed(source, tmp_path / "c.avi", lambda n, d: d[: len(d) // 2] if n == 20 else d)
    with pytest.raises(DecodeError, match="damaged"):
        seen(cut)


MATRICES = {
    "bt2020c": True, "chroma-derived-nc": True, "chroma-derived-c": True,
    "YCgCo": "8 (YCgCo)", "smpte2085": "11 (SMPTE ST 2085, YDzDx)", "ICtCp": "14 (ICtCp)",
}  # fmt: skip


@pytest.mark.parametrize("name", MATRICES)
def test_colour_matrices_are_read_or_named(name: str, tmp_path: Path) -> None:
    options = {"x264-params": f"colormatrix={name}:colorprim=bt709"}
    path = numbered(tmp_path / "a.mp4", options=options)
    if MATRICES[name] is True:
        assert seen(path) == list(range(0, 50, 5))
        usual = {"bt2020c": "bt2020nc"}.get(name, "bt709")
        options = {"x264-params": f"colormatrix={usual}:colorprim=bt709"}
        same = sample_frames(numbered(tmp_path / "b.mp4", options=options), size=32)
        np.testing.assert_array_equal(sample_frames(path, size=32).pixels, same.pixels)
    else:
        with pytest.raises(DecodeError) as caught:
            seen(path)
        assert f"colour matrix {MATRICES[name]} is not read here" in caught.value.reason


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_one_picture_stands_as_long_as_the_rate_says(suffix: str, tmp_path: Path) -> None:
    codec = "mpeg4" if suffix == "avi" else X264
    format = "mpegts" if suffix == "ts" else None
    info = probe(numbered(tmp_path / f"a.{suffix}", codec, frames=1, format=format))
    assert (info.frames, info.duration) == (1, pytest.approx(0.04))
    assert info.frame_rate == pytest.approx(25)


@pytest.mark.parametrize(
    ("edits", "shown"),
    [
        ([(1000, 25)], range(25, 50)),
        ([(1000, 0)], range(25)),
        ([(500, -1), (1000, 10)], range(10, 35)),
        ([(1000, 0), (1000, 50)], itertools.chain(range(25), range(50, 75))),
    ],
)
def test_probe_counts_what_edit_lists_show(
    edits: list[tuple[int, int]], shown: Any, tmp_path: Path
) -> None:
    data = numbered(tmp_path / "a.mp4", frames=75).read_bytes()
    first = struct.unpack(">i", data[(at := data.index(b"elst") + 16) : at + 4])[0]
    places = [(length, -1 if begin < 0 else begin * 512 + first) for length, begin in edits]
    edited, shown = with_edits(data, places), list(shown)
    assert seen(edited) == shown[::5]
    info = probe(edited)
    assert (info.frames, info.duration) == (len(shown), pytest.approx(len(shown) / 25))
    found = seen(edited, start=0.4, end=0.9)  # counted from the first picture that is shown
    assert found == [shown[n] for n in (10, 15, 20)]


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.mp4"), "w") as output:
        sound: Any = output.add_stream("aac", rate=44100)
        cover: Any = output.add_stream("mjpeg", rate=1)
        cover.width = cover.height = 96
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(video_bytes.board(5), format="rgb24")
        output.mux(cover.encode(frame.reformat(format="yuvj420p")))
        output.mux(cover.encode())
        for step in range(20):
            tone = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            tone.sample_rate, tone.pts = 44100, step * 1024
            output.mux(sound.encode(tone))
        output.mux(sound.encode())
    with pytest.raises(DecodeError) as caught:
        sample_frames(tmp_path / "song.mp4")
    assert caught.value.reason == "no video stream; holds audio and a cover picture"


def test_encrypted_video_is_called_so(tmp_path: Path) -> None:
    settings = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
        "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
    }
    path = numbered(tmp_path / "a.mp4", container=settings)
    for read in (sample_frames, probe):
        with pytest.raises(DecodeError, match=r"encrypted \(cenc\): protected video cannot"):
            read(path)
    data = numbered(tmp_path / "b.mp4").read_bytes().replace(b"avc1", b"drmi")
    with pytest.raises(DecodeError, match=r"encrypted \(FairPlay\)"):
        sample_frames(data)
