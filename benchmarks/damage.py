"""How much damage the decoders detect, by codec.

    python benchmarks/damage.py [--json FILE] [--tries 200]

A real clip of 6 s in each codec; one bit flipped, or 512 bytes zeroed, at a random place; the
frames compared with the undamaged file's. "Unnoticed" is the share of the files with different frames
for which no error was raised: damage that only a checksum of the file can reveal.
"""

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
from decode import pictures

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tcmgc.video import DecodeError, sample_frames

CODECS = {
    "H.264, MP4": ("a.mp4", "libx264", {}),
    "HEVC, MP4": ("a.mp4", "libx265", {"x265-params": "log-level=none"}),
    "MPEG-4, AVI": ("a.avi", "mpeg4", {}),
    "MPEG-2, MPG": ("a.mpg", "mpeg2video", {}),
    "WMV 8": ("a.wmv", "wmv2", {}),
    "VP8, WebM": ("a.webm", "libvpx", {}),
    "VP9, WebM": ("a.webm", "libvpx-vp9", {"cpu-used": "8", "deadline": "realtime"}),
    "AV1, WebM": ("a.webm", "libsvtav1", {"preset": "12"}),
    "FFV1, Matroska": ("a.mkv", "ffv1", {}),
}


def encode(path: str, codec: str, options: dict[str, str]) -> bytes:
    with av.open(path, "w") as output:
        stream = output.add_stream(codec, rate=25, options=options, bit_rate=400_000)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for step, frame in enumerate(pictures("bikes.mp4", 150)):
            scaled = frame.reformat(width=320, height=240)
            scaled.pts, scaled.time_base = step, Fraction(1, 25)
            output.mux(stream.encode(scaled))
        output.mux(stream.encode())
    return Path(path).read_bytes()


def outcomes(data: bytes, zeros: int, tries: int) -> Counter[str]:
    whole, found, rng = sample_frames(data, size=64), Counter[str](), random.Random(0)
    for _ in range(tries):
        damaged = bytearray(data)
        place = rng.randrange(len(data) - zeros)
        if zeros:
            damaged[place : place + zeros] = bytes(zeros)
        else:
            damaged[place] ^= 1 << rng.randrange(8)
        try:
            frames = sample_frames(bytes(damaged), size=64, timeout=60)
        except DecodeError:
            found["noticed"] += 1
        else:
            same = (
                frames.pixels.shape == whole.pixels.shape and (frames.pixels == whole.pixels).all()
            )
            found["harmless" if same else "unnoticed"] += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="write the numbers here")
    parser.add_argument("--tries", type=int, default=200)
    arguments = parser.parse_args()
    results = {}
    print(f"{'':<18}{'one bit:':>12}{'noticed':>9}{'harmless':>9}{'unnoticed':>10}", end="")
    print(f"{'512 zeros:':>14}{'noticed':>9}{'harmless':>9}{'unnoticed':>10}")
    for name, (file, codec, options) in CODECS.items():
        with tempfile.TemporaryDirectory() as folder:
            data = encode(str(Path(folder, file)), codec, options)
        line = f"{name:<18}"
        results[name] = {}
        for kind, zeros in (("bit", 0), ("zeros", 512)):
            found = outcomes(data, zeros, arguments.tries)
            line += " " * (12 if kind == "bit" else 14)
            for word, width in (("noticed", 9), ("harmless", 9), ("unnoticed", 10)):
                line += f"{found[word] / arguments.tries:{width}.0%}"
            results[name][kind] = {word: n / arguments.tries for word, n in found.items()}
        print(line, flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
