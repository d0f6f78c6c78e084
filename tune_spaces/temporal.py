"""Table 10: with and without the temporal encoder, ViT-B/32.

With ViT-B/16 the paper has SumR 412.5 without it and 418.9 with it. `with` is the recipe's own
encoder, so the recipe must have one.
"""

from tune_spaces.space import BOTH, Space, Variant

_WITHOUT = (45.1, 72.3, 82.7, 200.1, 44.7, 71.9, 83.4, 200.0, 400.1)
_WITH = (47.4, 74.8, 84.2, 206.4, 45.9, 74.5, 83.3, 203.7, 410.1)

SPACE = Space(
    name="temporal",
    title="Temporal encoder",
    source="Table 10, ViT-B/32",
    variants=(
        Variant(
            label="without",
            changes={"temporal.layers": 0},
            paper=dict(zip(BOTH, _WITHOUT, strict=True)),
        ),
        Variant(label="with", changes={}, paper=dict(zip(BOTH, _WITH, strict=True))),
    ),
)
