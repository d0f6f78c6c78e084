"""Irregular files of every kind, with FFmpeg's command line as the reference.

    python benchmarks/fuzz.py [--json FILE] [--files 2000] [--seed 0] [--workers 1] [--kinds ...]

Needs the programs ffmpeg and ffprobe. Each file is generated from its seed and kind: a codec, a
container, pictures that encode their own number, and some irregularity. It is sampled at four frames
per second, completely and in a window. An undamaged file is *right* if the pictures are those that the
reference shows at these instants: all pictures decoded by ffmpeg, with best-effort times from ffprobe;
the last one whose time is not later is on screen. For joined or cut files the builder's own times are
used, since ffprobe's restart. An undamaged file is *refused* if there is an error, *wrong* if pictures
differ, *crash* if it ended the process or took longer than a minute. A damaged file is right if it is
refused or if its pictures are the undamaged file's.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from fuzz_cases import BAD, GOOD, LIMIT, X264, Case, ffmpeg
from video_bytes import SIDE, number

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tcmgc.video import DecodeError, probe, sample_frames

FPS = 4.0
"""Pictures requested per second."""


def referee(case: Case) -> tuple[list[int], list[float]]:
    """Every picture's number and its time from the first, by FFmpeg's programs only."""
    raw = ffmpeg(
        "-i", case.path, "-map", "0:v:0", "-vsync", "0", "-s", f"{SIDE}x{SIDE}",
        "-pix_fmt", "rgb24", "-f", "rawvideo", "-",
    )  # fmt: skip
    pictures = np.frombuffer(raw, np.uint8).reshape(-1, SIDE, SIDE, 3).transpose(0, 3, 1, 2)
    numbers = [number(picture) for picture in pictures]
    if case.truth is not None:
        return numbers, case.truth[: len(numbers)]
    words = ["-select_streams", "v:0", "-show_entries", "frame=best_effort_timestamp_time"]
    said = subprocess.run(
        ["ffprobe", "-v", "quiet", *words, "-of", "csv=p=0", str(case.path)],
        capture_output=True, text=True, check=False, timeout=LIMIT,
    ).stdout  # fmt: skip
    times = [float(one) for line in said.split() if (one := line.strip(",")) not in ("", "N/A")]
    return numbers, [one - times[0] for one in times] if times else [
        n / 25 for n in range(len(numbers))
    ]


def shown(path: Path, **window: float) -> list[int] | str:
    """The numbers at every instant, or the error."""
    try:
        frames = sample_frames(path, 10_000, 48, FPS, timeout=LIMIT, **window)  # type: ignore[arg-type]
    except DecodeError as error:
        return error.reason
    return [number(picture) for picture in frames.pixels]


def judge(kind: str, seed: int) -> tuple[str, str, str]:
    """Outcome, details, codec."""
    rng = random.Random(f"{seed} {kind}")
    with tempfile.TemporaryDirectory() as folder:
        case = (GOOD | BAD)[kind](rng, Path(folder))
        if case.whole is None:
            return *judge_whole(rng, case), case.codec
        got, right = shown(case.path), shown(case.whole)
        if isinstance(got, str):
            return "noticed", got, case.codec
        shorter = kind in ("cut short", "packets lost (ts)") and _shorter(case, got, right)
        return (
            ("harmless" if got == right or shorter else "wrong"),
            f"{right} became {got}",
            case.codec,
        )


def judge_whole(rng: random.Random, case: Case) -> tuple[str, str]:
    """Outcome and details: the complete file, a window of it, and the result of :func:`probe`."""
    numbers, times = referee(case)
    if not numbers or not times:
        return "unusable", "the referee shows nothing"
    # The reference has no times for the last pictures of, for example, an AVI.
    known = len(times) == len(numbers)
    gap = times[-1] / max(len(times) - 1, 1)
    end = max(times) + gap if known else times[-1]
    start = rng.uniform(0, 0.8) * times[-1]
    for window in ({}, {"start": start, "end": start + rng.uniform(0.2, 1.5)}):
        got = shown(case.path, **window)
        if isinstance(got, str):
            return "refused", f"{case.path.suffix} {window}: {got}"
        first, stop = window.get("start", 0.0), min(window.get("end", end), end)
        grid = [n / FPS for n in range(len(got) + 100) if first <= n / FPS < stop]
        instants = (grid or [first] if known else grid)[: len(got)]
        places = [max(i for i, time in enumerate(times) if time <= at + 1e-6) for at in instants]
        expected = [numbers[place] for place in places]
        if got[: len(instants)] != expected:
            return "wrong", f"{case.path.suffix} {window}: {expected}, got {got}"
        if (
            not window
            and known
            and abs(len(got) / FPS - max(times) - gap) > 1 / FPS + 2 * gap + 0.4
        ):
            return (
                "wrong",
                f"{case.path.suffix}: it lasts {max(times):.2f} s, got {len(got)} pictures",
            )
    info = probe(case.path, timeout=LIMIT)
    if case.path.suffix in (".mp4", ".mov", ".avi") and abs(info.frames - len(numbers)) > 1:
        return "wrong", f"{case.path.suffix}: {len(numbers)} pictures, probe counts {info.frames}"
    return "right", ""


def _shorter(case: Case, got: list[int], right: list[int] | str) -> bool:
    """Whether the result is a beginning of the file: without sizes, that is a valid shorter video."""
    named = case.path.suffix in (".ts", ".m2ts", ".mpg", ".vob", ".flv", ".h264", ".nut")
    # The last decoded pictures are not the last shown.
    return named and not isinstance(right, str) and got[:-1] == right[: len(got) - 1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", help="write the numbers here")
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=list(GOOD | BAD), choices=list(GOOD | BAD))
    parser.add_argument("--show", action="store_true", help="print every file that is not right")
    arguments = parser.parse_args()
    if not (shutil.which("ffmpeg") and shutil.which("ffprobe")):
        sys.exit("needs the programs ffmpeg and ffprobe")
    begin = time.monotonic()
    found: dict[str, Counter[str]] = {kind: Counter() for kind in arguments.kinds}
    h264: Counter[str] = Counter()
    jobs = [
        (arguments.kinds[n % len(arguments.kinds)], arguments.seed * 1_000_000 + n)
        for n in range(arguments.files)
    ]
    while jobs:
        jobs = run(jobs, found, h264, arguments.workers, arguments.show)
    report(found, h264)
    print(f"\n{arguments.files} files in {time.monotonic() - begin:.0f} s")
    if arguments.json:
        result = {"kinds": {k: dict(v) for k, v in found.items()}, "h264_damaged": dict(h264)}
        Path(arguments.json).write_text(json.dumps(result, indent=2) + "\n")


def run(
    jobs: list[tuple[str, int]],
    found: dict[str, Counter[str]],
    h264: Counter[str],
    workers: int,
    show: bool,
) -> list[tuple[str, int]]:
    """Judge until all are done or a process is lost; return the remaining cases."""
    with ProcessPoolExecutor(workers) as pool:
        lost = False
        results = [pool.submit(judge, *job) for job in jobs]
        for place, (job, result) in enumerate(zip(jobs, results, strict=True)):
            try:
                outcome, details, codec = result.result(timeout=4 * LIMIT)
            except Exception as error:  # any other exception than DecodeError is a fault, too
                outcome, codec, details = "crash", "", repr(error)
                lost = isinstance(error, BrokenProcessPool | TookTooLong)
            found[job[0]][outcome] += 1
            if job[0] in BAD and codec == X264:
                h264[outcome] += 1
            if show and outcome not in ("right", "noticed", "harmless"):
                print(f"{outcome}: {job[0]}, seed {job[1]}, {codec}: {details}", flush=True)
            if outcome == "crash" and lost:
                for process in list(pool._processes.values()):
                    process.kill()
                return jobs[place + 1 :]
    return []


def report(found: dict[str, Counter[str]], h264: Counter[str]) -> None:
    print(f"{'kind':<24}{'files':>7}{'right':>7}{'refused':>9}{'wrong':>7}{'crash':>7}")
    for kind, counts in found.items():
        files = counts.total() - counts["unusable"]
        if kind in GOOD:
            columns = (counts["right"], counts["refused"])
        else:
            columns = (counts["noticed"] + counts["harmless"], 0)
        print(
            f"{kind:<24}{files:7}{columns[0]:7}{columns[1]:9}{counts['wrong']:7}{counts['crash']:7}"
        )
    whole = sum((found[kind] for kind in found if kind in GOOD), Counter[str]())
    count = whole["right"] + whole["refused"] + whole["wrong"] + whole["crash"]
    if count:
        print(
            f"\nwhole files: {whole['wrong']} of {count} wrong, {whole['refused'] / count:.1%} refused; "
            f"{whole['unusable']} more in which the referee saw no picture"
        )
    other = h264["noticed"] + h264["wrong"]
    if other:
        print(
            f"damaged H.264: {h264['noticed'] / other:.1%} of the {other} files with other pictures noticed"
        )


if __name__ == "__main__":
    main()
