"""Table 11: the residual around the fully connected layer, ViT-B/32.

With ViT-B/16 the paper has SumR 408.1 without it and 418.9 with it.
"""

from tune_spaces.space import BOTH, Space, Variant

_WITHOUT = (44.5, 73.2, 82.6, 200.3, 41.3, 72.3, 81.8, 195.4, 395.7)
_WITH = (47.4, 74.8, 84.2, 206.4, 45.9, 74.5, 83.3, 203.7, 410.1)

SPACE = Space(
    name="residual",
    title="Residual around the fully connected layer of attention",
    source="Table 11, ViT-B/32",
    variants=(
        Variant(
            label="without",
            changes={"head.attention.residual": False},
            paper=dict(zip(BOTH, _WITHOUT, strict=True)),
        ),
        Variant(
            label="with",
            changes={"head.attention.residual": True},
            paper=dict(zip(BOTH, _WITH, strict=True)),
        ),
    ),
)
