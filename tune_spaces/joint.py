"""All of the ablations' fields at once, and the learning rates, sampled."""

from tcmgc.config import GRAINS
from tune_spaces.grains import EXPERIMENTS
from tune_spaces.space import BOTH, PARAMETERS, Choice, Range, Rule, Space

_MODES = Choice(("none", "remove", "fuse"))
_REORGANISE = ("video_word", "sentence_frame", "frame_word_words", "frame_word_frames")

SPACE = Space(
    name="joint",
    title="Everything at once",
    source="Tables 4 to 13, Figs. A.1 and B.1",
    columns=(*BOTH, PARAMETERS),
    scheduler="asha",
    samples=50,
    demo_epochs=3,
    axes={
        "head.grains": Choice(tuple(EXPERIMENTS.values())),
        "head.text_conditioned": Choice((True, False)),
        "head.reorganise.keep_rate": Choice(tuple(tenths / 10 for tenths in range(1, 10))),
        **{f"head.reorganise.{name}": _MODES for name in _REORGANISE},
        "head.aggregate.vectors": Choice(("isa", "softmax")),
        "head.aggregate.scores": Choice(("lsa", "softmax", "mean")),
        "head.attention.heads": Choice((1, 2, 4, 8)),
        "head.attention.residual": Choice((True, False)),
        "temporal.layers": Choice((0, 1, 2, 3, 4)),
        "loss.alpha": Range(0.0, 1.0),
        "loss.sdr_pairs": Choice(("positives", "negatives", "all")),
        "loss.scale": Range(1.0, 1000.0, log=True),
        "optim.lr_clip": Range(1e-8, 1e-5, log=True),
        "optim.lr_new": Range(1e-5, 1e-2, log=True),
    },
    rules=(
        # One score: nothing to decorrelate.
        Rule(when={"head.grains": tuple((grain,) for grain in GRAINS)}, then={"loss.alpha": 0.0}),
        # There are fewer plain frames than words, and a small share of them may be zero frames.
        Rule(
            when={"head.text_conditioned": (False,)},
            then={
                "head.reorganise.keep_rate": 1.0,
                **{f"head.reorganise.{name}": "none" for name in _REORGANISE},
            },
        ),
    ),
    fixed={"loss.learn_scale": False},
)
