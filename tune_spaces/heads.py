"""Table 12: heads of language-video attention."""

from tune_spaces.space import BOTH, Space, Variant

_ROWS = {
    1: (47.4, 74.8, 84.2, 206.4, 45.9, 74.5, 83.3, 203.7, 410.1),
    2: (47.4, 73.9, 83.3, 204.6, 45.1, 73.6, 82.8, 201.5, 406.1),
    4: (45.3, 74.0, 82.4, 201.7, 45.1, 73.4, 82.3, 200.8, 402.5),
    8: (45.1, 73.6, 82.4, 201.1, 44.1, 73.0, 82.8, 199.9, 401.0),
}

SPACE = Space(
    name="heads",
    title="Heads of language-video attention",
    source="Table 12",
    plot="head.attention.heads",
    variants=tuple(
        Variant(
            label=f"{count} head{'s' if count > 1 else ''}",
            changes={"head.attention.heads": count},
            paper=dict(zip(BOTH, row, strict=True)),
        )
        for count, row in _ROWS.items()
    ),
)
