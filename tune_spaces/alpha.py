"""Fig. A.1: the weight of similarity decorrelation."""

from tune_spaces.space import Space, Variant

_TOLD = {0.5: {"t2v/R1": 47.4, "v2t/R1": 45.9, "SumR": 410.1}}
"""Figures given as numbers; for 0.1 the text states that R@1 of both directions adds up to 92.2."""

SPACE = Space(
    name="alpha",
    title="Weight of the SDR loss",
    source="Fig. A.1",
    plot="loss.alpha",
    variants=tuple(
        Variant(
            label=f"alpha={tenths / 10:g}",
            changes={"loss.alpha": tenths / 10},
            paper=_TOLD.get(tenths / 10, {}),
        )
        for tenths in range(1, 11)
    ),
)
