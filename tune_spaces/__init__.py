"""Sweep spaces: one module per table or figure of the paper (Tables 5 to 8 share one)."""

from tune_spaces import (
    alpha,
    grains,
    heads,
    joint,
    keep_rate,
    residual,
    scale,
    sdr_pairs,
    single_grain,
    temporal,
    text_conditioned,
)
from tune_spaces.space import Choice, Range, Rule, Space, Variant, check

SPACES: dict[str, Space] = {
    space.name: space
    for space in (
        text_conditioned.SPACE,
        single_grain.VIDEO_WORD,
        single_grain.SENTENCE_FRAME,
        single_grain.WORDS,
        single_grain.FRAMES,
        single_grain.BOTH_WAYS,
        single_grain.REORGANISATION,
        grains.SPACE,
        temporal.SPACE,
        residual.SPACE,
        heads.SPACE,
        scale.SPACE,
        sdr_pairs.SPACE,
        alpha.SPACE,
        keep_rate.SPACE,
        joint.SPACE,
    )
}
"""Spaces by name, in the paper's order."""

__all__ = ["SPACES", "Choice", "Range", "Rule", "Space", "Variant", "check"]
