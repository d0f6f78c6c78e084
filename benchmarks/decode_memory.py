"""Memory of reading 12 frames of 4K H.264, against the length of the file.

    python benchmarks/decode_memory.py [--seconds 12 36]

Each length is measured in a separate process; memory is its peak in excess of that after imports.
"""

import argparse
import multiprocessing
import sys
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from similarity import forget_peak, peak_memory

from tcmgc.video import sample_frames


def encode(path: str, seconds: int) -> None:
    """Encode a moving pattern in 3840 x 2160 at five frames per second."""
    pattern = np.random.default_rng(0).integers(0, 255, (270, 480, 3), dtype=np.uint8)
    picture = pattern.repeat(8, 0).repeat(8, 1)
    with av.open(path, "w") as output:
        stream = output.add_stream("libx264", rate=5, options={"preset": "ultrafast", "g": "50"})
        stream.width, stream.height, stream.pix_fmt = 3840, 2160, "yuv420p"
        for step in range(5 * seconds):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, 16 * step, 1), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


def measure(path: str, pipe: Any) -> None:
    """Send the measured bytes through the pipe."""
    forget_peak()
    before = peak_memory()
    sample_frames(path)
    pipe.send(peak_memory() - before)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=int, nargs="+", default=[12, 36])
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for seconds in arguments.seconds:
            path = str(Path(folder) / f"{seconds}.mp4")
            encode(path, seconds)
            mine, theirs = context.Pipe()
            process = context.Process(target=measure, args=(path, theirs))
            process.start()
            print(f"{seconds:4} s of 4K: {mine.recv() / 1e6:.0f} MB", flush=True)
            process.join()


if __name__ == "__main__":
    main()
