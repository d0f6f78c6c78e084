"""A synthetic corpus in MSR-VTT's layout: real H.264 files of moving coloured shapes.

A clip shows two or three scenes, each a shape of some colour, size, position and motion on a
background, with drifting grey specks that no caption mentions. A caption describes some of the
scenes in order and some of their content, so that a text determines which frames matter.
"""

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tcmgc.datasets.demo_scenes import HEIGHT, RATE, WIDTH, Frame, Scene, describe, draw, story

CAPTIONS = 5
"""Captions of a training video."""
MARKER = "demo.json"
"""Written last: a folder with this file is complete."""


@dataclass(frozen=True)
class Recipe:
    """The arguments that determine every byte of a corpus."""

    videos: int
    test: int
    seed: int
    shuffle_captions: bool
    captions: int = CAPTIONS
    version: int = 4


def make(
    root: Path | str,
    videos: int = 1200,
    test: int = 200,
    seed: int = 0,
    shuffle_captions: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the corpus below ``root`` and return ``root``; an existing corpus is kept.

    The last ``test`` videos are the test split, with one sentence each. The same arguments give
    the same bytes. The corpus is written next to ``root`` and renamed, so it is never incomplete.

    Args:
        root: A folder that does not exist, is empty, or contains a corpus of the same arguments.
        videos: All videos, those of the test split included.
        test: Videos of the test split.
        seed: Decides scenes, words and noise.
        shuffle_captions: Give every training video another one's captions (a negative control);
            the test split keeps its own.
        progress: Called with the number of videos done and the number of all.

    Raises:
        ValueError: impossible counts, or ``root`` contains something else.
    """
    if not 1 <= test <= videos - 2:
        raise ValueError(f"test must be between 1 and videos - 2 ({videos - 2}); got {test}")
    recipe = Recipe(videos, test, seed, shuffle_captions)
    root = Path(root)
    if is_made(root, recipe):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        partial.chmod(0o755)
        stories = [story(np.random.default_rng([seed, index, 0])) for index in range(videos)]
        _write_videos(partial / "videos" / "all", stories, seed, progress)
        _write_annotations(partial, stories, recipe)
        (partial / MARKER).write_text(json.dumps(asdict(recipe)) + "\n")
        try:
            os.rename(partial, root)
        except OSError:  # another process was faster
            if not is_made(root, recipe):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root


def is_made(root: Path, recipe: Recipe) -> bool:
    """Whether ``root`` contains the corpus of ``recipe``; False for a missing or empty folder.

    Raises:
        ValueError: ``root`` contains something else, which is not touched.
    """
    marker = root / MARKER
    if marker.is_file():
        found = json.loads(marker.read_text())
        if found == asdict(recipe):
            return True
        raise ValueError(
            f"{root} holds a demo corpus of {found}, not of {asdict(recipe)}; "
            "delete it or choose another folder"
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(
            f"{root} is there and is no demo corpus (it has no {MARKER}); choose another folder"
        )
    return False


def _captions(scenes: tuple[Scene, ...], seed: int, index: int) -> list[str]:
    rng = np.random.default_rng([seed, index, 1])
    captions = []
    for _ in range(CAPTIONS):
        told = np.sort(rng.choice(len(scenes), int(rng.choice([1, 2, 2, 2, 2])), replace=False))
        chosen = tuple(scenes[i] for i in told)
        captions.append(describe(chosen, int(rng.integers(1, 3)), 0.9, rng))
    return captions


def _sentence(scenes: tuple[Scene, ...], seed: int, index: int) -> str:
    rng = np.random.default_rng([seed, index, 2])
    told = np.sort(rng.choice(len(scenes), 2, replace=False))
    return describe(tuple(scenes[i] for i in told), 2, 1.0, rng)


def _write_videos(
    folder: Path,
    stories: list[tuple[Scene, ...]],
    seed: int,
    progress: Callable[[int, int], None],
) -> None:
    folder.mkdir(parents=True)

    def write(index: int) -> None:
        _encode(
            folder / f"video{index}.mp4",
            draw(stories[index], np.random.default_rng([seed, index, 3])),
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(write, range(len(stories))), 1):
            progress(done, len(stories))


def _encode(path: Path, frames: Iterator[Frame]) -> None:
    # One thread and bitexact: the same bytes on every run.
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.time_base = Fraction(1, RATE)
        # x264's AVX-512 code is not deterministic, and each processor's code differs slightly.
        independent = {"x264-params": "cpu-independent=1"}
        stream.options = {"preset": "veryfast", "crf": "20", **independent}
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _write_annotations(root: Path, stories: list[tuple[Scene, ...]], recipe: Recipe) -> None:
    train = recipe.videos - recipe.test
    ids = [f"video{index}" for index in range(recipe.videos)]
    captions = [_captions(scenes, recipe.seed, index) for index, scenes in enumerate(stories)]
    if recipe.shuffle_captions:
        order = np.random.default_rng([recipe.seed, 4]).permutation(train)
        # One step along a random cycle: no video keeps its own captions.
        moved = dict(zip(order, np.roll(order, 1), strict=True))
        captions[:train] = [captions[moved[index]] for index in range(train)]
    pairs = [(name, text) for name, texts in zip(ids, captions, strict=True) for text in texts]
    (root / "MSRVTT_data.json").write_text(
        json.dumps(
            {
                "videos": [{"video_id": name, "id": n, "url": ""} for n, name in enumerate(ids)],
                "sentences": [
                    {"video_id": name, "sen_id": n, "caption": text}
                    for n, (name, text) in enumerate(pairs)
                ],
            },
            indent=1,
        )
    )
    _write_csv(root / "MSRVTT_train.9k.csv", [["video_id"], *([name] for name in ids[:train])])
    rows = [
        [f"ret{n}", f"msr{index}", ids[index], _sentence(stories[index], recipe.seed, index)]
        for n, index in enumerate(range(train, recipe.videos))
    ]
    _write_csv(
        root / "MSRVTT_JSFUSION_test.csv", [["key", "vid_key", "video_id", "sentence"], *rows]
    )


def _write_csv(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
