"""Calibration: a score's rank among the best scores of unspecific, everyday queries.

Similarities of different models, and of one model on different archives, are on different scales.
So a fixed set of everyday queries is run once per index. Most of them have no match in it. A score
is then reported by its rank: the share of those queries whose own best window scores lower.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tcmgc.search.index import Index

COUNT = 256
"""Number of queries."""
CLOSE = 0.9
"""Rank from which a best match counts as close."""
GROWN = 1.2
"""An index is calibrated again when its size has changed by this factor."""

_WHO = (
    *("a man", "a woman", "a young girl", "a boy", "two friends", "a family", "a chef", "a crowd"),
    *("a dog", "a cat", "a horse", "a bird", "a teacher", "a doctor", "an old couple", "a player"),
)
_DOES = (
    *("plays the piano", "is cooking soup", "rides a bicycle", "reads a newspaper", "is swimming"),
    *("talks on the telephone", "dances", "paints a wall", "is eating dinner", "runs a race"),
    *(
        "repairs an engine",
        "climbs a rock",
        "sings a song",
        "is sleeping",
        "throws a ball",
        "laughs",
    ),
)
_WHERE = (
    *("in a kitchen", "on a beach", "in the snow", "at night", "in a garden", "on a stage"),
    *("in a classroom", "beside a lake", "in a busy street", "on a boat", "in a forest"),
    *("at an airport", "in a car", "under a bridge", "on a farm"),
)


def queries(count: int = COUNT) -> list[str]:
    """The everyday queries; always the same."""
    # Counts without a common divisor, and an offset after each round: no two queries are the same.
    return [f"{_WHO[i % 16]} {_DOES[(i + i // 16) % 16]} {_WHERE[i % 15]}" for i in range(count)]


@dataclass(frozen=True)
class Calibration:
    """The best scores of the everyday queries, and the usual scores of any window."""

    best: tuple[float, ...]
    """In ascending order."""
    mean: float
    """Mean score of these queries with a sample of the windows."""
    deviation: float
    windows: int
    """Windows in the index at calibration."""

    def place(self, score: float) -> float:
        """Share of the everyday queries whose best window scores lower: 0 to 1."""
        return float(np.searchsorted(self.best, score) / len(self.best))

    def standard(self, scores: np.ndarray) -> np.ndarray:
        """Scores in standard deviations from the mean of any query with any window."""
        return (scores - self.mean) / (self.deviation or 1.0)

    def stale(self, windows: int) -> bool:
        """Whether the index has changed too much since calibration."""
        return not self.windows / GROWN <= windows <= self.windows * GROWN

    def to_dict(self) -> dict[str, Any]:
        """The calibration as JSON types."""
        return asdict(self)

    @classmethod
    def of(cls, best: Sequence[float], scores: np.ndarray, windows: int) -> "Calibration":
        """Create from each query's best score, and scores of queries with a sample of windows."""
        return cls(
            tuple(round(float(score), 6) for score in sorted(best)),
            round(float(scores.mean()), 6),
            round(float(scores.std()), 6),
            windows,
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any] | None) -> "Calibration | None":
        """The inverse of :meth:`to_dict`; None stays None."""
        return None if values is None else cls(**{**values, "best": tuple(values["best"])})


def calibrate(index: "Index") -> Calibration | None:
    """Run the everyday queries on an index; None if it has no windows.

    The mean and the deviation are those of up to 512 windows, chosen at even intervals.
    """
    live = np.flatnonzero(index.file_of >= 0)
    if not len(live):
        return None
    texts = queries()
    best = [answer.matches[0].moment.score for answer in index.search(texts, 1)]
    sample = np.unique(live[np.linspace(0, len(live) - 1, min(512, len(live))).astype(int)])
    scores = index.scores(index.encoder.texts(texts[:64]), sample)
    return Calibration.of(best, scores.numpy(), len(live))
