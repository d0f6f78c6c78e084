"""Tables 5 to 8: one contrast alone, its similarities reorganised at nine keep rates."""

from typing import Any

from tune_spaces.space import PARAMETERS, T2V, Space, Variant
from tune_spaces.tables import rates, t2v

_COLUMNS = (*T2V, PARAMETERS)
_NONE = {
    "head.reorganise.keep_rate": 1.0,
    "head.reorganise.video_word": "none",
    "head.reorganise.sentence_frame": "none",
    "head.reorganise.frame_word_words": "none",
    "head.reorganise.frame_word_frames": "none",
}


def one_grain(grain: str) -> dict[str, Any]:
    """The contrast alone; with one score there is nothing to decorrelate."""
    return {"head.grains": [grain], "loss.alpha": 0.0}


def _rows(field: str, baseline: str, text: str) -> tuple[Variant, ...]:
    quiet = {path: value for path, value in _NONE.items() if path == f"head.reorganise.{field}"}
    first = Variant(
        label="baseline",
        changes={"head.reorganise.keep_rate": 1.0, **quiet},
        paper=t2v(baseline),
    )
    others = [
        Variant(
            label=f"{mode} r={rate:g}",
            changes={"head.reorganise.keep_rate": rate, f"head.reorganise.{field}": mode},
            paper=paper,
        )
        for (rate, mode), paper in rates(text).items()
    ]
    return (first, *sorted(others, key=lambda variant: variant.label.split()[0], reverse=True))


VIDEO_WORD = Space(
    name="keep_rate_video_word",
    title="Reorganisation of the video-word vector",
    source="Table 5",
    fixed=one_grain("video_word"),
    columns=_COLUMNS,
    plot="head.reorganise.keep_rate",
    variants=_rows(
        "video_word",
        "45.8 75.1 83.6 204.5 1024",
        """
        0.1 46.4 74.3 83.9 204.6   9 | 47.2 73.9 84.3 205.4  16
        0.2 47.7 74.0 84.2 205.9  36 | 46.4 74.4 84.3 205.1  49
        0.3 46.4 74.3 83.3 204.0  81 | 46.4 74.5 84.1 205.0 100
        0.4 46.6 75.3 83.5 205.4 144 | 46.5 74.5 84.0 205.0 169
        0.5 46.6 75.2 83.6 205.4 256 | 46.2 73.7 83.8 203.7 289
        0.6 46.3 74.4 83.9 204.6 361 | 46.3 74.6 84.4 205.3 400
        0.7 47.0 74.3 83.9 205.2 484 | 46.3 75.1 83.0 204.4 529
        0.8 46.1 74.6 84.5 205.2 625 | 46.9 74.4 83.6 204.9 676
        0.9 46.1 74.2 84.0 204.3 784 | 46.8 74.2 83.8 204.8 841
        """,
    ),
)

SENTENCE_FRAME = Space(
    name="keep_rate_sentence_frame",
    title="Reorganisation of the sentence-frame vector",
    source="Table 6",
    fixed=one_grain("sentence_frame"),
    columns=_COLUMNS,
    plot="head.reorganise.keep_rate",
    variants=_rows(
        "sentence_frame",
        "47.1 74.8 83.7 205.6 1024",
        """
        0.1 46.7 75.0 84.4 206.1   9 | 47.7 75.0 83.9 206.6  16
        0.2 47.4 74.0 83.4 204.8  36 | 47.8 74.5 83.2 205.5  49
        0.3 48.1 73.8 82.9 204.8  81 | 47.3 73.4 82.7 203.4 100
        0.4 46.8 74.9 83.5 205.2 144 | 47.5 74.9 82.7 205.1 169
        0.5 46.9 74.3 82.9 204.1 256 | 47.2 74.2 83.1 204.5 289
        0.6 48.1 74.3 83.1 205.5 361 | 47.7 73.9 84.1 205.7 400
        0.7 47.0 73.7 84.1 204.8 484 | 48.0 74.3 84.0 206.3 529
        0.8 46.3 75.1 83.6 205.0 625 | 47.3 75.0 83.6 205.9 676
        0.9 47.2 74.2 83.8 205.2 784 | 47.2 75.3 82.5 205.0 841
        """,
    ),
)

WORDS = Space(
    name="keep_rate_words",
    title="Reorganisation of the frame-word matrix along words",
    source="Table 7 (a)",
    fixed={**one_grain("frame_word"), "head.reorganise.frame_word_frames": "none"},
    columns=_COLUMNS,
    plot="head.reorganise.keep_rate",
    variants=_rows(
        "frame_word_words",
        "47.8 75.3 83.8 206.9 4096",
        """
        0.1 46.6 74.3 83.3 204.2 2066 | 47.7 73.4 83.6 204.7 2080
        0.2 46.9 72.9 83.1 202.9 2120 | 47.8 74.6 83.1 205.5 2146
        0.3 46.2 74.5 83.4 204.1 2210 | 47.3 74.3 83.2 204.8 2248
        0.4 46.0 74.5 84.0 204.5 2336 | 47.3 74.2 83.2 204.7 2386
        0.5 48.3 73.2 83.7 205.2 2560 | 46.5 74.2 84.0 204.7 2626
        0.6 47.8 74.5 83.7 206.0 2770 | 48.0 73.5 83.3 204.8 2848
        0.7 46.2 73.1 83.1 202.4 3016 | 46.5 73.7 83.3 203.5 3106
        0.8 46.6 74.8 84.5 205.9 3298 | 47.0 74.3 83.4 204.7 3400
        0.9 46.5 74.9 84.6 206.0 3616 | 46.2 74.0 84.2 204.4 3730
        """,
    ),
)

FRAMES = Space(
    name="keep_rate_frames",
    title="Reorganisation of the frame-word matrix along frames",
    source="Table 7 (b)",
    fixed={**one_grain("frame_word"), "head.reorganise.frame_word_words": "none"},
    columns=_COLUMNS,
    plot="head.reorganise.keep_rate",
    variants=_rows(
        "frame_word_frames",
        "47.8 75.3 83.8 206.9 4096",
        """
        0.1 46.4 74.2 82.8 203.4 2066 | 47.1 74.1 83.9 205.1 2080
        0.2 46.5 74.0 83.4 203.9 2120 | 47.4 75.3 83.8 206.5 2146
        0.3 47.1 74.4 83.6 205.1 2210 | 46.6 73.8 84.1 204.5 2248
        0.4 47.0 74.3 83.8 205.1 2336 | 47.9 74.5 83.4 205.8 2386
        0.5 47.9 74.2 83.6 205.7 2560 | 45.9 73.9 83.1 202.9 2626
        0.6 46.9 73.8 83.4 204.1 2770 | 47.5 74.6 83.4 205.5 2848
        0.7 47.3 73.2 83.0 203.5 3016 | 46.2 73.7 83.4 203.3 3106
        0.8 46.6 74.7 83.1 204.4 3298 | 48.2 75.0 82.8 206.0 3400
        0.9 47.0 74.1 83.2 204.3 3616 | 46.5 73.8 83.4 203.7 3730
        """,
    ),
)

_MODES = (("remove", "remove"), ("remove", "fuse"), ("fuse", "remove"), ("fuse", "fuse"))
"""Words, frames: the order of Table 8's rows at each keep rate."""

_TABLE_8 = """
0.1 47.3 75.3 83.6 206.2   36 | 47.4 74.3 83.9 205.6   50 | 46.5 74.5 83.3 204.3   50 | 47.2 74.0 82.6 203.8   64
0.2 47.3 73.9 83.9 205.1  144 | 46.1 74.4 84.1 204.6  170 | 46.5 74.7 83.9 205.1  170 | 45.8 74.6 83.7 204.2  196
0.3 46.7 74.5 84.4 205.6  324 | 46.3 74.0 82.7 203.0  362 | 47.0 74.4 82.6 204.0  362 | 47.0 73.8 83.1 203.9  400
0.4 47.6 74.8 84.0 206.4  576 | 46.9 75.1 83.7 205.7  626 | 47.0 74.0 83.1 204.1  626 |  676
0.5 1024 | 1090 | 1090 | 1156
0.6 1444 | 1522 | 1522 | 1600
0.7 1936 | 2026 | 2026 | 2116
0.8 2500 | 2602 | 2602 | 2704
0.9 3136 | 3250 | 3250 | 47.7 74.7 83.6 206.0 3364
"""
"""Cells of 0.4 to 0.9 that contain only parameters were not legible in the available copy."""


def _both() -> tuple[Variant, ...]:
    rows = [
        Variant(
            label="baseline",
            changes={
                "head.reorganise.keep_rate": 1.0,
                "head.reorganise.frame_word_words": "none",
                "head.reorganise.frame_word_frames": "none",
            },
            paper=t2v("47.8 75.3 83.8 206.9 4096"),
        )
    ]
    for line in _TABLE_8.strip().splitlines():
        rate, _, rest = line.partition(" ")
        for (words, frames), cells in zip(_MODES, rest.split("|"), strict=True):
            changes = {
                "head.reorganise.keep_rate": float(rate),
                "head.reorganise.frame_word_words": words,
                "head.reorganise.frame_word_frames": frames,
            }
            label = f"{words} words, {frames} frames r={rate}"
            rows.append(Variant(label=label, changes=changes, paper=t2v(cells)))
    return tuple(rows)


BOTH_WAYS = Space(
    name="keep_rate_both_ways",
    title="Reorganisation of the frame-word matrix along words, then frames",
    source="Table 8",
    fixed=one_grain("frame_word"),
    columns=_COLUMNS,
    plot="head.reorganise.keep_rate",
    variants=_both(),
)


def _variants_at(rate: float) -> tuple[Variant, ...]:
    """Rows of Tables 5 to 8 at one keep rate, each with its own contrast."""
    rows = []
    for short, space in (
        ("video-word", VIDEO_WORD),
        ("sentence-frame", SENTENCE_FRAME),
        ("frame-word, words only", WORDS),
        ("frame-word, frames only", FRAMES),
        ("frame-word, both", BOTH_WAYS),
    ):
        for variant in space.variants:
            base = variant.label == "baseline"
            if (base and short.endswith("only")) or not (
                base or variant.changes["head.reorganise.keep_rate"] == rate
            ):
                continue
            label = f"{short}: {variant.label.rsplit(' r=')[0]}"
            changes = {**_NONE, **space.fixed, **variant.changes}
            rows.append(Variant(label=label, changes=changes, paper=variant.paper))
    return tuple(rows)


REORGANISATION = Space(
    name="reorganisation",
    title="Remove or fuse, one way or both ways, at keep rate 0.1",
    source="Tables 5 to 8 at r = 0.1",
    fixed={"loss.alpha": 0.0},
    columns=_COLUMNS,
    variants=_variants_at(0.1),
)
