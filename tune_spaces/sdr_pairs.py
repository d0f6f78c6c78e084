"""Table A.1: the pairs whose similarities are decorrelated."""

from tune_spaces.space import Space, Variant

SPACE = Space(
    name="sdr_pairs",
    title="Pairs that the SDR loss looks at",
    source="Table A.1",
    variants=(
        Variant(label="positives", changes={"loss.sdr_pairs": "positives"}, paper={"SumR": 410.1}),
        Variant(label="negatives", changes={"loss.sdr_pairs": "negatives"}, paper={"SumR": 404.4}),
        Variant(label="all", changes={"loss.sdr_pairs": "all"}),
    ),
)
