"""Table 13: lambda, the factor on similarities in InfoNCE."""

from tune_spaces.space import BOTH, Space, Variant

_ROWS = {
    1: (46.3, 75.1, 84.2, 205.6, 45.7, 73.7, 82.8, 202.2, 407.8),
    10: (46.5, 75.4, 83.9, 205.8, 45.6, 74.3, 83.6, 203.5, 409.3),
    100: (47.4, 74.8, 84.2, 206.4, 45.9, 74.5, 83.3, 203.7, 410.1),
    1000: (46.1, 74.1, 84.3, 204.5, 45.9, 73.8, 83.3, 203.0, 407.5),
}

SPACE = Space(
    name="scale",
    title="lambda",
    source="Table 13",
    fixed={"loss.learn_scale": False},
    plot="loss.scale",
    variants=tuple(
        Variant(
            label=f"lambda={value}",
            changes={"loss.scale": float(value)},
            paper=dict(zip(BOTH, row, strict=True)),
        )
        for value, row in _ROWS.items()
    ),
)
