"""Scenes of the demo corpus: their content, drawing and description."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

WIDTH, HEIGHT, RATE = 96, 72, 5
"""Pixels, and frames per second."""

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
    "night": ((10, 10, 30), ("at night", "in darkness")),
    "fog": ((140, 140, 140), ("in fog", "in mist")),
    "desert": ((225, 180, 100), ("in sand", "in the desert")),
    "forest": ((15, 80, 25), ("in forest", "among trees")),
    "sky": ((150, 210, 255), ("in the sky", "among clouds")),
    "sea": ((10, 50, 150), ("at sea", "under water")),
    "sunset": ((245, 120, 50), ("at sunset", "at dusk")),
    "lavender": ((150, 90, 215), ("in lavender", "among lilacs")),
    "snow": ((245, 245, 250), ("in snow", "in winter")),
    "roses": ((250, 150, 185), ("among roses", "in pink light")),
    "meadow": ((130, 220, 50), ("in grass", "in a meadow")),
    "mud": ((90, 55, 25), ("in mud", "on earth")),
    "pool": ((20, 200, 180), ("in a pool", "by a lagoon")),
    "bricks": ((165, 35, 35), ("by bricks", "on clay")),
    "neon": ((235, 30, 190), ("in neon", "at a disco")),
    "lemons": ((250, 240, 70), ("among lemons", "in sunshine")),
}
SHAPES: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle", "pyramid"),
    "cross": ("cross", "plus"),
    "ring": ("ring", "hoop"),
}
SIZES: dict[str, tuple[float, tuple[str, ...]]] = {
    "small": (0.16, ("small", "tiny")),
    "large": (0.30, ("large", "big")),
}
PLACES: dict[str, tuple[tuple[float, float], tuple[str, ...]]] = {
    "left": ((-0.22, 0.0), ("on the left", "at left")),
    "right": ((0.22, 0.0), ("on the right", "at right")),
    "top": ((0.0, -0.2), ("at the top", "up high")),
    "bottom": ((0.0, 0.2), ("at the bottom", "down low")),
}
MOTIONS: dict[str, tuple[str, ...]] = {
    "still": ("resting", "waiting"),
    "sideways": ("sliding", "gliding"),
    "upright": ("bouncing", "jumping"),
    "growing": ("growing", "swelling"),
    "shrinking": ("shrinking", "fading"),
}
OPENINGS = ("", "", "", "here", "we see", "apparently")
JOINTS = ("then", "and", "later", "before")
ENDINGS = ("", "", "", "", "again", "in silence")

Frame = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, slots=True)
class Scene:
    """A shape on a background, for some seconds."""

    colour: str
    background: str
    shape: str
    size: str
    place: str
    motion: str
    seconds: float


def story(rng: np.random.Generator) -> tuple[Scene, ...]:
    """Two or three consecutive scenes with different colours and backgrounds."""
    count = int(rng.choice([2, 2, 2, 3]))
    colours = rng.choice(list(COLOURS), count, replace=False)
    backgrounds = rng.choice(list(BACKGROUNDS), count, replace=False)
    shortest, longest = (15, 21) if count == 2 else (11, 20)
    return tuple(
        Scene(
            colour=str(colour),
            background=str(background),
            shape=str(rng.choice(list(SHAPES))),
            size=str(rng.choice(list(SIZES))),
            place=str(rng.choice(list(PLACES))),
            motion=str(rng.choice(list(MOTIONS))),
            seconds=int(rng.integers(shortest, longest)) / RATE,
        )
        for colour, background in zip(colours, backgrounds, strict=True)
    )


def draw(scenes: tuple[Scene, ...], rng: np.random.Generator) -> Iterator[Frame]:
    """The frames of a clip, ``RATE`` per second."""
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


def describe(
    scenes: tuple[Scene, ...], details: int, background: float, rng: np.random.Generator
) -> str:
    """A caption of ``scenes`` in their order.

    It gives each scene's colour and shape, ``details`` of size, motion and position, and with
    probability ``background`` the background.
    """
    joints = [""] + [str(rng.choice(JOINTS)) for _ in scenes[1:]]
    parts = [str(rng.choice(OPENINGS))]
    for joint, scene in zip(joints, scenes, strict=True):
        told = {"colour", "shape", *rng.choice(["size", "motion", "place"], details, replace=False)}
        if rng.random() < background:
            told.add("background")
        words = {
            "size": SIZES[scene.size][1],
            "colour": COLOURS[scene.colour][1],
            "shape": SHAPES[scene.shape],
            "motion": MOTIONS[scene.motion],
            "place": PLACES[scene.place][1],
            "background": BACKGROUNDS[scene.background][1],
        }
        chosen = [str(rng.choice(words[name])) for name in words if name in told]
        parts += [joint, "an" if chosen[0][0] in "aeiou" else "a", *chosen]
    return " ".join(part for part in [*parts, str(rng.choice(ENDINGS))] if part)


def _distance(
    shape: str,
    x: Float[np.ndarray, "height width"],
    y: Float[np.ndarray, "height width"],
    radius: float,
) -> Float[np.ndarray, "height width"]:
    """Approximate signed distance to a shape's edge, negative inside, in picture heights."""
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
    """Paint the scene's shape onto ``picture`` at ``time`` from 0 to 1, with a dark rim."""
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
