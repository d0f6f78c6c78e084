"""Parts of a page that hold frames: retrieved videos, and attention over a video's frames."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from tcmgc.reports.pages.page import caption

_SIDE = 112
"""Pixels of a frame in a page at most."""
_NUMBERS = 24
"""Frames up to which weights are written into their cells."""


@dataclass(frozen=True)
class Result:
    """A video in a list of results."""

    id: str
    rank: int
    score: float
    matches: bool
    frames: UInt8[np.ndarray, "frames 3 size size"]


@dataclass(frozen=True)
class Weights:
    """A caption's attention over the frames of its video."""

    caption: str
    video: str
    frames: UInt8[np.ndarray, "frames 3 size size"]
    seconds: Float[np.ndarray, "frames"]
    """When each frame comes on screen."""
    sentence: Float[np.ndarray, "columns"] | None
    words: Sequence[tuple[str, Float[np.ndarray, "columns"]]]
    padding: bool = False
    """Whether padded frames take part; then the last weight of each row is theirs together."""


def picture(frames: UInt8[np.ndarray, "frames 3 size size"]) -> str:
    """Frames side by side as one JPEG, in a data URI."""
    side = min(frames.shape[-1], _SIDE)
    images = [Image.fromarray(np.moveaxis(frame, 0, -1)).resize((side, side)) for frame in frames]
    strip = Image.new("RGB", (side * len(images), side))
    for place, image in enumerate(images):
        strip.paste(image, (place * side, 0))
    buffer = io.BytesIO()
    strip.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def spread(count: int, shown: int) -> list[int]:
    """At most ``shown`` of ``count`` places, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, shown)).round().astype(int)).tolist()


def retrieval(text: str, note: str, results: Sequence[Result]) -> str:
    """A query and videos; those that match have a full green edge and ✓, others a dashed red one and ✗."""
    shown = "".join(_result(result) for result in results)
    return (
        f'{caption(text)}<p class="quiet">{html.escape(note)}</p><div class="results">{shown}</div>'
    )


def attention(weights: Weights) -> str:
    """Frames in their order; under each the sentence's weight as a bar and each word's as a shade."""
    columns = len(weights.frames) + weights.padding
    seconds = "".join(f'<th class="frame quiet">{time:.1f} s</th>' for time in weights.seconds)
    frames = "".join(
        f'<th class="frame"><img src="{picture(frame[None])}" alt="frame at {time:.1f} s"></th>'
        for frame, time in zip(weights.frames, weights.seconds.tolist(), strict=True)
    )
    if weights.padding:
        seconds += '<th class="frame quiet">padding</th>'
        frames += '<th class="frame"></th>'
    rows = [f'<tr><th class="word quiet">frame</th>{frames}</tr>']
    rows.append(f'<tr><th class="word quiet"></th>{seconds}</tr>')
    vectors = [row for _, row in weights.words]
    top = max(float(row.max()) for row in [*vectors, weights.sentence] if row is not None)
    if weights.sentence is not None:
        bars = "".join(
            f'<td title="{weight:.1%}"><div class="bar">{_number(weight, columns)}'
            f'<i style="--w:{weight / top:.3f}"></i></div></td>'
            for weight in weights.sentence.tolist()
        )
        rows.append(f'<tr><th class="word">whole sentence</th>{bars}</tr>')
    for word, row in weights.words:
        safe = html.escape(word)
        cells = "".join(_shade(weight, weight / top, columns) for weight in row.tolist())
        rows.append(f'<tr><th class="word" dir="auto" title="{safe}">{safe}</th>{cells}</tr>')
    return (
        f'{caption(weights.caption)}<p class="quiet">{html.escape(weights.video)}</p>'
        f'<div class="scroll"><table class="attention">{"".join(rows)}</table></div>'
    )


def _result(result: Result) -> str:
    kind, mark = ("hit", "✓") if result.matches else ("miss", "✗")
    safe = html.escape(result.id)
    says = "the caption's own video" if result.matches else "another video"
    strip = picture(result.frames[spread(len(result.frames), 4)])
    return (
        f'<figure class="{kind}"><img src="{strip}" alt="frames of {safe}, {says}"><figcaption>'
        f'<b title="{says}">{mark} rank {result.rank}</b><span class="id" dir="auto" title="{safe}">{safe}</span>'
        f"<span>{result.score:.3f}</span></figcaption></figure>"
    )


def _shade(weight: float, relative: float, columns: int) -> str:
    # Where the other ink reads better: on light ground from 0.8 on, on dark ground earlier.
    depth = " deep" if relative > 0.8 else " middle" if relative > 0.62 else ""
    number = _number(weight, columns) or "&nbsp;"
    return f'<td class="shade{depth}" style="--w:{relative:.3f}" title="{weight:.1%}">{number}</td>'


def _number(weight: float, columns: int) -> str:
    return f"{weight:.0%}" if columns <= _NUMBERS else ""
