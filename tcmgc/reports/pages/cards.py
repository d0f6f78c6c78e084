"""Parts of a page with frames: retrieved videos, and attention over a video's frames."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from tcmgc.reports.pages.page import caption, name, scroll

_SIDE = 112
"""Most pixels of a frame in a page."""
_NUMBERS = 24
"""Frames up to which weights are written into their cells."""
_WORDS = 140
"""Characters shown of a retrieved video's caption."""
FULL = 4.0
"""Bars and shades are full at this multiple of uniform attention."""


@dataclass(frozen=True)
class Result:
    """A video in a list of results."""

    id: str
    rank: int
    score: float
    kind: Literal["hit", "miss", "other"]
    """The caption's own video, a wrong one that ranks above it, or one that ranks below it."""
    caption: str
    """One of the video's own captions."""
    frames: UInt8[np.ndarray, "frames 3 size size"]


@dataclass(frozen=True)
class Weights:
    """A caption's attention over the frames of its video."""

    caption: str
    video: str
    frames: UInt8[np.ndarray, "frames 3 size size"]
    seconds: Float[np.ndarray, "frames"]
    """When each frame is first shown."""
    sentence: Float[np.ndarray, "columns"] | None
    words: Sequence[tuple[str, Float[np.ndarray, "columns"]]]
    padding: bool = False
    """Whether padded frames take part; if so, the last weight of each row is their sum."""
    read: int | None = None
    """Characters of the caption that the model reads; None: all."""
    padded: int = 0
    """Number of padded frames in the last column, if padding takes part."""


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
    """At most ``shown`` of ``count`` positions, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, shown)).round().astype(int)).tolist()


def retrieval(text: str, note: str, results: Sequence[Result], read: int | None = None) -> str:
    """A query and videos.

    The query's own video has a solid green border and ✓, wrong ones above it a dashed red one and ✗;
    those below it have neither.

    Args:
        text: the query.
        note: below it.
        results: in the order shown.
        read: characters of the query that the model reads; None: all.
    """
    shown = "".join(_result(result) for result in results)
    below = f'<p class="quiet">{html.escape(note)}</p>' if note else ""
    return f'{caption(text, read)}{below}<div class="results">{shown}</div>'


def attention(weights: Weights) -> str:
    """Frames in order; below each, the sentence's weight as a bar and each word's weight as a shade.

    All are relative to uniform attention, a weight of 1 / frames: a dashed line for bars, no shade
    for words; both are full at :data:`FULL` times uniform.
    """
    columns = len(weights.frames) + weights.padding
    count = len(weights.frames) + (weights.padded if weights.padding else 0)
    # Weight of each column under uniform attention; padded frames share the last one.
    uniform = np.full(columns, 1 / count)
    if weights.padding:
        uniform[-1] = weights.padded / count
    head = "".join(
        f'<th scope="col"><img src="{picture(frame[None])}" alt="frame at {time:.1f} s">{time:.1f} s</th>'
        for frame, time in zip(weights.frames, weights.seconds.tolist(), strict=True)
    )
    if weights.padding:
        head += f'<th scope="col">padding ({weights.padded} frames)</th>'
    rows = []
    if weights.sentence is not None:
        pairs = zip(weights.sentence.tolist(), uniform.tolist(), strict=True)
        bars = "".join(_bar(weight, one, columns) for weight, one in pairs)
        rows.append(f'<tr><th scope="row">whole sentence</th>{bars}</tr>')
    for word, row in weights.words:
        safe = html.escape(word)
        pairs = zip(row.tolist(), uniform.tolist(), strict=True)
        cells = "".join(_shade(weight, one, columns) for weight, one in pairs)
        rows.append(f'<tr><th scope="row" dir="auto" title="{safe}">{safe}</th>{cells}</tr>')
    table = (
        f'<table class="attention"><thead><tr><td class="quiet">uniform: {1 / count:.1%}</td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    return (
        f'{caption(weights.caption, weights.read)}<p class="quiet">{name(weights.video)}</p>'
        f"{scroll(table, f'attention over the frames of {weights.video}')}"
    )


def _result(result: Result) -> str:
    mark = {"hit": "✓ ", "miss": "✗ ", "other": ""}[result.kind]
    says = {
        "hit": "the caption's own video",
        "miss": "another video, ranked above the caption's own",
        "other": "another video, ranked below the caption's own",
    }[result.kind]
    safe = html.escape(result.id)
    strip = picture(result.frames[spread(len(result.frames), 4)])
    return (
        f'<figure class="{result.kind}"><img src="{strip}" alt="frames of {safe}, {says}"><figcaption>'
        f'<div class="facts"><b title="{says}">{mark}rank {result.rank}</b>{name(result.id)}'
        f'<span>{result.score:.3f}</span></div><div class="words" dir="auto">{_short(result.caption)}</div>'
        "</figcaption></figure>"
    )


def _short(text: str) -> str:
    """The beginning of a caption, with a mark if it is shortened."""
    if len(text) <= _WORDS:
        return html.escape(text)
    return f'{html.escape(text[:_WORDS])}… <span class="note">({len(text)} characters)</span>'


def _bar(weight: float, uniform: float, columns: int) -> str:
    """A bar whose height is the multiple of uniform attention, up to :data:`FULL` times."""
    times = weight / uniform if uniform else 0.0
    return (
        f'<td title="{_said(weight, times)}"><div class="bar" style="--one:{1 / FULL:.3f}">'
        f'<span>{_number(weight, columns)}</span><i style="--w:{min(times, FULL) / FULL:.3f}"></i></div></td>'
    )


def _shade(weight: float, uniform: float, columns: int) -> str:
    """A cell without shade up to uniform attention, and fully shaded from :data:`FULL` times that."""
    times = weight / uniform if uniform else 0.0
    depth = min(max(times - 1, 0.0) / (FULL - 1), 1.0)
    below = " below" if times < 1 else ""
    return (
        f'<td class="shade{below}" style="--w:{depth:.3f}" title="{_said(weight, times)}">'
        f"{_number(weight, columns) or '&nbsp;'}</td>"
    )


def _said(weight: float, times: float) -> str:
    return f"{weight:.1%}, {times:.1f} times uniform"


def _number(weight: float, columns: int) -> str:
    return f"{weight:.0%}" if columns <= _NUMBERS else ""
