"""Table 9 with Figs. 7 and 8: every set of contrasts, with and without SDR, three aggregations.

The paper plots the points as marks; the figures here are those that its text repeats. A single
contrast has one score, so neither SDR nor the aggregation applies to it: Exp1 to Exp4 are one
variant each.
"""

from typing import Any

from tune_spaces.space import BOTH, Space, Variant

_V, _W, _F, _M = "video_sentence", "video_word", "sentence_frame", "frame_word"
EXPERIMENTS = {
    "Exp1": (_V,),
    "Exp2": (_W,),
    "Exp3": (_F,),
    "Exp4": (_M,),
    "Exp5": (_V, _W),
    "Exp6": (_V, _F),
    "Exp7": (_V, _M),
    "Exp8": (_W, _F),
    "Exp9": (_W, _M),
    "Exp10": (_F, _M),
    "Exp11": (_V, _W, _F),
    "Exp12": (_V, _W, _M),
    "Exp13": (_V, _F, _M),
    "Exp14": (_W, _F, _M),
    "Exp15": (_V, _W, _F, _M),
}
"""Table 9."""

_TOLD = {
    ("Exp3", "", False): 408.2,
    ("Exp10", "mean", False): 401.7,
    ("Exp10", "mean", True): 408.0,
    ("Exp12", "mean", True): 409.7,
    ("Exp14", "mean", False): 406.0,
    ("Exp14", "mean", True): 408.6,
    ("Exp15", "mean", False): 404.6,
    ("Exp15", "mean", True): 406.8,
    ("Exp5", "softmax", True): 404.5,
    ("Exp7", "softmax", True): 405.8,
    ("Exp5", "lsa", True): 407.0,
    ("Exp7", "lsa", True): 408.7,
    ("Exp9", "lsa", True): 409.9,
    ("Exp12", "lsa", True): 407.1,
    ("Exp14", "lsa", True): 406.9,
    ("Exp15", "lsa", True): 410.1,
}
"""SumR (Sections 4.3.3 and 4.3.4)."""


def _variants() -> tuple[Variant, ...]:
    rows = []
    for name, grains in EXPERIMENTS.items():
        several = len(grains) > 1
        for scores in ("mean", "softmax", "lsa") if several else ("",):
            for sdr in (False, True) if several else (False,):
                changes: dict[str, Any] = {"head.grains": list(grains)}
                if several:
                    changes |= {"head.aggregate.scores": scores}
                if not sdr:
                    changes |= {"loss.alpha": 0.0}
                told = _TOLD.get((name, scores, sdr))
                label = f"{name} {scores}{' +SDR' if sdr else ''}".strip()
                paper = {} if told is None else {"SumR": told}
                rows.append(Variant(label=label, changes=changes, paper=paper))
    return tuple(rows)


SPACE = Space(
    name="grains",
    title="Contrasts, SDR and aggregation of scores",
    source="Table 9, Figs. 7 and 8",
    columns=BOTH,
    variants=_variants(),
)
