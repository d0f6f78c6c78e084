"""Fig. B.1: the whole model at nine keep rates."""

from tune_spaces.space import BOTH, PARAMETERS, Space, Variant

_TOLD = {
    0.1: {"SumR": 410.1, PARAMETERS: 61},
    0.3: {"SumR": 410.2, PARAMETERS: 505},
}
"""The points that the text gives as numbers (Appendix B); the others are marks in the figure."""

SPACE = Space(
    name="keep_rate",
    title="Keep rate of the whole model",
    source="Fig. B.1",
    columns=(*BOTH, PARAMETERS),
    plot="head.reorganise.keep_rate",
    variants=tuple(
        Variant(
            label=f"r={tenths / 10:g}",
            changes={"head.reorganise.keep_rate": tenths / 10},
            paper=_TOLD.get(tenths / 10, {}),
        )
        for tenths in range(1, 10)
    ),
)
