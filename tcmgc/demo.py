"""A made-up corpus in MSR-VTT's layout: real H.264 files of coloured shapes that move.

A clip shows two or three scenes, each a shape of some colour, size, place and motion before a
background, with grey bits drifting about that no caption mentions. A caption names some of the
scenes in their order and some of what is in them, so that a text says which frames matter.
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
from jaxtyping import Float, UInt8

WIDTH, HEIGHT, RATE = 96, 72, 5
"""Pixels, and frames a second."""
CAPTIONS = 5
"""Captions of a training video."""
MARKER = "demo.json"
"""Written last: a folder with it is whole."""

COLOURS: dict[str, tuple[tuple[int, int, int], tuple[str, ...]]] = {
    "red": ((220, 30, 30), ("red", "scarlet")),
    "orange": ((250, 140, 20), ("orange", "amber")),
    "yellow": ((245, 230, 40), ("yellow", "golden")),
    "green": ((40, 190, 50), ("green", "emerald")),
    "cyan": ((40, 220, 220), ("cyan", "turquoise")),
    "blue": ((40, 70, 230), ("blue", "navy")),
    "purple": ((160, 40, 200), ("purple", "violet")),
    "white": ((250, 250, 250), ("white", "pale")),
}
BACKGROUNDS: dict[str, tuple[tuple[int, int, int], tuple[str, ...]]] = {
    "night": ((15, 15, 25), ("at night", "in the dark")),
    "fog": ((125, 125, 125), ("in fog", "in the mist")),
    "desert": ((175, 140, 95), ("in the desert", "on sand")),
    "forest": ((45, 75, 40), ("in a forest", "among trees")),
    "ice": ((175, 200, 215), ("on ice", "in the snow")),
}
SHAPES: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box"),
    "triangle": ("triangle", "pyramid"),
    "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop"),
}
SIZES: dict[str, tuple[float, tuple[str, ...]]] = {
    "small": (0.10, ("small", "tiny", "little")),
    "large": (0.22, ("large", "big", "huge")),
}
PLACES: dict[str, tuple[tuple[float, float], tuple[str, ...]]] = {
    "left": ((-0.26, 0.0), ("on the left", "at the left side")),
    "right": ((0.26, 0.0), ("on the right", "at the right side")),
    "top": ((0.0, -0.24), ("at the top", "up high")),
    "bottom": ((0.0, 0.24), ("at the bottom", "down low")),
}
MOTIONS: dict[str, tuple[str, ...]] = {
    "still": ("resting", "waiting"),
    "sideways": ("sliding", "gliding"),
    "upright": ("bouncing", "jumping"),
    "growing": ("growing", "swelling"),
    "shrinking": ("shrinking", "dwindling"),
}
OPENINGS = ("", "", "", "here", "we see", "the clip shows", "someone filmed", "apparently")
JOINTS = ("then", "and then", "followed by", "later", "before")
ENDINGS = ("", "", "", "", "for a while", "in silence", "as usual")

Frame = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, slots=True)
class Scene:
    """A shape before a background, for some seconds."""

    colour: str
    background: str
    shape: str
    size: str
    place: str
    motion: str
    seconds: float


@dataclass(frozen=True)
class Recipe:
    """What decides every byte of a corpus."""

    videos: int
    test: int
    seed: int
    shuffle_captions: bool
    version: int = 1


def make(
    root: Path | str,
    videos: int = 1200,
    test: int = 200,
    seed: int = 0,
    shuffle_captions: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the corpus below ``root`` and return ``root``; one that is there already stays.

    The last ``test`` videos are the test split, with one sentence each. The same arguments give
    the same bytes. It is made beside ``root`` and renamed, so ``root`` is whole or not there.

    Args:
        root: A folder that is not there yet, empty, or a corpus of the same arguments.
        videos: All videos, those of the test split included.
        test: Videos of the test split.
        seed: Decides scenes, words and noise.
        shuffle_captions: Give every training video another one's captions (a negative control);
            the test split keeps its own.
        progress: Called with the number of videos done and the number of all.

    Raises:
        ValueError: impossible counts, or ``root`` holds something else.
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
        stories = [_story(seed, index) for index in range(videos)]
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
    """Whether ``root`` holds the corpus of ``recipe``; False for nothing or an empty folder.

    Raises:
        ValueError: ``root`` holds something else, which is left alone.
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


def draw(scenes: tuple[Scene, ...], rng: np.random.Generator) -> Iterator[Frame]:
    """The frames of a clip, ``RATE`` a second."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    x, y = (x + 0.5 - WIDTH / 2) / HEIGHT, (y + 0.5) / HEIGHT - 0.5
    for scene in scenes:
        tilt = rng.uniform(-25, 25, 2)
        ground = np.array(BACKGROUNDS[scene.background][0], np.float32) + rng.uniform(-12, 12, 3)
        ground = ground + (tilt[0] * x + tilt[1] * y + rng.normal(0, 4, x.shape))[..., None]
        bits = rng.uniform((-0.6, -0.5, -0.02, -0.02, 40), (0.6, 0.5, 0.02, 0.02, 210), (3, 5))
        wobble = rng.uniform(-0.04, 0.04, 2)
        count = round(scene.seconds * RATE)
        for step in range(count):
            picture = ground.copy()
            for left, top, right, down, grey in bits:
                bit = _distance("square", x - left - right * step, y - top - down * step, 0.03)
                picture[bit < 0] = grey
            _paint(picture, scene, wobble, step / max(count - 1, 1), x, y)
            yield picture.clip(0, 255).astype(np.uint8)


def describe(scenes: tuple[Scene, ...], details: int, rng: np.random.Generator) -> str:
    """A caption of ``scenes``: colour and shape of each, and ``details`` of the other four facts."""
    joints = [""] + [str(rng.choice(JOINTS)) for _ in scenes[1:]]
    parts = [str(rng.choice(OPENINGS))]
    for joint, scene in zip(joints, scenes, strict=True):
        told = set(rng.choice(["size", "motion", "place", "background"], details, replace=False))
        words = {
            "size": SIZES[scene.size][1],
            "colour": COLOURS[scene.colour][1],
            "shape": SHAPES[scene.shape],
            "motion": MOTIONS[scene.motion],
            "place": PLACES[scene.place][1],
            "background": BACKGROUNDS[scene.background][1],
        }
        chosen = [
            str(rng.choice(words[name])) for name in words if name in told | {"colour", "shape"}
        ]
        parts += [joint, "an" if chosen[0][0] in "aeiou" else "a", *chosen]
    return " ".join(part for part in [*parts, str(rng.choice(ENDINGS))] if part)


def _story(seed: int, index: int) -> tuple[Scene, ...]:
    rng = np.random.default_rng([seed, index, 0])
    count = int(rng.integers(2, 4))
    colours = rng.choice(list(COLOURS), count, replace=False)
    backgrounds = rng.choice(list(BACKGROUNDS), count, replace=False)
    return tuple(
        Scene(
            colour=str(colour),
            background=str(background),
            shape=str(rng.choice(list(SHAPES))),
            size=str(rng.choice(list(SIZES))),
            place=str(rng.choice(list(PLACES))),
            motion=str(rng.choice(list(MOTIONS))),
            seconds=float(rng.integers(15, 21)) / RATE
            if count == 2
            else float(rng.integers(11, 20)) / RATE,
        )
        for colour, background in zip(colours, backgrounds, strict=True)
    )


def _captions(scenes: tuple[Scene, ...], seed: int, index: int) -> list[str]:
    rng = np.random.default_rng([seed, index, 1])
    captions = []
    for _ in range(CAPTIONS):
        told = np.sort(rng.choice(len(scenes), int(rng.integers(1, 3)), replace=False))
        captions.append(describe(tuple(scenes[i] for i in told), int(rng.integers(1, 4)), rng))
    return captions


def _sentence(scenes: tuple[Scene, ...], seed: int, index: int) -> str:
    rng = np.random.default_rng([seed, index, 2])
    told = np.sort(rng.choice(len(scenes), 2, replace=False))
    return describe(tuple(scenes[i] for i in told), 3, rng)


def _distance(
    shape: str,
    x: Float[np.ndarray, "height width"],
    y: Float[np.ndarray, "height width"],
    radius: float,
) -> Float[np.ndarray, "height width"]:
    """Signed distance to a shape's edge, or near enough: below 0 inside. In picture heights."""
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "square":
        return np.maximum(abs(x), abs(y)) - radius * 0.9
    if shape == "triangle":
        return np.maximum(abs(x) * 0.87 - y * 0.5 - radius * 0.5, y - radius * 0.8)
    if shape == "cross":
        near, far = np.minimum(abs(x), abs(y)), np.maximum(abs(x), abs(y))
        return np.maximum(near - radius * 0.33, far - radius)
    return abs(np.hypot(x, y) - radius * 0.75) - radius * 0.25


def _paint(
    picture: Float[np.ndarray, "height width 3"],
    scene: Scene,
    wobble: Float[np.ndarray, "2"],
    time: float,
    x: Float[np.ndarray, "height width"],
    y: Float[np.ndarray, "height width"],
) -> None:
    """The scene's shape onto ``picture`` at ``time`` from 0 to 1, with a dark rim."""
    (across, down), radius = PLACES[scene.place][0] + wobble, SIZES[scene.size][0]
    swing = 0.14 * np.sin(2 * np.pi * 1.5 * time)
    if scene.motion == "sideways":
        across = across + swing
    elif scene.motion == "upright":
        down = down + swing
    elif scene.motion == "growing":
        radius *= 0.6 + 0.6 * time
    elif scene.motion == "shrinking":
        radius *= 1.2 - 0.6 * time
    distance = _distance(scene.shape, x - across, y - down, radius)
    picture[distance < 0.015] = 0
    picture[distance < 0] = COLOURS[scene.colour][0]


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
        stream.options = {"preset": "veryfast", "crf": "20"}
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _write_annotations(root: Path, stories: list[tuple[Scene, ...]], recipe: Recipe) -> None:
    train = recipe.videos - recipe.test
    ids = [f"video{index}" for index in range(recipe.videos)]
    captions = [_captions(scenes, recipe.seed, index) for index, scenes in enumerate(stories)]
    if recipe.shuffle_captions:
        order = np.random.default_rng([recipe.seed, 4]).permutation(train)
        # One step round a random circle: no video keeps its own.
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
