"""Videos whose pictures carry their number, and changes to files that no muxer would make."""

import struct
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

SIDE = 96
Change = Callable[[list[int]], list[int]]
"""From presentation times in decoding order, in the container's ticks, to others."""


def board(number: int, side: int = SIDE) -> np.ndarray:
    """3 x 3 dark and light cells that spell a number below 512, and survive lossy coding."""
    image = np.zeros((side, side, 3), np.uint8)
    for bit in range(9):
        row, column = (step * side // 3 for step in divmod(bit, 3))
        light = 225 if number >> bit & 1 else 30
        image[row : row + side // 3, column : column + side // 3] = light
    return image


def number(pixels: np.ndarray) -> int:
    """What is spelled on 3 x side x side pixels."""
    gray = pixels.astype(float).mean(0)
    side = gray.shape[0]
    found = 0
    for bit in range(9):
        row, column = (step * side // 3 + side // 12 for step in divmod(bit, 3))
        cell = gray[row : row + side // 6, column : column + side // 6]
        found |= int(cell.mean() > 127) << bit
    return found


def numbered(
    path: Path | str,
    codec: str = "libx264",
    *,
    frames: int = 50,
    first: int = 0,
    times: Sequence[int] | None = None,
    base: Fraction | None = None,
    rate: Fraction | int = 25,
    options: dict[str, str] | None = None,
    b_frames: int | None = None,
    keyframes: int | None = None,
    pixels: str = "yuv420p",
    format: str | None = None,
    container: dict[str, str] | None = None,
    setup: Callable[[Any], None] = lambda stream: None,
) -> Path:
    """A video of pictures that are called ``first``, ``first`` + 1, ... (:func:`board`)."""
    base = base or 1 / Fraction(rate)
    with av.open(str(path), "w", format=format, options=container or {}) as output:
        stream: Any = output.add_stream(codec, rate=rate, options=options or {})
        stream.width = stream.height = SIDE
        stream.pix_fmt, stream.thread_count = pixels, 1
        stream.codec_context.time_base = base
        if keyframes is not None:
            stream.gop_size = keyframes
        if b_frames is not None:
            stream.max_b_frames = b_frames
        setup(stream)
        for step in range(frames):
            frame = av.VideoFrame.from_ndarray(board(first + step), format="rgb24")
            frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base = step if times is None else times[step], base
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return Path(path)


def remuxed(
    source: Path,
    target: Path,
    change: Callable[[int, bytes], bytes],
    *,
    format: str | None = None,
    begin: int = 0,
) -> Path:
    """The same packets from ``begin`` on, with other content."""
    with av.open(str(source)) as old, av.open(str(target), "w", format=format) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for count, packet in enumerate(old.demux(video=0)):
            if packet.size and count >= begin:
                copy = av.Packet(change(count, bytes(packet)))
                copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
                copy.time_base, copy.is_keyframe = packet.time_base, packet.is_keyframe
                copy.stream = stream
                new.mux(copy)
    return target


def with_times(data: bytes, kind: str, change: Change) -> bytes:
    """Other presentation times in an mp4 (no moov before its mdat), mkv, flv or ts."""
    return {"mp4": _mp4_times, "mkv": _mkv_times, "flv": _flv_times, "ts": _ts_times}[kind](
        data, change
    )


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of MP4 boxes."""
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        yield kind, data[at + 8 : at + length]
        at += length


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def rewritten(data: bytes, change: Callable[[bytes, bytes], bytes]) -> bytes:
    """An MP4 whose index holds other boxes; media in front of it stay where they are."""

    def walk(kind: bytes, content: bytes) -> bytes:
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            content = b"".join(walk(*one) for one in boxes(content))
        return box(kind, change(kind, content))

    return b"".join(walk(*one) for one in boxes(data))


def runs(content: bytes, sign: str = "I") -> list[int]:
    """The values of an stts or ctts box, one a sample."""
    count = struct.unpack(">I", content[4:8])[0]
    pairs = [struct.unpack_from(f">I{sign}", content, 8 + 8 * n) for n in range(count)]
    return [value for times, value in pairs for _ in range(times)]


def with_edits(data: bytes, edits: Sequence[tuple[int, int]]) -> bytes:
    """An MP4 with an edit list: how long in the movie's ticks, from where in the media's."""
    entries = b"".join(struct.pack(">IiHH", *edit, 1, 0) for edit in edits)
    made = box(b"elst", struct.pack(">II", 0, len(edits)) + entries)
    return rewritten(data, lambda kind, content: made if kind == b"edts" else content)


def avi_with_holes(data: bytes, holes: dict[int, int]) -> bytes:
    """An AVI with so many empty chunks behind some of its pictures, by their place."""
    at = data.index(b"movi")
    end = at - 4 + 4 + struct.unpack("<I", data[at - 4 : at])[0]
    index = data.index(b"idx1", end)
    flags = [
        struct.unpack_from("<I", data, place + 4)[0]
        for place in range(index + 8, len(data) - 15, 16)
    ]
    chunks: list[tuple[bytes, bytes, int]] = []
    place, picture = at + 4, 0
    while place + 8 <= end:
        mark, size = struct.unpack_from("<4sI", data, place)
        chunks.append((mark, data[place + 8 : place + 8 + size], flags[len(flags) and picture]))
        chunks += [(mark, b"", 0)] * holes.get(picture, 0)
        picture, place = picture + 1, place + 8 + size + (size & 1)
    movi, listed = b"movi", b""
    for mark, content, flag in chunks:
        listed += mark + struct.pack("<III", flag, len(movi), len(content))
        movi += mark + struct.pack("<I", len(content)) + content + bytes(len(content) & 1)
    head = bytearray(data[: at - 8])
    for mark, offset in ((b"avih", 24), (b"strh", 40)):
        struct.pack_into("<I", head, head.index(mark) + offset, len(chunks))
    body = bytes(head) + b"LIST" + struct.pack("<I", len(movi)) + movi
    body += b"idx1" + struct.pack("<I", len(listed)) + listed
    return body[:4] + struct.pack("<I", len(body) - 8) + body[8:]


def _mp4_times(data: bytes, change: Change) -> bytes:
    found: dict[bytes, list[int]] = {}

    def read(kind: bytes, content: bytes) -> bytes:
        if kind in (b"stts", b"ctts"):
            found[kind] = runs(content, "i")
        return content

    rewritten(data, read)
    dts = [sum(found[b"stts"][:place]) for place in range(len(found[b"stts"]))]
    offsets = found.get(b"ctts", [0] * len(dts))
    new = change([a + b for a, b in zip(dts, offsets, strict=True)])
    shifts = [pts - time for pts, time in zip(new, dts, strict=True)]
    content = struct.pack(">II", 1 << 24, len(shifts))
    content += b"".join(struct.pack(">Ii", 1, shift) for shift in shifts)

    def write(kind: bytes, old: bytes) -> bytes:
        if kind == b"ctts":
            return content
        return old + box(b"ctts", content) if kind == b"stbl" and b"ctts" not in found else old

    return rewritten(data, write)


def mp4_with_repeated_decoding_times(data: bytes, places: Sequence[int]) -> bytes:
    """Samples that are decoded, and so shown, when the one before them is."""

    def write(kind: bytes, content: bytes) -> bytes:
        if kind != b"stts":
            return content
        gaps = runs(content)
        for place in places:
            gaps[place], gaps[place - 1] = gaps[place] + gaps[place - 1], 0
        return struct.pack(">II", 0, len(gaps)) + b"".join(struct.pack(">II", 1, g) for g in gaps)

    return rewritten(data, write)


def _mkv_times(data: bytes, change: Change) -> bytes:
    out, blocks = bytearray(data), list[tuple[int, int]]()

    def size(at: int) -> tuple[int, int]:
        width = 9 - out[at].bit_length()
        value = int.from_bytes(out[at : at + width]) & ((1 << 7 * width) - 1)
        return (len(out) if value == (1 << 7 * width) - 1 else value), at + width

    def walk(at: int, end: int, cluster: int = 0) -> None:
        while at < end:
            width = 9 - out[at].bit_length()
            id = int.from_bytes(out[at : at + width])
            length, at = size(at + width)
            if id in (0x18538067, 0x1F43B675, 0xA0):  # segment, cluster, block group
                walk(at, min(at + length, end), cluster)
            elif id == 0xE7:
                cluster = int.from_bytes(out[at : at + length])
            elif id in (0xA3, 0xA1):  # simple block, block
                blocks.append((size(at)[1], cluster))
            at += length

    walk(0, len(out))
    times = [cluster + struct.unpack_from(">h", out, at)[0] for at, cluster in blocks]
    for (at, cluster), time in zip(blocks, change(times), strict=True):
        struct.pack_into(">h", out, at, time - cluster)
    return bytes(out)


def _flv_times(data: bytes, change: Change) -> bytes:
    out, at, tags = bytearray(data), 13, list[int]()
    while at + 11 <= len(out):
        avc = out[at + 11] & 15 == 7
        if out[at] == 9 and not (avc and out[at + 12] != 1):
            tags.append(at)
        at += 15 + int.from_bytes(out[at + 1 : at + 4])
    times = [int.from_bytes(out[tag + 4 : tag + 7]) | out[tag + 7] << 24 for tag in tags]
    for tag, time in zip(tags, change(times), strict=True):
        out[tag + 4 : tag + 8] = (time & 0xFFFFFF).to_bytes(3) + bytes([time >> 24])
    return bytes(out)


def _ts_times(data: bytes, change: Change) -> bytes:
    out, fields = bytearray(data), list[list[int]]()
    for packet in range(0, len(out) - 187, 188):
        at = packet + 4 + (1 + out[packet + 4] if out[packet + 3] & 0x20 else 0)
        if out[packet + 1] & 0x40 and out[at : at + 3] == b"\0\0\1" and out[at + 3] & 0xF0 == 0xE0:
            fields.append([at + 9, at + 14] if out[at + 7] >> 6 == 3 else [at + 9])

    def read(at: int) -> int:
        a, b, c, d, e = out[at : at + 5]
        return (a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1

    def write(at: int, time: int) -> None:
        out[at] = out[at] & 0xF1 | (time >> 30 & 7) << 1
        out[at + 1 : at + 5] = bytes(
            [time >> 22 & 255, (time >> 15 & 127) << 1 | 1, time >> 7 & 255, (time & 127) << 1 | 1]
        )

    times = [read(places[0]) for places in fields]
    for places, old, new in zip(fields, times, change(times), strict=True):
        for place in places:
            write(place, read(place) + new - old)
    return bytes(out)
