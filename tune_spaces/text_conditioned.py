"""Table 4: four contrasts, each alone, with plain frames and with text-conditioned ones.

No reorganisation, and similarities weighted by their softmax. The available copy contains the table
as a picture; the figures here are those that the text repeats.
"""

from tune_spaces.space import BOTH, Space, Variant

_TOLD: dict[tuple[str, bool], dict[str, float]] = {
    ("video_sentence", False): {"t2v/R1": 43.0},
    ("video_sentence", True): {"t2v/R1": 46.6},
    ("frame_word", False): {"SumR": 388.8},
    ("frame_word", True): {"SumR": 402.4},
}
_NAMES = {
    "video_sentence": "video-sentence",
    "video_word": "video-word",
    "sentence_frame": "sentence-frame",
    "frame_word": "frame-word",
}

SPACE = Space(
    name="text_conditioned",
    title="Contrasts with plain and with text-conditioned frames",
    source="Table 4",
    columns=BOTH,
    fixed={
        "loss.alpha": 0.0,
        "head.aggregate.vectors": "softmax",
        "head.reorganise.keep_rate": 1.0,
        "head.reorganise.video_word": "none",
        "head.reorganise.sentence_frame": "none",
        "head.reorganise.frame_word_words": "none",
        "head.reorganise.frame_word_frames": "none",
    },
    variants=tuple(
        Variant(
            label=f"{name}, {'text-conditioned' if conditioned else 'plain'}",
            changes={"head.grains": [grain], "head.text_conditioned": conditioned},
            paper=_TOLD.get((grain, conditioned), {}),
        )
        for grain, name in _NAMES.items()
        for conditioned in (False, True)
    ),
)
